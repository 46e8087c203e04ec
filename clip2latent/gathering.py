"""Views of images as sums over the images' own pixels: translation, resize, cutout and a final resampling at once.

Each is linear and, cutout aside, acts on rows and columns apart. So a view's pixel is a sum over at most 4 x 4 pixels
of the image (two bilinear resamplings, one after the other), first over columns, then over rows, read from the one
image that all views share.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F


class Taps(NamedTuple):
    """Where the pixels of V views come from along one axis: four taps for each, [V, size, 4]."""

    index: Tensor
    """int64, in the image"""
    weight: Tensor
    """0 for a tap outside"""
    in_hole: Tensor
    """bool: whether the tap passes through the cutout's rows (or columns)"""


def trace(side: int, size: int, shift: Tensor, resized: Tensor, hole: Tensor, width: Tensor) -> Taps:
    """Follows the pixels of V views back to an image, along one axis.

    Args:
        side: of the image, in pixels, and of the view before its final resampling.
        size: of the view, in pixels.
        shift: [V], pixels by which the image is read ahead; what lies outside of it is 0.
        resized: [V], side to which the image is resized about its middle; surrounded by 0, or cropped, to `side`.
        hole: [V], first pixel of the cutout; may lie outside.
        width: [V], pixels of the cutout.
    """
    shift, resized, hole, width = (numbers[:, None, None] for numbers in (shift, resized, hole, width))
    margin = ((side - resized) / 2).trunc()  # negative where the view is cropped
    places = torch.arange(size, device=shift.device, dtype=shift.dtype)
    seen, weight = _bilinear(places, side, torch.full_like(places[:1], size))
    in_hole = (seen >= hole) & (seen < hole + width)  # [V, size, 2]
    inner = seen - margin
    weight = weight * ((inner >= 0) & (inner < resized))
    source, inner_weight = _bilinear(inner, side, resized)  # [V, size, 2, 2]
    source = source + shift[..., None]
    weight = weight[..., None] * inner_weight * ((source >= 0) & (source < side))
    index = source.clamp(0, side - 1).long()
    return Taps(index.flatten(2), weight.flatten(2), in_hole.repeat_interleave(2, dim=-1))


def gather(images: Tensor, rows: Taps, columns: Taps) -> Tensor:
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


def coverage(rows: Taps, columns: Taps) -> Tensor:
    """Returns what the views of an image of ones show, [V, size, size]: 0 outside of it and in the hole."""
    over_rows = torch.stack([(rows.weight * kept).sum(-1) for kept in (~rows.in_hole, rows.in_hole)], -1)
    over_columns = torch.stack([columns.weight.sum(-1), (columns.weight * ~columns.in_hole).sum(-1)], -2)
    return over_rows @ over_columns


def _bilinear(places: Tensor, inputs: int, outputs: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the two pixels, of `inputs`, that each place among `outputs` pixels lies between, and their weights."""
    # As torch's own kernels round: the scale once (a number / tensor would round twice), then product and sum together.
    scale = torch.full_like(outputs, inputs) / outputs
    source = ((places + 0.5).double() * scale - 0.5).to(places).clamp(min=0)
    lower = source.floor().clamp(max=inputs - 1)
    upper = (lower + 1).clamp(max=inputs - 1)
    return torch.stack([lower, upper], -1), torch.stack([1 - (source - lower), source - lower], -1)


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
