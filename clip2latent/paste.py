"""Pasting one image, scaled, onto another: differentiable in both, many places and sizes in one product.

The paper pastes with hard edges (arXiv:2112.01573, section 3.3); edges that fade are ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

LOCATIONS = (
    "top-left",
    "top",
    "top-right",
    "left",
    "centre",
    "right",
    "bottom-left",
    "bottom",
    "bottom-right",
)
"""The 9 places of arXiv:2112.01573, section 3.3: row by row, at the edges and in the middle."""


class Placement(NamedTuple):
    """Where a foreground goes: its side over the background's, in (0, 1), and one of LOCATIONS."""

    scale: float
    location: str

    def __str__(self) -> str:
        return f"{self.scale:g} {self.location}"


class Pasting(NamedTuple):
    """P placements as matrices, for a foreground of side r and a background of side R.

    Attributes:
        rows: [P, R, r], each of the background's rows as a mean of the foreground's; 0 outside the place.
        columns: [P, R, r], likewise.
        cover: [P, 1, R, R], how much of the foreground is seen, from 0 (outside its place) to 1.
    """

    rows: Tensor
    columns: Tensor
    cover: Tensor


def check_placement(placement: Placement) -> Placement:
    """Returns a placement; ValueError for a scale that is not in (0, 1) and for an unknown location."""
    scale, location = placement
    if not 0 < scale < 1:
        raise ValueError(f"scale={scale}: expected a number between 0 and 1, the foreground's side over the other's")
    if location not in LOCATIONS:
        raise ValueError(f"location={location!r}: expected one of {', '.join(LOCATIONS)}")
    return placement


def make_pasting(
    placements: Sequence[Placement], foreground_side: int, background_side: int, feather: float = 0.0
) -> Pasting:
    """Returns the matrices of placements; the sides are the images' in pixels.

    Args:
        placements: P of them.
        foreground_side: r.
        background_side: R.
        feather: how wide the foreground's edges fade, over its side, from 0 (the paper's hard edge) to 0.5. Edges on
            the picture's own border do not.

    Raises:
        ValueError: for no placement, what `check_placement` refuses, and another feather.
    """
    if not placements:
        raise ValueError("placements: expected at least one")
    if not 0 <= feather <= 0.5:
        raise ValueError(f"feather={feather}: expected 0 to 0.5, the soft edge's width over the foreground's side")
    made = [_axes(placement, foreground_side, background_side) for placement in placements]
    rows, columns = (torch.stack(matrices) for matrices in zip(*made, strict=True))
    seen = [torch.stack([_fade(each.sum(-1) > 0.5, feather) for each in matrices]) for matrices in (rows, columns)]
    return Pasting(rows, columns, seen[0][:, None, :, None] * seen[1][:, None, None, :])


def paste(foreground: Tensor, background: Tensor, pasting: Pasting) -> Tensor:
    """Pastes P foregrounds onto P backgrounds, each at its own placement.

    The foreground is resampled with a triangle filter as wide as its pixels or the background's, whichever are larger:
    means of its values, never beyond them.

    Args:
        foreground: [P, 3, r, r].
        background: [P, 3, R, R].
        pasting: of P placements, on the images' device.

    Returns:
        The fused images [P, 3, R, R].
    """
    placed = pasting.rows[:, None] @ foreground @ pasting.columns[:, None].mT
    return pasting.cover * placed + (1 - pasting.cover) * background


def _axes(placement: Placement, foreground_side: int, background_side: int) -> tuple[Tensor, Tensor]:
    """Returns the matrices [R, r] of rows and of columns."""
    scale, location = check_placement(placement)
    side = max(1, round(scale * background_side))
    shrunk = F.interpolate(
        torch.eye(foreground_side)[None, None], (side, foreground_side), mode="bilinear", antialias=True
    )[0, 0]
    free = background_side - side
    row, column = divmod(LOCATIONS.index(location), 3)
    first, second = (F.pad(shrunk, (0, 0, start, free - start)) for start in (free * row // 2, free * column // 2))
    return first, second


def _fade(inside: Tensor, feather: float) -> Tensor:
    """Returns [R], from 0 outside to 1 inside, along half a wave at each end that is not the picture's own."""
    places = inside.nonzero().flatten()
    first, last, width = int(places[0]), int(places[-1]), feather * len(places)
    place, ends = torch.arange(len(inside)) + 0.5, inside.float()
    if width == 0:
        return ends
    if first > 0:
        ends = ends * (1 - torch.cos(torch.pi * ((place - first) / width).clamp(0, 1))) / 2
    if last < len(inside) - 1:
        ends = ends * (1 - torch.cos(torch.pi * ((last + 1 - place) / width).clamp(0, 1))) / 2
    return ends
