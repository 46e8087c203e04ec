"""What a set of images is worth as a whole: scores of its predictions, and distances to a set of real images.

Pure functions of features (F = feature width) and of class probabilities (C classes).
"""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

ROWS, COLUMNS = 256, 4096
"""Rows of a matrix of distances that are held at once, and columns of it that are computed at once."""


class Estimate(NamedTuple):
    """A number found several times: mean, standard deviation, and of what it was taken.

    Attributes:
        mean: over the parts.
        deviation: between the parts (their squared deviations' mean, rooted); 0 for one part.
        parts: how many parts.
        size: images in a part, or in the smallest one.
    """

    mean: float
    deviation: float
    parts: int
    size: int


def inception_score(probabilities: Tensor, splits: int = 10, seed: int = 0) -> Estimate:
    """exp E_x KL(p(y|x) || p(y)): sure of each image, unsure of the set (Salimans et al. 2016, section 4).

    Args:
        probabilities: [n, C], each row summing to 1.
        splits: parts, in a random order, whose scores are averaged; at most n.
        seed: of the order.

    Returns:
        The score, 1 (every image alike) to C (every class as often and for sure).
    """
    if probabilities.ndim != 2 or not 1 <= splits <= len(probabilities):
        raise ValueError(
            f"probabilities must be [n, C] with n at least splits={splits}, got {list(probabilities.shape)}"
        )
    if not torch.allclose(probabilities.double().sum(1).cpu(), torch.ones((), dtype=torch.float64), atol=1e-3):
        raise ValueError("probabilities: expected rows that sum to 1: give softmax(logits), not logits")
    order = torch.randperm(len(probabilities), generator=torch.Generator().manual_seed(seed))
    bounds = [len(probabilities) * part // splits for part in range(splits + 1)]
    scores = []
    for start, stop in pairwise(bounds):
        p = probabilities[order[start:stop].to(probabilities.device)].double()
        marginal = p.mean(0)
        kl = torch.special.xlogy(p, p).sum(1) - torch.special.xlogy(p, marginal).sum(1)
        scores.append(float(kl.mean().exp()))
    return _estimate(scores, len(probabilities) // splits)


def kernel_distance(a: Tensor, b: Tensor, subsets: int = 100, size: int = 1000, seed: int = 0) -> Estimate:
    """Squared MMD of two sets of features by the kernel (x . y / F + 1)^3, unbiased: KID (Binkowski et al. 2018).

    Around 0, and as often below it, for two samples of one distribution.

    Args:
        a: [n, F].
        b: [m, F].
        subsets: how many random subsets of both sets it is averaged over.
        size: rows of a subset; n or m where that is fewer.
        seed: of the subsets.
    """
    _check_pair(a, b, 2)
    size = min(size, len(a), len(b))
    rng = torch.Generator().manual_seed(seed)
    distances = []
    for _ in range(subsets):
        x = a[torch.randperm(len(a), generator=rng)[:size].to(a.device)].double()
        y = b[torch.randperm(len(b), generator=rng)[:size].to(b.device)].double()
        within = sum(float(kernel.sum() - kernel.diagonal().sum()) for kernel in (_cubic(x, x), _cubic(y, y)))
        distances.append(within / (size * (size - 1)) - 2 * float(_cubic(x, y).mean()))
    return _estimate(distances, size)


class Manifold(NamedTuple):
    """How two sets of images cover each other; all but density in [0, 1].

    Attributes:
        precision: share of the fake images near a real one (Kynkaanniemi et al. 2019, eq. 2).
        recall: share of the real images near a fake one.
        density: real balls around a fake image, over the number expected (Naeem et al. 2020, eq. 4); 1 for the same.
        coverage: share of the real balls that hold a fake image (eq. 5).
        neighbours: k.
    """

    precision: float
    recall: float
    density: float
    coverage: float
    neighbours: int


def manifold(real: Tensor, fake: Tensor, neighbours: int = 3) -> Manifold:
    """Compares two sets by balls around each image that reach its k-th nearest neighbour in its own set.

    Args:
        real: features [n, F].
        fake: features [m, F].
        neighbours: k, less than n and m: 3 in the paper of precision and recall, 5 in that of density and coverage.
    """
    _check_pair(real, fake, neighbours + 1)
    radii_real, radii_fake = _radii(real, neighbours), _radii(fake, neighbours)
    near_real, near_fake, covered, balls = 0, 0, 0, 0
    for start in range(0, len(fake), ROWS):
        inside = _squared(fake[start : start + ROWS], real) <= radii_real
        near_real += int(inside.any(1).sum())
        balls += int(inside.sum())
    for start in range(0, len(real), ROWS):
        squared = _squared(real[start : start + ROWS], fake)
        near_fake += int((squared <= radii_fake).any(1).sum())
        covered += int((squared.amin(1) <= radii_real[start : start + ROWS]).sum())
    return Manifold(
        near_real / len(fake), near_fake / len(real), balls / (neighbours * len(fake)), covered / len(real), neighbours
    )


def _radii(x: Tensor, neighbours: int) -> Tensor:
    """Squared distances [n] to the k-th nearest other row."""
    parts = []
    for start in range(0, len(x), ROWS):
        squared = _squared(x[start : start + ROWS], x)
        rows = torch.arange(len(squared), device=x.device)
        squared[rows, rows + start] = 0  # a row is nearest to itself, whatever rounding says
        parts.append(squared.kthvalue(neighbours + 1, dim=1).values)
    return torch.cat(parts)


def _squared(x: Tensor, y: Tensor) -> Tensor:
    """Squared distances [n, m] in float64, of which few rows of y at a time are copied."""
    x = x.double()
    norms = x.square().sum(1)[:, None]
    blocks = (part.double() for part in y.split(COLUMNS))
    return torch.cat([(norms + b.square().sum(1) - 2 * x @ b.mT).clamp_min_(0) for b in blocks], dim=1)


def _cubic(x: Tensor, y: Tensor) -> Tensor:
    return (x @ y.mT / x.shape[1] + 1) ** 3


def _check_pair(a: Tensor, b: Tensor, least: int) -> None:
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1] or min(len(a), len(b)) < least:
        raise ValueError(
            f"expected features [n, F] and [m, F] with n and m at least {least}, got {list(a.shape)} and"
            f" {list(b.shape)}"
        )


def _estimate(values: list[float], size: int) -> Estimate:
    found = torch.tensor(values, dtype=torch.float64)
    return Estimate(float(found.mean()), float(found.std(correction=0)), len(values), size)
