"""Differentiable augmentation: random views of an image, made without ever writing copies of it.

The policies, in their order, are those of DiffAugment (arXiv:2006.10738) as FuseDream uses them (arXiv:2112.01573,
sec. 3.1; DiffAugment_pytorch.py of gnobitab/FuseDream): colour, translation, resize, cutout. The resampling to the
side that an embedder sees comes last. After the colours nothing is clamped, and what a view shows beyond its image is
0, mid-grey.

Two facts make the views cheap. Brightness b, saturation s and contrast c are one affine of the pixel,

    c s x + c (1 - s) mean_channels(x) + (1 - c) mean(x) + b,

and it commutes with all that follows, but for its constant, which must not colour what lies outside. The geometry is
linear and, cutout aside, acts on rows and columns apart: a pixel of a view is a sum over at most 4 x 4 pixels of the
image (two bilinear resamplings, one after the other), which are gathered from the one image that all views share.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

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
    pixels, inside = _gather(images, rows, columns).flatten(3), _inside(rows, columns).flatten(1)
    c, s = views.contrast[:, None, None], views.saturation[:, None, None]
    mixing = c * s * torch.eye(3).to(images) + c * (1 - s) / 3  # [V, 3, 3]
    constant = (1 - views.contrast) * images.mean((1, 2, 3))[:, None] + views.brightness  # [B, V]
    coloured = mixing @ pixels + (constant[..., None] * inside)[:, :, None]
    return coloured.unflatten(-1, (size, size))


class _Taps(NamedTuple):
    """Where the pixels of V views come from along one axis: four taps for each, [V, size, 4]."""

    index: Tensor
    """int64, in the image"""
    weight: Tensor
    """0 for a tap outside"""
    in_hole: Tensor
    """bool: whether the tap passes through the cutout's rows (or columns)"""


def _taps(views: Views, axis: int, side: int, size: int) -> _Taps:
    """Follows a view's pixels back along one axis: final resampling, cutout, resize, translation."""
    reach = int(side * SHIFT + 0.5)
    shift = (views.shift[:, axis] * (2 * reach + 1)).floor().clamp(max=2 * reach) - reach
    hole = (views.hole * side + 0.5).floor()
    middle = (views.centre[:, axis] * (side + 1 - hole % 2)).floor().clamp(max=side)
    first = middle - (hole / 2).floor()
    resized = (views.ratio * side).floor()
    margin = ((side - resized) / 2).trunc()  # negative where the view is cropped
    shift, hole, first, resized, margin = (numbers[:, None, None] for numbers in (shift, hole, first, resized, margin))

    seen, weight = _bilinear(torch.arange(size).to(views.ratio), views.ratio.new_tensor(side), size)
    in_hole = (seen >= first) & (seen < first + hole)  # [V, size, 2]
    inner = seen - margin
    weight = weight * ((inner >= 0) & (inner < resized))
    source, inner_weight = _bilinear(inner, views.ratio.new_tensor(side), resized)  # [V, size, 2, 2]
    source = source + shift[..., None]
    weight = weight[..., None] * inner_weight * ((source >= 0) & (source < side))
    index = source.clamp(0, side - 1).long()
    return _Taps(index.flatten(2), weight.flatten(2), in_hole.repeat_interleave(2, dim=-1))


def _bilinear(places: Tensor, inputs: Tensor, outputs: Tensor | int) -> tuple[Tensor, Tensor]:
    """Returns the two pixels, of `inputs`, that each place among `outputs` pixels lies between, and their weights."""
    # As torch's own kernels do: the multiplication and the addition are rounded once, together.
    source = ((places + 0.5).double() * (inputs / outputs) - 0.5).to(places).clamp(min=0)
    lower = source.floor().minimum(inputs - 1)
    upper = (lower + 1).minimum(inputs - 1)
    return torch.stack([lower, upper], -1), torch.stack([1 - (source - lower), source - lower], -1)


def _gather(images: Tensor, rows: _Taps, columns: _Taps) -> Tensor:
    """Sums the taps of images [B, 3, R, R] over columns, then over rows: [B, V, 3, size, size].

    What a view's row sees through the hole's rows lacks the hole's columns. So the sums over columns are made twice,
    with all columns and without the hole's, and each tap of a row reads one or the other.
    """
    batch, channels, side, _ = images.shape
    views, size, _ = columns.index.shape
    num = batch * views

    table = images.permute(0, 3, 1, 2).contiguous().view(batch * side, -1)  # a row for each (b, column)
    index = columns.index[:, None] + side * _count(batch, columns.index, 5)  # [B, V, 1, size, taps]
    weight = torch.stack([columns.weight, columns.weight * ~columns.in_hole], 1)  # [V, 2, size, taps]
    table = _sums(table, index.expand(-1, -1, 2, -1, -1), weight)  # a row for each (b, v, which of the two, column)

    table = table.t().reshape(-1, size)  # a row for each (c, row, b, v, which)
    index = rows.index * num + views * _count(batch, rows.index, 4) + _count(views, rows.index, 3)
    index = 2 * index + rows.in_hole + 2 * num * side * _count(channels, rows.index, 5)  # [3, B, V, size, taps]
    return _sums(table, index, rows.weight).view(channels, batch, views, size, size).permute(1, 2, 0, 3, 4)


def _count(num: int, like: Tensor, axes: int) -> Tensor:
    """Returns 0 ... num - 1 along the first of so many axes, on the device of a tensor."""
    return torch.arange(num, device=like.device).view(-1, *[1] * (axes - 1))


def _sums(table: Tensor, index: Tensor, weight: Tensor) -> Tensor:
    """Returns weighted sums of a table's rows [n, width]: index [..., taps], weight of such a shape -> [-1, width]."""
    weight = weight.expand(index.shape)
    return _Sums.apply(table, index.flatten(0, -2), weight.flatten(0, -2))


class _Sums(torch.autograd.Function):
    """Sum r is that of weight[r, k] table[index[r, k]]; the gradient is the transposed sums, exact and as fast."""

    @staticmethod
    def forward(ctx: Any, table: Tensor, index: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(index, weight)
        ctx.rows = len(table)
        return F.embedding_bag(index, table, mode="sum", per_sample_weights=weight)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        index, weight = ctx.saved_tensors
        index, order = index.flatten().sort(stable=True)
        starts = torch.searchsorted(index, torch.arange(ctx.rows, device=index.device))
        sums, weight = order // weight.shape[1], weight.flatten()[order]
        # embedding_bag's own gradient adds row by row: half as fast.
        return F.embedding_bag(sums, gradient.contiguous(), starts, mode="sum", per_sample_weights=weight), None, None


def _inside(rows: _Taps, columns: _Taps) -> Tensor:
    """Returns what the views of an image of ones show, [V, size, size]: 0 outside of it and in the hole."""
    over_rows = torch.stack([(rows.weight * kept).sum(-1) for kept in (~rows.in_hole, rows.in_hole)], -1)
    over_columns = torch.stack([columns.weight.sum(-1), (columns.weight * ~columns.in_hole).sum(-1)], -2)
    return over_rows @ over_columns
