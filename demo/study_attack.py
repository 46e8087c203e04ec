"""FuseDream's first case study: a picture of another class, perturbed within a small budget to score high.

Liu et al. 2021 (arXiv:2112.01573), section 2.1 and figure 2: a picture that looks the same, with a much higher score.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from clip2latent.augment import Augment
from clip2latent.images import from_uint8, to_uint8
from clip2latent.interfaces import Objective
from demo import single_objects
from demo.data import render
from demo.judge import HELD_OUT
from demo.study_cells import Cell, Models, Numbers, Scale, measured, objective_of, text_of

STEPS = 10
STRIDE = 2.5
"""All steps together, in budgets: enough to cross the allowed cube and come back a little."""
WAYS = {
    "CLIP, 10 steps": (None, STEPS),
    "AugCLIP, 10 steps": (Augment(), STEPS),
    "CLIP, one step": (None, 1),
    "AugCLIP, one step": (Augment(), 1),
    "random signs": (None, 0),
}
"""Way -> what is attacked, and in how many steps; 0 for a perturbation that attacks nothing."""
GENUINE = "picture of the target"


class Pictures(NamedTuple):
    """Pictures, the same with an object of the target's class, and targets.

    Attributes:
        images: [B, 3, R, R].
        genuine: [B, 3, R, R], of the target's class, on the same ground and in the same colour.
        targets: [B, E].
        own: the class that each shows.
        asked: the class that its target names.
    """

    images: Tensor
    genuine: Tensor
    targets: Tensor
    own: list[dict[str, str]]
    asked: list[dict[str, str]]


def attack(images: Tensor, objective: Objective, budget: float, steps: int = STEPS) -> Tensor:
    """Lowers an objective's loss within a budget: the fast gradient sign method, iterated and projected.

    Args:
        images: [B, 3, R, R] in [-1, 1].
        objective: images -> loss [B].
        budget: the most that any number may change by.
        steps: one is the method itself, of Goodfellow et al. 2015 (arXiv:1412.6572), section 4; more are those of
            Madry et al. 2018 (arXiv:1706.06083), section 2.1, without a random start.

    Raises:
        ValueError: for a negative budget, or fewer than one step.
    """
    if budget < 0 or steps < 1:
        raise ValueError(f"budget={budget}, steps={steps}: expected at least 0 and 1")
    lowest, highest = (images - budget).clamp(min=-1), (images + budget).clamp(max=1)
    size = budget if steps == 1 else STRIDE * budget / steps
    moved = images
    for _ in range(steps):
        leaf = moved.detach().requires_grad_()
        with torch.enable_grad():
            (gradient,) = torch.autograd.grad(objective(leaf).sum(), leaf)
        moved = (moved - size * gradient.sign()).clamp(lowest, highest)
    return moved


def random_signs(images: Tensor, budget: float, seed: int) -> Tensor:
    """Adds the budget or takes it off, by chance: what a perturbation does that knows of no score."""
    rng = torch.Generator().manual_seed(seed)
    signs = torch.randint(2, images.shape, generator=rng) * 2 - 1
    return (images + budget * signs).clamp(-1, 1)


def pictures(models: Models, num: int, seed: int) -> Pictures:
    """Renders pictures that nothing was trained on, each with a target of another class."""
    batch = render(single_objects, HELD_OUT, range(seed * num, (seed + 1) * num))
    rng, classes = np.random.default_rng((seed, 1)), single_objects.ATTRIBUTES["class"]
    asked = [str(rng.choice([name for name in classes if name != row["class"]])) for row in batch.attributes]
    rows = zip(batch.attributes, asked, strict=True)
    drawn = [single_objects.draw({**row, "class": name}, rng) for row, name in rows]
    return Pictures(
        batch.images,
        from_uint8(np.stack(drawn)),
        models.embedder.embed_text([text_of(name) for name in asked]),
        [{"class": row["class"]} for row in batch.attributes],
        [{"class": name} for name in asked],
    )


def cells(models: Models, scale: Scale) -> list[Cell]:
    """Returns the study's parts: each way with each budget, and the pictures as they are."""
    found = []
    for seed in range(scale.seed, scale.seed + scale.seeds):
        told = pictures(models, scale.pictures, seed)
        found.append(Cell("untouched", 0, seed, partial(_read, models, told, told.images, 0, seed)))
        found.append(Cell(GENUINE, 0, seed, partial(_read, models, told, told.genuine, 0, seed)))
        for budget in scale.budgets:
            for way in WAYS:
                found.append(Cell(way, budget, seed, partial(_attacked, models, told, way, budget, scale.views, seed)))
    return found


def _attacked(models: Models, told: Pictures, way: str, budget: int, views: int, seed: int) -> Mapping[int, Numbers]:
    augment, steps = WAYS[way]
    allowed = 2 * budget / 255
    if steps:
        objective, _, _ = objective_of(models, told.targets, views, seed, augment)
        images = attack(told.images, objective, allowed, steps)
    else:
        images = random_signs(told.images, allowed, seed)
    return _read(models, told, from_uint8(to_uint8(images)), budget, seed)


def _read(models: Models, told: Pictures, images: Tensor, budget: int, seed: int) -> Mapping[int, Numbers]:
    seen = {"own class": told.own, "target class": told.asked}
    return {budget: measured(models, images, told.targets, seen, seed)}
