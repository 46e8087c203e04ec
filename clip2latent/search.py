"""Search over generator latents: keep the best of many, in the memory of a few."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from clip2latent.interfaces import Generator, Objective


class TopK:
    """The `keep` best-scored rows of a stream, best first; of equal scores the earlier one stays.

    Attributes:
        scores: [n], n = min(keep, rows seen), descending; not a number ranks last.
        items: the tensors [n, ...] that came with them.
    """

    def __init__(self, keep: int) -> None:
        if keep < 1:
            raise ValueError(f"keep={keep}: expected at least 1")
        self.keep = keep
        self.scores = torch.empty(0)
        self.items: tuple[Tensor, ...] = ()

    def update(self, scores: Tensor, *items: Tensor) -> None:
        """Takes in rows: scores [B] and any number of tensors [B, ...], the same ones at every call."""
        scores = scores.nan_to_num(nan=-torch.inf, posinf=torch.inf, neginf=-torch.inf)
        if self.items or self.scores.numel():
            scores = torch.cat([self.scores, scores])
            items = tuple(torch.cat(pair) for pair in zip(self.items, items, strict=True))
        order = scores.sort(descending=True, stable=True).indices[: self.keep]
        self.scores, self.items = scores[order], tuple(item[order] for item in items)


class Found(NamedTuple):
    """What a search kept, best first: latents [keep, L, D] and their losses [keep]."""

    latents: Tensor
    losses: Tensor


@torch.no_grad()
def best_of(
    propose: Callable[[int], Tensor],
    generator: Generator,
    objective: Objective,
    num: int,
    keep: int,
    chunk: int = 64,
) -> Found:
    """Draws `num` latents and keeps the `keep` of lowest loss; memory is that of one chunk and the kept latents.

    Args:
        propose: number -> that many latents [number, L, D].
        generator: draws their images.
        objective: images [B, 3, R, R] -> loss [B].
        num: latents to try.
        keep: latents to return, at most `num`.
        chunk: latents drawn at once.
    """
    if not 1 <= keep <= num:
        raise ValueError(f"keep={keep}: expected 1 to num={num}")
    if chunk < 1:
        raise ValueError(f"chunk={chunk}: expected at least 1")
    best = TopK(keep)
    for start in range(0, num, chunk):
        latents = propose(min(chunk, num - start))
        best.update(-objective(generator.synthesize(latents)), latents)
    return Found(best.items[0], -best.scores)
