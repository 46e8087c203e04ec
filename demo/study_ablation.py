"""What each part of FuseDream is worth: one thing changed at a time, same prompts and seeds.

Liu et al. 2021 (arXiv:2112.01573), section 3.2 and appendix C: policies of AugCLIP, the basis's k, the search's M,
where the search begins, and the optimiser.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from functools import partial
from typing import Any, NamedTuple

from torch import Tensor

from clip2latent.augment import Augment
from clip2latent.bank import Banks
from clip2latent.refine import Refining, refine
from demo.evolution import Evolving, evolve
from demo.gaussian_classes import GaussianClasses
from demo.study_cells import Cell, Models, Numbers, Scale, measured, objective_of, unit_of

WHOLE = "all of it"
K = (1, 10)
ROUNDS = 5
"""Steps of Adam for one round of CMA-ES."""


class Variant(NamedTuple):
    """FuseDream, or FuseDream but for one thing.

    Attributes:
        augment: policies; None for plain CLIP.
        keep: k, the basis's size.
        searched: M, candidates; None for the study's usual number.
        gaussian: the candidates' class vectors are of no class.
        evolved: by CMA-ES, from the best candidate; else by Adam.
    """

    augment: Augment | None = Augment()
    keep: int = 5
    searched: int | None = None
    gaussian: bool = False
    evolved: bool = False


def rounds(steps: int) -> int:
    """Returns the rounds of CMA-ES that stand beside so many steps of Adam."""
    return max(1, steps // ROUNDS)


def variants(scale: Scale) -> dict[str, Variant]:
    """Returns all variants, by name; the first is the whole."""
    found = {WHOLE: Variant()}
    found |= {f"without {policy}": Variant(Augment(**{policy: False})) for policy in Augment.__annotations__}
    found["without any: CLIP"] = Variant(None)
    found["Gaussian class vectors"] = Variant(gaussian=True)
    found["CMA-ES for Adam"] = Variant(evolved=True)
    found |= {f"k = {keep}": Variant(keep=keep) for keep in K}
    return found | {f"M = {searched}": Variant(searched=searched) for searched in scale.searched[1:]}


def cells(models: Models, scale: Scale) -> list[Cell]:
    """Returns the study's parts: one for each variant."""
    seeds = range(scale.seed, scale.seed + scale.seeds)
    return [
        Cell(name, 0, seed, partial(_made, models, scale, variant, seed))
        for name, variant in variants(scale).items()
        for seed in seeds
    ]


def _made(models: Models, scale: Scale, variant: Variant, seed: int) -> Mapping[int, Numbers]:
    targets = models.embedder.embed_text([prompt.text for prompt in scale.prompts])
    generator: Any = GaussianClasses(models.generator) if variant.gaussian else models.generator
    searched = variant.searched or scale.searched[0]
    banks = Banks(generator, models.embedder, None if variant.gaussian else models.banks)
    basis = banks.of(seed).pick(targets, searched, variant.keep).latents
    began = time.process_time()
    latents = (_evolved if variant.evolved else _refined)(models, scale, variant, seed, targets, basis)
    seconds = (time.process_time() - began) / len(targets)
    seen = {"judge": [prompt.attributes for prompt in scale.prompts]}
    numbers = measured(models, banks.draw(latents), targets, seen, seed)
    return {0: numbers | {"seconds": [round(seconds, 3)] * len(targets)}}


def _refined(models: Models, scale: Scale, variant: Variant, seed: int, targets: Tensor, basis: Tensor) -> Tensor:
    objective, held_out, rng = objective_of(models, targets, scale.views, seed, variant.augment)
    refining = Refining(scale.steps, scale.lr, patience=None, seed=seed)
    unit = unit_of(models.generator)
    done = refine(models.generator, objective, basis, refining, held_out, unit=unit, rng=rng)
    if done.interrupted:
        raise KeyboardInterrupt
    return done.latents


def _evolved(models: Models, scale: Scale, variant: Variant, seed: int, targets: Tensor, basis: Tensor) -> Tensor:
    evolving = Evolving(rounds(scale.steps), seed=seed)
    many = targets.repeat_interleave(evolving.population, dim=0)
    objective, _, _ = objective_of(models, many, scale.views, seed, variant.augment)
    _, held_out, _ = objective_of(models, targets, scale.views, seed, variant.augment)
    return evolve(models.generator, objective, basis[:, 0], evolving, held_out, unit_of(models.generator)).latents
