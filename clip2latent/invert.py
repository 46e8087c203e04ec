"""Inversion: the latents of pictures that the generator did not draw, found by descending from ones that come near.

Source: the projection of Karras et al. 2020 (StyleGAN2, arXiv:1912.04958, section 5), which descends in w from the mean
latent by LPIPS alone, and w+, a latent for each layer, of Abdal et al. 2019 (Image2StyleGAN, arXiv:1904.03189).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from clip2latent.basis import groups_of
from clip2latent.interfaces import Embedder, Generator
from clip2latent.perceptual import Features
from clip2latent.refine import Refining, refine
from clip2latent.refine_state import State

SPACES = (None, "w+")


class Likeness(NamedTuple):
    """How far images are from pictures, each [B], from 0.

    Attributes:
        pixels: mean squared difference of numbers in [-1, 1].
        perceptual: of features, see perceptual.py.
        clip: 1 - cosine of the embeddings.
    """

    pixels: Tensor
    perceptual: Tensor
    clip: Tensor


Comparison = Callable[[Tensor], Callable[[Tensor], Likeness]]
"""Pictures [B, 3, R, R] in [-1, 1], or [1, 3, R, R] -> images [B, 3, R, R] -> likeness, which is differentiable."""


@dataclass(frozen=True)
class Inverting:
    """How pictures are inverted.

    Attributes:
        pixels: weight of each distance in the loss, as the following.
        perceptual: see `Likeness`.
        clip: see `Likeness`.
        space: "w+" frees a StyleGAN's layers of one another; None leaves latents in the space they start in.
        refining: the descent, in standard deviations of the generator's own latents.
    """

    pixels: float = 1.0
    perceptual: float = 1.0
    clip: float = 0.5
    space: str | None = None
    refining: Refining = field(default_factory=lambda: Refining(steps=100, lr=0.1))

    def __post_init__(self) -> None:
        weights = {name: getattr(self, name) for name in Likeness._fields}
        if not all(0 <= weight < float("inf") for weight in weights.values()) or not any(weights.values()):
            raise ValueError(f"{weights}: expected weights from 0, one of them above it")
        if self.space not in SPACES:
            raise ValueError(f"space={self.space!r}: expected w+, or none for the latents' own")

    def loss(self, likeness: Likeness) -> Tensor:
        """Returns the weighted sum [B] of the distances."""
        return sum(getattr(self, name) * distance for name, distance in likeness._asdict().items())


class Inverted(NamedTuple):
    """What P pictures came to.

    Attributes:
        latents: [P, L, D], valid ones.
        images: theirs, [P, 3, R, R] in [-1, 1].
        start: the images that the descent began with, likewise.
        before: how far those were from the pictures.
        after: how far the images are.
        found: the step [P] that each latent was found at.
        stopped: [P], why a picture's descent was stopped, see `refine_state.REASONS`.
        interrupted: whether the user ended the descent before its last step.
    """

    latents: Tensor
    images: Tensor
    start: Tensor
    before: Likeness
    after: Likeness
    found: Tensor
    stopped: Tensor
    interrupted: bool


def compare_by(embedder: Embedder, perceptual: Features) -> Comparison:
    """Returns what compares images with pictures: by pixels, a perceptual distance, and an embedder.

    The pictures are seen once, however often images are compared with them.
    """

    def bound(pictures: Tensor) -> Callable[[Tensor], Likeness]:
        with torch.no_grad():
            targets = embedder.embed_images(pictures)
        distance = perceptual.towards(pictures)

        def compared(images: Tensor) -> Likeness:
            cosine = F.cosine_similarity(embedder.embed_images(images), targets, dim=-1)
            return Likeness((images - pictures).square().mean((1, 2, 3)), distance(images), 1 - cosine)

        return compared

    return bound


def fit_picture(picture: Tensor, side: int) -> Tensor:
    """Returns a picture [1, 3, S, S] in [-1, 1] at a generator's side, [1, 3, R, R]."""
    if picture.shape[-1] == side:
        return picture
    scaled = F.interpolate(picture, (side, side), mode="bicubic", antialias=True, align_corners=False)
    return scaled.clamp(-1, 1)


@torch.no_grad()
def nearest(
    generator: Generator, comparison: Comparison, inverting: Inverting, candidates: Tensor, picture: Tensor
) -> Tensor:
    """Returns the latent [L, D] whose image is nearest to a picture, by the loss of the inversion.

    Args:
        generator: draws the candidates, `inverting.refining.chunk` at once.
        comparison: of images and pictures.
        inverting: how distances are weighed.
        candidates: latents [N, L, D].
        picture: [1, 3, R, R] in [-1, 1].

    Raises:
        ValueError: where no candidate has a finite loss.
    """
    losses, compared = [], comparison(picture)
    for part in candidates.to(picture.device).split(inverting.refining.chunk):
        images = generator.synthesize(generator.project(part)).clamp(-1, 1)
        losses.append(inverting.loss(compared(images)))
    found = torch.cat(losses).nan_to_num(nan=torch.inf)
    if not found.isfinite().any():
        raise ValueError(f"candidates: the loss of all {len(found)} is not a number: the generator draws no images")
    return candidates[int(found.argmin())].to(picture.device)


def invert(
    generator: Generator,
    comparison: Comparison,
    pictures: Tensor,
    starts: Tensor,
    inverting: Inverting | None = None,
    progress: Callable[[State], Any] | None = None,
    *,
    groups: Sequence[int] | None = None,
) -> Inverted:
    """Descends from starts towards pictures, in one batch of problems that do not know of each other.

    A KeyboardInterrupt ends the descent with the best so far; so does, for its picture alone, a loss that is not a
    number.

    Args:
        generator: draws the images.
        comparison: from `compare_by`.
        pictures: P of them, [P, 3, R, R] in [-1, 1], see `fit_picture`.
        starts: latents [P, L, D], such as `nearest` gives.
        inverting: how.
        progress: told the state before the first step and after each.
        groups: rows that stay equal outside w+, as `LatentSpace.groups`; None for the generator's own.

    Raises:
        ValueError: for pictures of another side than the generator's, another number of starts, latents of another
            shape, and where a start has no finite loss.
    """
    inverting = inverting or Inverting()
    side = generator.resolution
    if pictures.ndim != 4 or tuple(pictures.shape[1:]) != (3, side, side) or len(pictures) != len(starts):
        raise ValueError(
            f"pictures: expected [{len(starts)}, 3, {side}, {side}], one for each start at the generator's side, got"
            f" {list(pictures.shape)}: bring them to it by fit_picture"
        )
    groups = getattr(generator, "groups", None) if groups is None else groups
    compared = comparison(pictures)
    drawn = generator.sample_latents(256, torch.Generator().manual_seed(0))
    refined = refine(
        generator,
        lambda images: inverting.loss(compared(images)),
        starts[:, None],
        inverting.refining,
        progress=progress,
        groups=(1,) * starts.shape[1] if inverting.space == "w+" else groups_of(starts, groups),
        unit=drawn.std(dim=0).clamp_min(1e-3).to(starts.device),
    )

    @torch.no_grad()
    def drawn_and_compared(latents: Tensor) -> tuple[Tensor, Likeness]:
        parts = latents.split(inverting.refining.chunk)
        images = torch.cat([generator.synthesize(part).clamp(-1, 1) for part in parts])
        return images, compared(images)

    start, before = drawn_and_compared(generator.project(starts))
    images, after = drawn_and_compared(refined.latents)
    end = refined.state
    return Inverted(refined.latents, images, start, before, after, end.found, end.stopped, refined.interrupted)
