"""What a sampler is worth: pure functions of features and predictions (letters: interfaces.py; F = feature width)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

ANY = "any"
"""A prompt's value for an attribute that is there but not said which: everything but `NONE` is right."""
NONE = "none"
ROWS = 4096
"""Rows of features that are taken to float64 at once."""


def clip_score(image_embeddings: Tensor, text_embeddings: Tensor) -> Tensor:
    """Cosine between every image and its own prompt.

    Args:
        image_embeddings: [P, N, E].
        text_embeddings: [P, E].

    Returns:
        Scores [P, N] in [-1, 1].
    """
    if image_embeddings.ndim != 3 or text_embeddings.shape != (image_embeddings.shape[0], image_embeddings.shape[2]):
        raise ValueError(
            "image_embeddings [P, N, E] and text_embeddings [P, E] do not fit:"
            f" {tuple(image_embeddings.shape)} and {tuple(text_embeddings.shape)}"
        )
    return functional.cosine_similarity(image_embeddings, text_embeddings[:, None], dim=-1)


def diversity(image_embeddings: Tensor) -> Tensor:
    """Mean of 1 - cosine over the pairs of one prompt's images: 0 when all are alike.

    Args:
        image_embeddings: [P, N, E], N at least 2.

    Returns:
        Distances [P] in [0, 2].
    """
    num = image_embeddings.shape[1]
    if num < 2:
        raise ValueError(f"diversity needs at least 2 images per prompt, got {num}")
    unit = functional.normalize(image_embeddings, dim=-1)
    cosines = unit @ unit.mT
    off_diagonal = cosines.sum((1, 2)) - cosines.diagonal(dim1=1, dim2=2).sum(1)
    return 1 - off_diagonal / (num * (num - 1))


def frechet_distance(a: Tensor, b: Tensor) -> float:
    """Frechet distance of the Gaussians fitted to two sets of features [n, F] and [m, F].

    |mu_a - mu_b|^2 + tr(A + B - 2 (A B)^(1/2)) (Heusel et al. 2017, eq. 6), in float64. The trace of (A B)^(1/2) is
    taken from the symmetric A^(1/2) B A^(1/2): the same eigenvalues, real where A or B is singular too.
    """
    (mean_a, cov_a), (mean_b, cov_b) = _moments("a", a), _moments("b", b)
    if mean_a.shape != mean_b.shape:
        raise ValueError(f"features differ in width: a has {mean_a.shape[0]}, b has {mean_b.shape[0]}")
    values, vectors = torch.linalg.eigh(cov_a)
    root_a = (vectors * values.clamp_min(0).sqrt()) @ vectors.mT
    trace_root = torch.linalg.eigvalsh(root_a @ cov_b @ root_a).clamp_min(0).sqrt().sum()
    distance = (mean_a - mean_b).square().sum() + cov_a.trace() + cov_b.trace() - 2 * trace_root
    return max(float(distance), 0.0)


def normalised_frechet(real: Tensor, fake: Tensor) -> float:
    """Frechet distance in units of the real features' total variance: 1 when `fake` is one average point.

    Args:
        real: [n, F].
        fake: [m, F].
    """
    return frechet_distance(real, fake) / float(_moments("real", real)[1].trace())


def total_variation(a: Tensor, b: Tensor, values: int) -> float:
    """Half the L1 distance of two histograms, in [0, 1]: the share of images that would have to change.

    Args:
        a: [n] integers in [0, values).
        b: [m] integers in [0, values).
        values: number of bins.
    """
    shares = [torch.bincount(x.flatten(), minlength=values).double() / x.numel() for x in (a, b)]
    return float((shares[0] - shares[1]).abs().sum() / 2)


class Accuracy(NamedTuple):
    """How often a judge saw what the prompts named.

    Attributes:
        mean: over all pairs of an image and an attribute its prompt names; None when no prompt names any.
        by_prompt: the same within each prompt; None for prompts that name nothing.
        by_attribute: the same within each attribute.
        count: number of pairs.
    """

    mean: float | None
    by_prompt: list[float | None]
    by_attribute: dict[str, float]
    count: int


def judge_accuracy(
    predictions: Mapping[str, Tensor], named: Sequence[Mapping[str, str]], values: Mapping[str, Sequence[str]]
) -> Accuracy:
    """Compares a judge's reading of images with the attributes their prompts name; what is not named does not count.

    Args:
        predictions: attribute -> [P, N] indices into its values.
        named: for each of P prompts, attribute -> value; the value "any" accepts every value but "none".
        values: attribute -> its possible values, as the judge orders them.

    Raises:
        ValueError: for an attribute or value that the judge does not know.
    """
    hits: dict[str, list[Tensor]] = {}
    by_prompt: list[float | None] = []
    for row, attributes in enumerate(named):
        own = []
        for attribute, value in attributes.items():
            wanted = accepted_values(attribute, value, values)
            own.append(torch.isin(predictions[attribute][row], wanted.to(predictions[attribute].device)).double())
            hits.setdefault(attribute, []).append(own[-1])
        by_prompt.append(float(torch.stack(own).mean()) if own else None)
    by_attribute = {name: float(torch.cat(found).mean()) for name, found in sorted(hits.items())}
    pairs = [hit for found in hits.values() for hit in found]
    mean = float(torch.cat(pairs).mean()) if pairs else None
    return Accuracy(mean, by_prompt, by_attribute, sum(hit.numel() for hit in pairs))


def accepted_values(attribute: str, value: str, values: Mapping[str, Sequence[str]]) -> Tensor:
    """Returns the indices of the values that satisfy a named one: itself, or for "any" all but "none".

    Raises:
        ValueError: for an attribute or value that is not among `values`.
    """
    if attribute not in values:
        raise ValueError(f"the judge does not know the attribute {attribute!r}; it knows {', '.join(sorted(values))}")
    known = list(values[attribute])
    if value == ANY:
        return torch.tensor([index for index, name in enumerate(known) if name != NONE])
    if value not in known:
        raise ValueError(f"the judge does not know {attribute} = {value!r}; it knows {', '.join(known)}")
    return torch.tensor([known.index(value)])


def mean_over_prompts(name: str, values: Sequence[float]) -> dict[str, float | None]:
    """Returns {name: mean, name_stderr: standard error of the mean}; None where there are too few values."""
    x = torch.tensor(values, dtype=torch.float64)
    error = float(x.std() / len(x) ** 0.5) if len(x) > 1 else None
    return {name: float(x.mean()) if len(x) else None, f"{name}_stderr": error}


def _moments(name: str, features: Tensor) -> tuple[Tensor, Tensor]:
    """Mean [F] and unbiased covariance [F, F] in float64."""
    if features.ndim != 2 or features.shape[0] < 2:
        raise ValueError(f"{name}: expected features [n, F] with n at least 2, got {tuple(features.shape)}")
    num, width = features.shape
    mean = sum((part.double().sum(0) for part in features.split(ROWS)), torch.zeros(width).to(features).double()) / num
    covariance = torch.zeros(width, width, dtype=torch.float64, device=features.device)
    for part in features.split(ROWS):
        centred = part.double() - mean
        covariance.addmm_(centred.mT, centred)
    return mean, covariance / (num - 1)
