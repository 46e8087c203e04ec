"""Samples: images of prompts, best first within each prompt; and the chunks they are chosen from."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

from PIL import Image
from torch import Tensor

from clip2latent.conditions import Conditions
from clip2latent.images import grid, to_pil
from clip2latent.sampling import Sampling


class Drawn(NamedTuple):
    """How samples were drawn: all that it takes, beside the models, to draw them again to the bit.

    Attributes:
        sampling: its guidance is a number.
        conditions: of the P prompts.
        candidates: drawn for each prompt; candidate n of prompt p was row p * candidates + n.
        batches: [P, N, 2], the first row and the number of rows of the batch that each image was drawn in.
    """

    sampling: Sampling
    conditions: Conditions
    candidates: int
    batches: Tensor


@dataclass(frozen=True)
class Samples:
    """Images of P prompts, best first within each prompt.

    Attributes:
        prompts: P texts.
        latents: [P, N, L, D].
        images: [P, N, 3, R, R] in [-1, 1].
        scores: what ranked them [P, N], descending in each row: cosines of CLIP, or of what else was asked for.
        candidates: [P, N], the number of each image among its prompt's candidates, which with the seed remakes it.
        drawn: how they were drawn; None where that is not known.
    """

    prompts: list[str]
    latents: Tensor
    images: Tensor
    scores: Tensor
    candidates: Tensor
    drawn: Drawn | None = None

    def best(self, k: int = 1) -> Samples:
        """Returns the k best of each prompt."""
        if not 1 <= k <= self.scores.shape[1]:
            raise ValueError(f"k={k}: expected 1 to {self.scores.shape[1]}, the images kept for each prompt")
        tensors = {name: getattr(self, name)[:, :k] for name in ("latents", "images", "scores", "candidates")}
        drawn = self.drawn and self.drawn._replace(batches=self.drawn.batches[:, :k])
        return replace(self, **tensors, drawn=drawn)

    def to_pil(self) -> list[list[Image.Image]]:
        """Returns P lists of N pictures."""
        return [to_pil(images) for images in self.images]

    def grid(self) -> Image.Image:
        """Returns one picture: a row for each prompt, with its scores."""
        return grid(self.images, self.prompts, self.scores)


class Chunk(NamedTuple):
    """Candidates made together: of which prompt [B] and which of its candidates [B] each row is, and what it became."""

    prompt: Tensor
    candidate: Tensor
    latents: Tensor
    images: Tensor
    embeddings: Tensor
