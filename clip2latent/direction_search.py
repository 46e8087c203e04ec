"""A direction from two sets of prompts, through the prior: what is in the one's latents and not in the other's."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from types import MappingProxyType

import torch
from torch import Tensor

from clip2latent.directions import Direction
from clip2latent.prompts import check_prompts
from clip2latent.sampling import Sampling
from clip2latent.text2image import TextToImage

SHRINKAGE = 0.1


def mean_difference(positive: Tensor, negative: Tensor) -> Tensor:
    """Returns the way [F] from one set's mean to the other's.

    Args:
        positive: features [n, F].
        negative: features [m, F].
    """
    return positive.mean(0) - negative.mean(0)


def separator(positive: Tensor, negative: Tensor) -> Tensor:
    """Returns the normal [F] of the plane that best separates two sets, as long as the way across it.

    Fisher's discriminant (within-set covariance)^-1 (difference of means), the covariance shrunk by a tenth towards a
    multiple of the identity. Unlike the mean difference it leaves out what varies within the sets as much as between.

    Args:
        positive: features [n, F].
        negative: features [m, F].
    """
    difference = mean_difference(positive, negative)
    rest = torch.cat([positive - positive.mean(0), negative - negative.mean(0)])
    within = rest.mT @ rest / max(len(rest) - 2, 1)
    floor = within.diagonal().mean() * torch.eye(len(within), dtype=within.dtype)
    normal = torch.linalg.solve((1 - SHRINKAGE) * within + SHRINKAGE * floor, difference)
    return normal * (normal @ difference) / (normal @ normal)


METHODS: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = MappingProxyType(
    {"mean": mean_difference, "separator": separator}
)


@dataclass(frozen=True)
class Separation:
    """How well a direction tells two sets apart that it was not made from.

    Attributes:
        accuracy: the share on the right side of the middle between the sets' means, both sets counting alike: 0.5 is
            chance.
        effect: distance of the sets' means along the direction, in their own standard deviations.
        count: samples it was measured on.
    """

    accuracy: float
    effect: float
    count: int


def separation(direction: Tensor, middle: Tensor, positive: Tensor, negative: Tensor) -> Separation:
    """Measures how a direction [F] tells two sets of features [n, F] and [m, F] apart at a point between them [F]."""
    above, below = ((rows - middle) @ direction for rows in (positive, negative))
    accuracy = ((above > 0).double().mean() + (below < 0).double().mean()) / 2
    spread = ((above.var() + below.var()) / 2).sqrt()
    effect = (above.mean() - below.mean()) / spread.clamp_min(torch.finfo(spread.dtype).tiny)
    return Separation(round(float(accuracy), 4), round(float(effect), 3), len(above) + len(below))


def find_direction(
    pipeline: TextToImage,
    positive: Sequence[str],
    negative: Sequence[str],
    name: str = "direction",
    method: str = "mean",
    num: int = 32,
    sampling: Sampling | None = None,
    progress: Callable[[int], object] | None = None,
) -> Direction:
    """Finds the direction from what some prompts describe to what others describe.

    Prompts at the same place of both sets are drawn from the same noise, so prompts that differ in one word only leave
    only that word's doing. Strength 1 goes from the negative prompts' mean to the positive ones'. A quarter of the
    samples is held out, to measure how well the direction separates.

    Args:
        pipeline: draws the samples.
        positive: prompts with it, such as "a smiling man", "a smiling woman".
        negative: prompts without it, such as "a sad man", "a sad woman".
        name: for the description.
        method: "mean", the difference of means, or "separator", a linear separator's normal.
        num: samples of each prompt, at least 8.
        sampling: how to draw them.
        progress: called with the number of samples done since the last call.

    Raises:
        ValueError: for an empty prompt, an unknown method, and sets that are the same.
    """
    sides = [check_prompts(positive), check_prompts(negative)]
    check_search(*sides, method, num)
    sampling = sampling or Sampling()
    drawn = [_tokens(pipeline, prompts, num, sampling, progress) for prompts in sides]
    cut = num - num // 4
    with_it, without = (side[:, :cut].flatten(0, 1) for side in drawn)
    found = METHODS[method](with_it, without)
    middle = (with_it.mean(0) + without.mean(0)) / 2
    score = separation(found, middle, *(side[:, cut:].flatten(0, 1) for side in drawn))
    description = {"name": name, "positive": sides[0], "negative": sides[1], "method": method, "num": num}
    description |= {"seed": sampling.seed, "separation": asdict(score), "generator": pipeline.config.get("generator")}
    return Direction(_vector(pipeline, found), description)


def check_search(positive: Sequence[str], negative: Sequence[str], method: str, num: int) -> None:
    """Raises ValueError for what `find_direction` could not work with."""
    if method not in METHODS:
        raise ValueError(f"method={method!r}: expected one of {', '.join(METHODS)}")
    if num < 8:
        raise ValueError(f"num={num}: expected at least 8 samples of each prompt")
    if sorted(positive) == sorted(negative):
        raise ValueError(f"positive and negative prompts are the same: {list(positive)}")


def _tokens(
    pipeline: TextToImage,
    prompts: Sequence[str],
    num: int,
    sampling: Sampling,
    progress: Callable[[int], object] | None,
) -> Tensor:
    """Standardised latents [P, N, K * D] of N samples of each prompt, float64."""
    space = pipeline.space
    tokens = torch.empty(len(prompts), num, space.num_tokens * space.width, dtype=torch.float64)
    for part in pipeline.stream(pipeline.embed_text(prompts), num, sampling):
        encoded = space.encode(part.latents.to(space.mean.device)).flatten(1)
        tokens[part.prompt, part.candidate] = encoded.cpu().double()
        if progress is not None:
            progress(len(encoded))
    return tokens


def _vector(pipeline: TextToImage, found: Tensor) -> Tensor:
    """Maps a direction of standardised tokens [K * D] to one of latents: [1, D] where all rows are one token's."""
    space = pipeline.space
    tokens = (space.std.cpu() * found.view(space.num_tokens, space.width)).float()
    return tokens if space.num_tokens == 1 else space.expand(tokens[None].to(space.std.device))[0].cpu()
