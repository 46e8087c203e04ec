"""Images against texts, and the best of several images: pure functions of embeddings and scores (see interfaces.py)."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

ROWS = 256
"""Images whose candidate texts are held at once."""


class RPrecision(NamedTuple):
    """How often an image's own text is the nearest of the candidates.

    Attributes:
        mean: over the repeats.
        deviation: between the repeats (n - 1); 0 for one repeat.
        repeats: the share found in each.
        distractors: other texts among the candidates.
    """

    mean: float
    deviation: float
    repeats: tuple[float, ...]
    distractors: int


def r_precision(
    image_embeddings: Tensor,
    text_embeddings: Tensor,
    own: Tensor,
    distractors: int = 99,
    repeats: int = 3,
    seed: int = 0,
) -> RPrecision:
    """Finds each image's text among random others by cosine (FuseDream, arXiv:2112.01573, section 5.1).

    Texts as near as the own one share the hit: the chance level is 1 / (distractors + 1) for any embeddings.

    Args:
        image_embeddings: [B, E].
        text_embeddings: [C, E], of C texts that mean different things.
        own: [B], the index of each image's own text.
        distractors: other texts, drawn anew for each image and repeat; at most C - 1.
        repeats: how often they are drawn.
        seed: of the drawing.
    """
    if not 1 <= distractors < len(text_embeddings):
        raise ValueError(
            f"distractors={distractors}: expected 1 to {len(text_embeddings) - 1}, one less than the texts there are"
        )
    if repeats < 1:
        raise ValueError(f"repeats={repeats}: expected at least 1")
    images, texts = (F.normalize(x.float(), dim=-1) for x in (image_embeddings, text_embeddings))
    shares = []
    for repeat in range(repeats):
        rng, found = np.random.default_rng([seed, repeat]), 0.0
        for start in range(0, len(images), ROWS):
            mine = own[start : start + ROWS].to(texts.device)
            drawn = [rng.choice(len(texts) - 1, distractors, replace=False, shuffle=False) for _ in range(len(mine))]
            others = torch.from_numpy(np.stack(drawn)).to(texts.device)
            others = others + (others >= mine[:, None])  # all texts but the own one
            candidates = texts[torch.cat([mine[:, None], others], dim=1)]  # [b, 1 + distractors, E]
            cosines = torch.einsum("be,bce->bc", images[start : start + ROWS], candidates).round(decimals=6)
            first = cosines[:, :1] >= cosines[:, 1:].amax(1, keepdim=True)
            found += float((first[:, 0] / (cosines == cosines[:, :1]).sum(1)).sum())
        shares.append(found / len(images))
    x = torch.tensor(shares, dtype=torch.float64)
    return RPrecision(float(x.mean()), float(x.std()) if repeats > 1 else 0.0, tuple(shares), distractors)


def expected_best(scores: Tensor, num: int) -> Tensor:
    """Expected best score of `num` images drawn from each prompt's N without replacement.

    The i-th lowest of N is the best of `num` with probability C(i - 1, num - 1) / C(N, num): num = 1 is the mean,
    num = N the maximum, and every subset in between counts.

    Args:
        scores: [P, N].
        num: 1 to N.

    Returns:
        [P], in float64.
    """
    total = scores.shape[-1]
    if not 1 <= num <= total:
        raise ValueError(f"num={num}: expected 1 to {total}, the images of a prompt")
    weights = [math.comb(rank, num - 1) / math.comb(total, num) for rank in range(total)]
    return scores.double().sort(dim=-1).values @ torch.tensor(weights, dtype=torch.float64, device=scores.device)
