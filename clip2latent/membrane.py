"""Membranes: what a pasted image needs added, so that it meets what surrounds it without a step at its edge.

Source: Pérez, Gangnet and Blake 2003, "Poisson image editing" (seamless cloning): inside the place, the difference to
the background along the edge is continued as the smoothest function there is, whose Laplacian is 0. The place is a
rectangle, where two small eigenbases solve the equation; at the picture's own border nothing is asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor


class Axis(NamedTuple):
    """One direction of P places in pictures of side R, as matrices [P, R, R] that are 0 outside the place.

    Attributes:
        vectors: the eigenvectors of the second difference within the place, as columns.
        values: its eigenvalues, [P, R]; of those that are not there, infinite.
        beyond: takes at each end of the place the row beyond it, where the picture has one.
        ends: takes the row at the end itself.
        inside: takes the rows of the place.
    """

    vectors: Tensor
    values: Tensor
    beyond: Tensor
    ends: Tensor
    inside: Tensor


class Membrane(NamedTuple):
    """The two directions of P places."""

    rows: Axis
    columns: Axis


def make_membrane(rows: Sequence[tuple[int, int]], columns: Sequence[tuple[int, int]], side: int) -> Membrane:
    """Returns the membranes of places, each from its first row and column up to but without the last.

    Args:
        rows: first and last of P places.
        columns: likewise.
        side: R, of the picture.
    """
    axes = ([_axis(first, last, side) for first, last in ends] for ends in (rows, columns))
    return Membrane(*(Axis(*(torch.stack(parts) for parts in zip(*made, strict=True))) for made in axes))


def correction(placed: Tensor, background: Tensor, membrane: Membrane) -> Tensor:
    """Returns what to add to placed foregrounds, 0 outside the places, [P, 3, R, R].

    Args:
        placed: foregrounds at their places, 0 elsewhere, [P, 3, R, R].
        background: [P, 3, R, R].
        membrane: of the P places.
    """
    rows, columns = (Axis(*(part[:, None].to(placed) for part in axis)) for axis in membrane)
    # The steps at the edge, background beyond it less foreground within, at the pixels within.
    steps = rows.beyond @ background @ columns.inside.mT - rows.ends @ placed
    steps = steps + rows.inside @ background @ columns.beyond.mT - placed @ columns.ends
    sums = rows.values[..., :, None] + columns.values[..., None, :]
    inverse = torch.where(sums > 1e-6, 1 / sums, 0)
    return rows.vectors @ (inverse * (rows.vectors.mT @ steps @ columns.vectors)) @ columns.vectors.mT


@lru_cache(maxsize=256)
def _axis(first: int, last: int, side: int) -> Axis:
    """One place's matrices [R, R]; the picture's border takes no part in the second difference."""
    size = last - first
    second = 2 * torch.eye(size, dtype=torch.float64) - torch.eye(size, dtype=torch.float64).roll(1, 0).tril()
    second = second - torch.eye(size, dtype=torch.float64).roll(-1, 0).triu()
    beyond, ends, inside = (torch.zeros(side, side) for _ in range(3))
    inside[range(first, last), range(first, last)] = 1
    for end, other in ((first, first - 1), (last - 1, last)):
        if 0 <= other < side:
            beyond[end, other] = 1
            ends[end, end] += 1
        else:
            second[end - first, end - first] -= 1
    values, vectors = torch.linalg.eigh(second)
    padded, spectrum = torch.zeros(side, side), torch.full((side,), torch.inf)
    padded[first:last, :size], spectrum[:size] = vectors.float(), values.float()
    return Axis(padded, spectrum, beyond, ends, inside)
