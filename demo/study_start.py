"""FuseDream's second case study: an optimisation that starts from an image of another class, a dog to become a cat.

Liu et al. 2021 (arXiv:2112.01573), section 2.1 and figure 3: one latent, without a search, by CLIP and by AugCLIP.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from clip2latent.augment import Augment
from clip2latent.basis import groups_of, mixed
from clip2latent.latents import expand
from clip2latent.refine import Refining, refine
from clip2latent.refine_state import State
from demo.study_cells import Cell, Models, Numbers, Scale, measured, objective_of, text_of, unit_of

WAYS = {"CLIP": None, "AugCLIP": Augment()}
MARKS = 6
"""Looks on the way, beside the one at its start."""
FIRST = ("dog", "cat")


class Starts(NamedTuple):
    """Latents [B, L, D] of some classes, targets [B, E] of others, and the names of both."""

    latents: Tensor
    targets: Tensor
    own: list[dict[str, str]]
    asked: list[dict[str, str]]


def starts(models: Models, num: int, seed: int) -> Starts:
    """Draws images of random classes, each with a target of another class; the first is the paper's where it can be."""
    names, rng = list(models.generator.class_names), np.random.default_rng((seed, 2))
    pairs = [tuple(map(str, rng.choice(names, size=2, replace=False))) for _ in range(num)]
    if set(FIRST) <= set(names):
        pairs[0] = FIRST
    own, asked = zip(*pairs, strict=True)
    classes = torch.tensor([names.index(name) for name in own])
    return Starts(
        models.generator.sample_latents(num, torch.Generator().manual_seed(seed), classes),
        models.embedder.embed_text([text_of(name) for name in asked]),
        [{"class": name} for name in own],
        [{"class": name} for name in asked],
    )


def cells(models: Models, scale: Scale) -> list[Cell]:
    """Returns the study's parts: one for each objective."""
    seeds = range(scale.seed, scale.seed + scale.seeds)
    return [Cell(way, 0, seed, partial(_optimised, models, scale, way, seed)) for seed in seeds for way in WAYS]


def _optimised(models: Models, scale: Scale, way: str, seed: int) -> Mapping[int, Numbers]:
    told = starts(models, scale.starts, seed)
    objective, held_out, rng = objective_of(models, told.targets, scale.views, seed, WAYS[way])
    marks = {round(scale.steps * mark / MARKS) for mark in range(MARKS + 1)}
    groups = groups_of(told.latents[:, None], getattr(models.generator, "groups", None))
    seen = {"own class": told.own, "target class": told.asked}
    found: dict[int, Numbers] = {}

    def look(state: State) -> None:
        if int(state.step) in marks:
            with torch.no_grad():
                images = models.generator.synthesize(expand(mixed(state.basis), groups)).clamp(-1, 1)
            found[int(state.step)] = measured(models, images, told.targets, seen, seed)

    refining = Refining(scale.steps, scale.lr, patience=None, check=scale.steps, seed=seed)
    basis, unit = told.latents[:, None], unit_of(models.generator)
    done = refine(models.generator, objective, basis, refining, held_out, look, unit=unit, rng=rng)
    if done.interrupted:
        raise KeyboardInterrupt
    return found
