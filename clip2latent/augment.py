"""Differentiable augmentation: random views of an image, made without ever writing copies of it.

The policies, in their order, are those of DiffAugment (arXiv:2006.10738) as FuseDream uses them (arXiv:2112.01573,
sec. 3.1; DiffAugment_pytorch.py of gnobitab/FuseDream): colour, translation, resize, cutout. The resampling to the
side that an embedder sees comes last. After the colours nothing is clamped, and what a view shows beyond its image is
0, mid-grey.

Brightness b, saturation s and contrast c are one affine of the pixel,

    c s x + c (1 - s) mean_channels(x) + (1 - c) mean(x) + b,

and it commutes with all that follows, but for its constant, which must not colour what lies outside. So the rest is
gathered from the one image that all views share, and the colours are changed in what was gathered.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from clip2latent.gathering import Taps, coverage, gather, trace

SHIFT = 0.125
"""Largest translation, as a part of the image's side."""
RATIOS = (0.8, 1.2)
"""Least and largest factor of a resize."""
HOLE = 0.5
"""Side of a cutout's hole, as a part of the image's side."""


class Views(NamedTuple):
    """The numbers that make V views of any image, of any side; places are drawn from [0, 1) over those allowed."""

    brightness: Tensor
    """[V], added; 0 for none"""
    saturation: Tensor
    """[V], factor of the distance to the mean over the channels; 1 for none"""
    contrast: Tensor
    """[V], factor of the distance to the image's mean; 1 for none"""
    shift: Tensor
    """[V, 2], rows and columns: places in [0, 1); 0.5 for none"""
    ratio: Tensor
    """[V], factor of the side; 1 for none"""
    hole: Tensor
    """[V], the hole's side as a part of the image's; 0 for none"""
    centre: Tensor
    """[V, 2], rows and columns of the hole's middle: places in [0, 1)"""

    def split(self, views: int) -> list[Views]:
        """Returns the same views in parts of `views`, the last one smaller where they do not fit."""
        return [Views(*numbers) for numbers in zip(*(column.split(views) for column in self), strict=True)]

    def to(self, like: Tensor) -> Views:
        """Returns the same views with the device and the precision of a tensor."""
        return Views(*(numbers.to(like) for numbers in self))


@dataclass(frozen=True)
class Augment:
    """Which augmentations are drawn; a policy left out changes none of the others' numbers.

    Attributes:
        color: brightness by up to 0.5, saturation by a factor up to 2, contrast by one of 0.5 to 1.5.
        translation: by up to 1/8 of the side.
        resize: by a factor of 0.8 to 1.2, about the middle: surrounded by grey, or cropped.
        cutout: of a square of half the side, anywhere, cut off at the edges.
    """

    color: bool = True
    translation: bool = True
    resize: bool = True
    cutout: bool = True

    def draw(self, views: int, rng: torch.Generator) -> Views:
        """Draws the numbers of `views` views, a function of `rng` alone, on its device.

        Raises:
            ValueError: for fewer than one view.
        """
        if views < 1:
            raise ValueError(f"views={views}: expected at least 1")
        drawn = torch.rand(views, 8, generator=rng, device=rng.device)
        zero, half, one = (torch.full_like(drawn[:, 0], value) for value in (0, 0.5, 1))
        least, largest = RATIOS
        return Views(
            brightness=drawn[:, 0] - 0.5 if self.color else zero,
            saturation=drawn[:, 1] * 2 if self.color else one,
            contrast=drawn[:, 2] + 0.5 if self.color else one,
            shift=drawn[:, 3:5] if self.translation else half[:, None].expand(-1, 2),
            ratio=drawn[:, 5] * (largest - least) + least if self.resize else one,
            hole=one * HOLE if self.cutout else zero,
            centre=drawn[:, 6:8],
        )


def apply_views(images: Tensor, views: Views, size: int) -> Tensor:
    """Makes every view of every image at the side `size`; differentiable.

    Args:
        images: [B, 3, R, R] in [-1, 1], floating point; below float32 they are computed in float32.
        views: V of them.
        size: side of the views in pixels; where it is not R they are resampled bilinearly, without a low pass.

    Returns:
        [B, V, 3, size, size], near [-1, 1] but not within it.

    Raises:
        ValueError: for images of another shape or of integers, or a side under 1.
    """
    if images.ndim != 4 or images.shape[1] != 3 or images.shape[2] != images.shape[3]:
        raise ValueError(f"images must be [B, 3, R, R], got {list(images.shape)}")
    if not images.is_floating_point():
        raise ValueError(f"images must be floating point in [-1, 1], got {images.dtype}; convert with x / 127.5 - 1")
    if size < 1:
        raise ValueError(f"size={size}: expected at least 1 pixel")
    images = images.to(torch.promote_types(images.dtype, torch.float32))
    views = views.to(images)
    rows, columns = (_taps(views, axis, images.shape[-1], size) for axis in (0, 1))
    pixels, inside = gather(images, rows, columns).flatten(3), coverage(rows, columns).flatten(1)
    c, s = views.contrast[:, None, None], views.saturation[:, None, None]
    mixing = c * s * torch.eye(3, device=c.device, dtype=c.dtype) + c * (1 - s) / 3  # [V, 3, 3]
    constant = (1 - views.contrast) * images.mean((1, 2, 3))[:, None] + views.brightness  # [B, V]
    coloured = mixing @ pixels + (constant[..., None] * inside)[:, :, None]
    return coloured.unflatten(-1, (size, size))


def _taps(views: Views, axis: int, side: int, size: int) -> Taps:
    """Turns the views' numbers into pixels of an image's side, along one axis, and traces them."""
    reach = int(side * SHIFT + 0.5)
    shift = (views.shift[:, axis] * (2 * reach + 1)).floor().clamp(max=2 * reach) - reach
    hole = (views.hole * side + 0.5).floor()
    centre = (views.centre[:, axis] * (side + 1 - hole % 2)).floor().clamp(max=side)
    return trace(side, size, shift, (views.ratio * side).floor(), centre - (hole / 2).floor(), hole)
