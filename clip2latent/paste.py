"""Pasting one image, scaled, onto another: differentiable in both, many places and sizes in one product.

The paper pastes with hard edges (arXiv:2112.01573, section 3.3); the other kinds are ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from clip2latent.membrane import Membrane, correction, make_membrane

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


EDGES = ("hard", "soft", "seamless")
"""Edges as they are; fading over a quarter of the side; or met by the background's colours, see membrane.py."""
SOFT = 0.25


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
        membrane: what seamless edges are made by; None for others.
    """

    rows: Tensor
    columns: Tensor
    cover: Tensor
    membrane: Membrane | None = None


def check_placement(placement: Placement) -> Placement:
    """Returns a placement; ValueError for a scale that is not in (0, 1) and for an unknown location."""
    scale, location = placement
    if not 0 < scale < 1:
        raise ValueError(f"scale={scale}: expected a number between 0 and 1, the foreground's side over the other's")
    if location not in LOCATIONS:
        raise ValueError(f"location={location!r}: expected one of {', '.join(LOCATIONS)}")
    return placement


def make_pasting(
    placements: Sequence[Placement], foreground_side: int, background_side: int, edges: str = "hard"
) -> Pasting:
    """Returns the matrices of placements; the sides are the images' in pixels.

    Args:
        placements: P of them.
        foreground_side: r.
        background_side: R.
        edges: one of EDGES; those on the picture's own border are always hard.

    Raises:
        ValueError: for no placement, what `check_placement` refuses, and other edges.
    """
    if not placements:
        raise ValueError("placements: expected at least one")
    if edges not in EDGES:
        raise ValueError(f"edges={edges!r}: expected one of {', '.join(EDGES)}")
    made = [_axes(placement, foreground_side, background_side) for placement in placements]
    rows, columns = (torch.stack(matrices) for matrices in zip(*made, strict=True))
    places = [[_ends(each) for each in matrices] for matrices in (rows, columns)]
    fading = SOFT if edges == "soft" else 0.0
    seen = [torch.stack([_fade(*ends, background_side, fading) for ends in each]) for each in places]
    membrane = make_membrane(*places, background_side) if edges == "seamless" else None
    return Pasting(rows, columns, seen[0][:, None, :, None] * seen[1][:, None, None, :], membrane)


def paste(foreground: Tensor, background: Tensor, pasting: Pasting) -> Tensor:
    """Pastes P foregrounds onto P backgrounds, each at its own placement.

    The foreground is resampled with a triangle filter as wide as its pixels or the background's, whichever are larger:
    means of its values, never beyond them. Seamless edges change its colours, which are then clamped to [-1, 1].

    Args:
        foreground: [P, 3, r, r].
        background: [P, 3, R, R].
        pasting: of P placements.

    Returns:
        The fused images [P, 3, R, R].
    """
    rows, columns, cover = (each.to(background.device) for each in pasting[:3])
    placed = rows[:, None] @ foreground @ columns[:, None].mT
    if pasting.membrane is not None:
        placed = (placed + correction(placed, background, pasting.membrane)).clamp(-1, 1)
    return cover * placed + (1 - cover) * background


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


def _ends(matrix: Tensor) -> tuple[int, int]:
    """Returns the first place of a matrix [R, r] that holds anything, and the one after the last."""
    inside = (matrix.sum(-1) > 0.5).nonzero().flatten()
    return int(inside[0]), int(inside[-1]) + 1


def _fade(first: int, last: int, side: int, fading: float) -> Tensor:
    """Returns [R], from 0 outside to 1 inside, along half a wave at each end that is not the picture's own."""
    place, width = torch.arange(side) + 0.5, fading * (last - first)
    seen = ((place > first) & (place < last)).float()
    ends = [place - first] * (first > 0) + [last - place] * (last < side)
    for depth in ends if width else ():
        seen = seen * (1 - torch.cos(torch.pi * (depth / width).clamp(0, 1))) / 2
    return seen
