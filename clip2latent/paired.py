"""Measures of images on prompts with standard errors, alone and paired (P prompts, N images each, F numbers of a sum).

Every measure is a function of sums over prompts, so its standard error is the jackknife's, leaving out one prompt at a
time (Efron and Tibshirani 1993, chapter 11): for a mean over prompts that is the usual deviation / sqrt(P). Two sets of
images of the same prompts are compared on those prompts, so that what makes a prompt easy or hard cancels out.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from clip2latent.metrics import clip_score, diversity

MEASURES = ("clip_score", "judge_accuracy", "diversity", "latent_std_within", "latent_std_overall")


class Found(NamedTuple):
    """What is known of the images of P prompts, N each, in the order of their candidate numbers.

    Attributes:
        embeddings: [P, N, E].
        tokens: standardised [P, N, F], without channels that do not vary in the data.
        hits: how many of its prompt's attributes a judge sees in each image [P, N].
        named: how many attributes each prompt names [P]; 0 for all without a judge.
    """

    embeddings: Tensor
    tokens: Tensor
    hits: Tensor
    named: Tensor

    def first(self, num: int) -> Found:
        """Returns the first `num` images of each prompt."""
        return Found(self.embeddings[:, :num], self.tokens[:, :num], self.hits[:, :num], self.named)


class Measure(NamedTuple):
    """A number as a function of sums over prompts: each prompt's share [P, F], and [..., F] -> [...]."""

    shares: Tensor
    of: Callable[[Tensor], Tensor]

    def value(self) -> Tensor:
        """Returns the number, []."""
        return self.of(self.shares.sum(0))

    def without(self) -> Tensor:
        """Returns the number without each prompt in turn [P]."""
        return self.of(self.shares.sum(0) - self.shares)


class Estimate(NamedTuple):
    """A number and its standard error over the prompts; None for what there is not."""

    value: float | None
    stderr: float | None


class Difference(NamedTuple):
    """How far a measure is from a reference's: absolute, and relative to the reference."""

    absolute: Estimate
    relative: Estimate


def measures(found: Found, text: Tensor) -> dict[str, Measure]:
    """Returns the measures that there are, by name, those of `MEASURES`.

    - clip_score: mean cosine of images and their prompt.
    - judge_accuracy: share of the named attributes that the judge sees.
    - diversity: mean of 1 - cosine over the pairs of a prompt's images; needs N >= 2.
    - latent_std_within: mean over channels of the deviation within a prompt, whose square is the mean over prompts of
      the unbiased variance, so that it hardly depends on N; needs N >= 2.
    - latent_std_overall: mean over channels of the deviation over all images of all prompts; the data's is 1.

    Args:
        found: the images.
        text: embeddings of the prompts [P, E].
    """
    tokens, num = found.tokens.double(), found.tokens.shape[1]
    ones = tokens.new_ones(len(tokens), 1)
    made = {"clip_score": _mean(clip_score(found.embeddings.double(), text.double()).mean(1))}
    if found.named.any():
        shares = torch.stack([found.hits.double().mean(1), found.named.double()], dim=1)
        made["judge_accuracy"] = Measure(shares, lambda sums: sums[..., 0] / sums[..., 1])
    if num > 1:
        made["diversity"] = _mean(diversity(found.embeddings.double()))
        made["latent_std_within"] = Measure(
            torch.cat([tokens.var(1), ones], dim=1),
            lambda sums: (sums[..., :-1] / sums[..., -1:]).clamp(min=0).sqrt().mean(-1),
        )
    moments = torch.cat([tokens.mean(1), tokens.square().mean(1), ones], dim=1)
    made["latent_std_overall"] = Measure(moments, _deviation)
    return made


def estimate(measure: Measure | None) -> Estimate:
    """Returns a measure's number with its standard error; without either for None."""
    if measure is None:
        return Estimate(None, None)
    return Estimate(float(measure.value()), _jackknife(measure.without()))


def compare(measure: Measure | None, reference: Measure | None) -> Difference | None:
    """Returns how far a measure is from the same measure of a reference, on the same prompts in the same order.

    None where either is missing.

    Raises:
        ValueError: for different numbers of prompts.
    """
    if measure is None or reference is None:
        return None
    if len(measure.shares) != len(reference.shares):
        raise ValueError(
            f"measure and reference: expected the same prompts, got {len(measure.shares)} and {len(reference.shares)}"
        )
    ours, theirs, our_rest, their_rest = measure.value(), reference.value(), measure.without(), reference.without()
    relative = Estimate(float(ours / theirs - 1), _jackknife(our_rest / their_rest - 1)) if theirs else None
    absolute = Estimate(float(ours - theirs), _jackknife(our_rest - their_rest))
    return Difference(absolute, relative or Estimate(None, None))


def _jackknife(without: Tensor) -> float | None:
    """The standard error of a number whose values without each of P prompts are given [P]."""
    count = len(without)
    error = float(((count - 1) / count * (without - without.mean()).square().sum()).sqrt())
    return error if count > 1 and math.isfinite(error) else None


def _mean(values: Tensor) -> Measure:
    """The mean over prompts of values [P]."""
    return Measure(torch.stack([values, torch.ones_like(values)], dim=1), lambda sums: sums[..., 0] / sums[..., 1])


def _deviation(sums: Tensor) -> Tensor:
    """Mean over channels of the deviation, from sums of first moments, of second ones, and the count [..., 2 F + 1]."""
    first, second = (sums[..., :-1] / sums[..., -1:]).chunk(2, dim=-1)
    return (second - first.square()).clamp(min=0).sqrt().mean(-1)
