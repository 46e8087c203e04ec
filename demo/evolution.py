"""CMA-ES in a generator's latents: an optimiser that draws images and asks for no gradient.

Source: Hansen 2016 (arXiv:1604.00772), by the package `cma`. FuseDream (arXiv:2112.01573, section 3.2) compares Adam
with BasinCMA, which is CMA-ES with steps of Adam within it; this is CMA-ES alone.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from clip2latent.interfaces import Generator, Objective


@dataclass(frozen=True)
class Evolving:
    """How latents are evolved.

    Attributes:
        rounds: in each of which every problem draws `population` images.
        population: at least 2.
        sigma: first deviation of what is drawn, in units of the latents.
        seed: any integer from 0.
    """

    rounds: int = 12
    population: int = 16
    sigma: float = 0.3
    seed: int = 0

    def __post_init__(self) -> None:
        if self.rounds < 1 or self.population < 2 or self.sigma <= 0 or self.seed < 0:
            raise ValueError(f"{self}: expected rounds >= 1, population >= 2, sigma > 0 and seed >= 0")


class Evolved(NamedTuple):
    """The best latents [P, L, D], and their held-out losses [P]."""

    latents: Tensor
    losses: Tensor


@torch.no_grad()
def evolve(
    generator: Generator,
    objective: Objective,
    start: Tensor,
    evolving: Evolving,
    held_out: Objective,
    unit: Tensor,
) -> Evolved:
    """Evolves P latents; of the start and the distributions' means after each round, the best one is kept.

    Args:
        generator: draws the images, which are clamped to [-1, 1].
        objective: images [P * population, 3, R, R], a problem's one after the other -> loss [P * population].
        start: [P, L, D].
        evolving: how.
        held_out: images [P, 3, R, R] -> loss [P], what the best is chosen by.
        unit: [L, D], what latents are measured in.

    Raises:
        ModuleNotFoundError: without the package `cma`.
    """
    cma = _package()
    # A seed of 0 would be the clock's.
    options = {"popsize": evolving.population, "verbose": -9, "maxiter": evolving.rounds}
    searches = [
        cma.CMAEvolutionStrategy(start[0].numel() * [0.0], evolving.sigma, options | {"seed": 1 + evolving.seed + row})
        for row in range(len(start))
    ]

    def latents(offsets: list[list[np.ndarray]]) -> Tensor:
        """offsets of each problem, in units, flat -> latents [P * n, L, D]"""
        moved = torch.from_numpy(np.array(offsets)).to(start).view(len(start), -1, *start.shape[1:])
        return generator.project((start[:, None] + unit * moved).flatten(0, 1))

    def losses(of: Objective, drawn: Tensor) -> Tensor:
        return of(generator.synthesize(drawn).clamp(-1, 1)).nan_to_num(nan=torch.inf)

    best, least = start, losses(held_out, generator.project(start))
    for _ in range(evolving.rounds):
        asked = [search.ask(evolving.population) for search in searches]
        found = losses(objective, latents(asked)).view(len(start), -1)
        for search, offsets, values in zip(searches, asked, found.tolist(), strict=True):
            search.tell(offsets, values)
        middle = latents([[search.mean] for search in searches])
        now = losses(held_out, middle)
        best, least = torch.where((now < least)[:, None, None], middle, best), torch.minimum(now, least)
    return Evolved(best, least)


def _package() -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it misses matplotlib, which it would plot with
            import cma
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError('CMA-ES needs the package `cma`: pip install "clip2latent[study]"') from error
    return cma
