"""What the robustness studies have in common: models, cells that are made once, and how images are measured."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from clip2latent.augment import Augment
from clip2latent.interfaces import ClassConditional, Embedder, Objective
from clip2latent.judge import AttributeJudge
from clip2latent.metrics import judge_accuracy
from clip2latent.objectives import augclip_objective, clip_objective
from clip2latent.outputs import slug, write_json
from clip2latent.priorless import sampled_space
from clip2latent.prompts import Prompt
from clip2latent.refine import HELD_OUT, entropy

UNSEEN, UNSEEN_STREAM = 32, 2**40
"""Views that images are measured by, which nothing is optimised or chosen by, and the stream they are drawn from."""
Numbers = dict[str, list[float]]
"""What was measured -> a number of each problem."""


class Models(NamedTuple):
    """The models of a study, and the folder where a search's candidates are kept; None keeps none."""

    generator: ClassConditional
    embedder: Embedder
    judge: AttributeJudge
    banks: Path | None = None


class Scale(NamedTuple):
    """How much is done.

    Attributes:
        pictures: that are attacked.
        budgets: of the attack, in levels of 255.
        starts: images that an optimisation starts from.
        prompts: of the ablation, with attributes.
        searched: candidates of the ablation's search, its usual number and the others.
        steps: of an optimiser.
        views: of an image at each step.
        lr: learning rate, in deviations of the latents.
        seeds: how often everything is done.
        seed: the first.
    """

    pictures: int
    budgets: tuple[int, ...]
    starts: int
    prompts: tuple[Prompt, ...]
    searched: tuple[int, ...]
    steps: int
    views: int
    lr: float
    seeds: int
    seed: int

    def settings(self) -> dict[str, Any]:
        """Returns the same as plain types, as json gives them back."""
        return json.loads(json.dumps(self._asdict() | {"prompts": [prompt.text for prompt in self.prompts]}))


class Cell(NamedTuple):
    """A part of a study that is made as a whole.

    Attributes:
        way: the way of doing it that it belongs to.
        at: where along the way, such as an attack's budget; 0 where there is but one.
        seed: of everything random.
        make: makes its numbers: by place along the way, for ways that pass several.
    """

    way: str
    at: int
    seed: int
    make: Callable[[], Mapping[int, Numbers]]


def make_missing(cells: Sequence[Cell], work: Path) -> None:
    """Makes the cells of a study that its folder does not hold, each in a file of its own; see `made`."""
    work.mkdir(parents=True, exist_ok=True)
    for order, cell in enumerate(cells):
        path = work / f"{slug(cell.way)}-{cell.at}-{cell.seed}.json"
        if path.is_file():
            continue
        began = time.process_time()
        points = [{"at": at, "numbers": numbers} for at, numbers in cell.make().items()]
        seconds = round(time.process_time() - began, 2)
        record = {"order": order, "way": cell.way, "seed": cell.seed, "seconds": seconds, "points": points}
        partial = path.with_suffix(".partial")
        write_json(partial, record)
        os.replace(partial, path)
        print(f"{work.name} {order + 1}/{len(cells)}: {cell.way}, {cell.at}, {seconds:.0f} s", flush=True)


def made(work: Path) -> list[dict[str, Any]]:
    """Returns the records of the cells that a study's folder holds, in the study's order.

    Returns:
        {"order", "way", "seed", "seconds", "points": [{"at", "numbers"}]} of each.
    """
    records = [json.loads(path.read_text(encoding="utf-8")) for path in work.glob("*.json")]
    return sorted(records, key=lambda record: record["order"])


def objective_of(
    models: Models, targets: Tensor, views: int, seed: int, augment: Augment | None = None
) -> tuple[Objective, Objective, torch.Generator]:
    """Returns an objective, the same over held-out views, and the stream it draws its views from.

    Args:
        models: the embedder's.
        targets: [B, E].
        views: of an image.
        seed: of the views.
        augment: policies; None for plain CLIP, twice.
    """
    rng = torch.Generator().manual_seed(seed)
    if augment is None:
        plain = clip_objective(models.embedder, targets)
        return plain, plain, rng
    held = torch.Generator().manual_seed(entropy(seed, HELD_OUT))
    return (
        augclip_objective(models.embedder, targets, augment, views, rng=rng),
        augclip_objective(models.embedder, targets, augment, views, rng=held, fixed=True),
        rng,
    )


@torch.no_grad()
def measured(
    models: Models, images: Tensor, targets: Tensor, seen: Mapping[str, Sequence[Mapping[str, str]]], seed: int
) -> Numbers:
    """Returns CLIP score, AugCLIP over unseen views, and the share of attributes that the judge sees.

    Args:
        models: embedder and judge.
        images: [B, 3, R, R] in [-1, 1].
        targets: [B, E].
        seen: name -> for each image, the attributes that the judge looks for.
        seed: of the views.
    """
    rng = torch.Generator().manual_seed(UNSEEN_STREAM + seed)
    losses = {
        "clip": clip_objective(models.embedder, targets)(images),
        "augclip": augclip_objective(models.embedder, targets, views=UNSEEN, rng=rng, fixed=True)(images),
    }
    numbers = {name: [round(1 - value, 5) for value in loss.tolist()] for name, loss in losses.items()}
    read = {name: values[:, None] for name, values in models.judge.classify(images).items()}
    for name, attributes in seen.items():
        shares = judge_accuracy(read, attributes, models.judge.attributes).by_prompt
        numbers[name] = [round(float(share or 0), 5) for share in shares]
    return numbers


def unit_of(generator: ClassConditional) -> Tensor:
    """Returns the deviation of a generator's latents [L, D]; 1 where they do not vary."""
    space = sampled_space(generator)
    return space.expand(torch.where(space.std > 0, space.std, torch.ones_like(space.std))[None])[0]


def text_of(name: str) -> str:
    """Returns a prompt that names a class and nothing else."""
    return f"a picture of {'an' if name[0] in 'aeiou' else 'a'} {name}"
