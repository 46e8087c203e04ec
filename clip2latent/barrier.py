"""Descent on two losses, one of which comes first: directions of equal signature, and Adam in their service.

Gradients are [P, F]: P independent problems, each with its F numbers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

Direction = Callable[[Tensor, Tensor, float], Tensor]
"""Gradients of the primary and of the secondary loss [P, F], a weight -> what to go against, [P, F]."""


def bilevel(primary: Tensor, secondary: Tensor, weight: float = 1.0) -> Tensor:
    """Minimises the secondary loss among the minima of the primary: s + max(weight - <p, s> / |p|^2, 0) p.

    The nearest direction to s that goes down the primary loss by weight |p|^2 at least: what of s would climb it is
    taken out. Source: arXiv:2112.01573, eq. 6; Gong, Liu and Liu, "Bi-objective trade-off with dynamic barrier
    gradient descent", NeurIPS 2021, with the barrier weight |p|^2.

    Args:
        primary: p, the gradient of the loss that comes first, [P, F].
        secondary: s, the gradient of the other, [P, F].
        weight: the barrier's height, from 0 (the primary loss must not grow).
    """
    square = primary.square().sum(-1, keepdim=True).clamp_min(torch.finfo(primary.dtype).tiny)
    agreement = (primary * secondary).sum(-1, keepdim=True) / square
    return secondary + (weight - agreement).clamp_min(0) * primary


def linear(primary: Tensor, secondary: Tensor, weight: float = 1.0) -> Tensor:
    """Minimises the sum of primary loss and weight times secondary: p + weight s (arXiv:2112.01573, eq. 7)."""
    return primary + weight * secondary


def inverted(primary: Tensor, secondary: Tensor, weight: float = 1.0) -> Tensor:
    """Minimises the primary loss among the minima of the secondary: `bilevel` the other way round (eq. 8)."""
    return bilevel(secondary, primary, weight)


class Way(NamedTuple):
    """A direction, and what it minimises first and then, as a function of both losses and the weight."""

    direction: Direction
    merits: Callable[[float, float, float], tuple[float, float]]


WAYS = {
    "bilevel": Way(bilevel, lambda primary, secondary, weight: (primary, secondary)),
    "linear": Way(linear, lambda primary, secondary, weight: (primary + weight * secondary, 0.0)),
    "inverted": Way(inverted, lambda primary, secondary, weight: (secondary, primary)),
}


class Moments(NamedTuple):
    """Running means of the two gradients and of the squared direction, each [P, F], and the steps taken, [P, 1]."""

    primary: Tensor
    secondary: Tensor
    square: Tensor
    steps: Tensor

    @classmethod
    def zeros_like(cls, numbers: Tensor) -> Moments:
        """Returns the moments before the first step, for numbers [P, F]."""
        return cls(*(torch.zeros_like(numbers) for _ in range(3)), torch.zeros_like(numbers[:, :1]))


class Step(NamedTuple):
    """What to add to the numbers, [P, F], and the moments after it."""

    change: Tensor
    moments: Moments


def descend(
    moments: Moments,
    primary: Tensor,
    secondary: Tensor,
    direction: Direction,
    weight: float = 1.0,
    lr: float = 5e-3,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
) -> Step:
    """Takes one step of Adam along a direction of two gradients.

    Adam divides each number's step by a scale d, and the product of two gradients no longer tells whether the step
    climbs. So the direction is taken where the step is: of both mean gradients over sqrt(d), and divided by sqrt(d)
    again. A `bilevel` step then goes down the primary loss, to first order and for its mean gradient m, by
    lr weight <m, m / d> at least; a `linear` step is Adam's own, of the weighted sum.

    Args:
        moments: of the steps before.
        primary: the gradient of the loss that comes first, [P, F].
        secondary: the gradient of the other, [P, F].
        direction: `bilevel`, `linear` or `inverted`.
        weight: the direction's.
        lr: Adam's, as are the following.
        betas: decay of the means of the gradients and of the square.
        eps: added to d.
    """
    slow, slower = betas
    steps = moments.steps + 1
    means = [
        mean.lerp(gradient, 1 - slow) for mean, gradient in ((moments.primary, primary), (moments.secondary, secondary))
    ]
    square = moments.square.lerp(direction(primary, secondary, weight).square(), 1 - slower)
    scale = ((square / (1 - slower**steps)).sqrt() + eps).sqrt()
    ahead = direction(*(mean / (1 - slow**steps) / scale for mean in means), weight) / scale
    return Step(-lr * ahead, Moments(*means, square, steps))
