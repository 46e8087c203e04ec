"""Compositions: what a foreground pasted onto a background is made of, how it is searched and what comes of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from clip2latent.barrier import WAYS
from clip2latent.basis import WEIGHTS
from clip2latent.composition_state import State
from clip2latent.halving import SEARCHES
from clip2latent.interfaces import Generator
from clip2latent.paste import EDGES, Placement, make_pasting, paste
from clip2latent.sampling import check_at_least


@dataclass(frozen=True)
class Composing:
    """How a composition is searched.

    Attributes:
        steps: that the best size and place gets.
        lr: Adam's learning rate, in units of the latents.
        way: which loss comes first: "bilevel" (the score, eq. 6), "linear" (their sum, eq. 7), "inverted" (eq. 8).
        weight: of eq. 7's sum, or the height of the barrier.
        search: "halving", or "all" to give every size and place all steps, as the paper does.
        weights: of a basis: "shared" or "each", see `start_basis`.
        edges: the foreground's, one of `paste.EDGES`; the paper's are hard.
        tolerance: how much of the loss that comes first the best image may give up for the other.
        check: steps from one look at the held-out loss to the next.
        seed: of the objective's views; any integer from 0.
        chunk: sizes and places optimised at once.
    """

    steps: int = 200
    lr: float = 5e-3
    way: str = "bilevel"
    weight: float = 1.0
    search: str = "halving"
    weights: str = "shared"
    edges: str = "hard"
    tolerance: float = 0.005
    check: int = 10
    seed: int = 0
    chunk: int = 9

    def __post_init__(self) -> None:
        check_at_least(1, check=self.check, chunk=self.chunk)
        check_at_least(0, steps=self.steps, lr=self.lr, weight=self.weight, tolerance=self.tolerance, seed=self.seed)
        choices = {"way": tuple(WAYS), "search": tuple(SEARCHES), "weights": WEIGHTS, "edges": EDGES}
        for name, known in choices.items():
            if getattr(self, name) not in known:
                raise ValueError(f"{name}={getattr(self, name)!r}: expected one of {', '.join(known)}")


class Part(NamedTuple):
    """One of the two images to be: its generator, its basis [M, L, D] and its unit [L, D].

    The unit is what the learning rate is measured in, such as the latents' deviation; None for 1.
    """

    generator: Generator
    basis: Tensor
    unit: Tensor | None = None


class Fused(NamedTuple):
    """P images [P, 3, R, R] in [-1, 1], and what they were fused of: foregrounds [P, 3, r, r] and backgrounds."""

    images: Tensor
    foregrounds: Tensor
    backgrounds: Tensor


class Look(NamedTuple):
    """A composition as the held-out objective saw it: losses, the step it was seen at, and latents [L, D] of both."""

    primary: float
    secondary: float
    step: int
    foreground: Tensor
    background: Tensor


class Candidate(NamedTuple):
    """A size and place with the best composition found for it and the steps that it got."""

    placement: Placement
    best: Look
    steps: int


class Composed(NamedTuple):
    """What a search came to.

    Attributes:
        candidates: those that got furthest first, the better first among them; the composition is the first.
        interrupted: whether the user ended the search.
        broken: the placements whose losses ceased to be numbers; what was best before is kept.
        state: where it ended, from which `compose` goes on.
    """

    candidates: list[Candidate]
    interrupted: bool
    broken: list[Placement]
    state: State


def fuse(
    foreground: Generator,
    background: Generator,
    foreground_latents: Tensor,
    background_latents: Tensor,
    placements: Sequence[Placement],
    edges: str = "hard",
) -> Fused:
    """Draws P compositions; differentiable.

    Args:
        foreground: a generator.
        background: a generator, or the same.
        foreground_latents: [P, L, D].
        background_latents: [P, L, D] of the other.
        placements: P.
        edges: one of `paste.EDGES`.
    """
    pasting = make_pasting(placements, foreground.resolution, background.resolution, edges)
    front, back = foreground.synthesize(foreground_latents), background.synthesize(background_latents)
    front, back = front.clamp(-1, 1), back.clamp(-1, 1)
    return Fused(paste(front, back, pasting), front, back)


@torch.no_grad()
def draw_candidates(
    foreground: Part, background: Part, candidates: Sequence[Candidate], edges: str = "hard", chunk: int = 9
) -> Fused:
    """Draws the best of each candidate, on the CPU.

    Args:
        foreground: what is pasted.
        background: what it is pasted onto.
        candidates: P.
        edges: one of `paste.EDGES`.
        chunk: compositions drawn at once.
    """
    drawn = []
    for at in range(0, len(candidates), chunk):
        some = candidates[at : at + chunk]
        latents = (
            torch.stack([each.best.foreground for each in some]),
            torch.stack([each.best.background for each in some]),
        )
        places = [each.placement for each in some]
        drawn.append(fuse(foreground.generator, background.generator, *latents, places, edges))
    return Fused(*(torch.cat(images).cpu() for images in zip(*drawn, strict=True)))
