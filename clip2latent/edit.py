"""Edits of latents, each a pure function of latents [..., L, D]: truncation, style mixing, steps along directions.

`layers` are the latent rows that an edit changes, numbers from 0 (the coarsest) to L-1; None stands for all. Whoever
draws edited latents gives them to the generator's `project` first.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from clip2latent.latents import LatentSpace


def mean_latent(space: LatentSpace) -> Tensor:
    """Returns the data's mean as a latent [L, D], the point that truncation draws to."""
    return space.expand(space.mean[None])[0]


def truncate(latents: Tensor, mean: Tensor, psi: float, layers: Sequence[int] | None = None) -> Tensor:
    """Draws latents towards the mean: mean + psi (latent - mean) (Karras et al. 2019, "truncation trick", appendix B).

    Args:
        latents: [..., L, D].
        mean: the data's mean [L, D], as `mean_latent` gives it.
        psi: 1 changes nothing, 0 is the mean, above 1 exaggerates, below 0 is the opposite.
        layers: what to change; range(cutoff) for a truncation up to a cutoff layer.

    Raises:
        ValueError: for a mean of another shape, an infinite psi, and layers that are not there.
    """
    if mean.shape != latents.shape[-2:]:
        raise ValueError(f"mean: expected the latents' [L, D], {list(latents.shape[-2:])}, got {list(mean.shape)}")
    mean = mean.to(latents)
    return torch.where(_mask(latents, layers), mean + _finite("psi", psi) * (latents - mean), latents)


def mix(latents: Tensor, style: Tensor, layers: Sequence[int] | None = None) -> Tensor:
    """Takes some layers from other latents (Karras et al. 2019, "style mixing", section 3.1).

    Args:
        latents: [..., L, D], what the other layers stay.
        style: what the layers are taken from, of a shape that broadcasts with the latents'.
        layers: the layers to take.

    Raises:
        ValueError: for latents of another L or D, and layers that are not there.
    """
    if style.shape[-2:] != latents.shape[-2:]:
        raise ValueError(f"style: expected latents {list(latents.shape[-2:])} (L, D), got {list(style.shape[-2:])}")
    return torch.where(_mask(latents, layers), style.to(latents), latents)


def move(latents: Tensor, steps: Iterable[tuple[Tensor, float]], layers: Sequence[int] | None = None) -> Tensor:
    """Moves latents along directions: latent + sum of strength x direction.

    Args:
        latents: [..., L, D].
        steps: pairs of a direction, [1, D] for all layers alike or [L, D], and its strength, of either sign.
        layers: the layers to change.

    Raises:
        ValueError: for a direction of another shape, an infinite strength, and layers that are not there.
    """
    num_layers, width = latents.shape[-2:]
    moved = latents
    for direction, strength in steps:
        if direction.ndim != 2 or direction.shape[0] not in (1, num_layers) or direction.shape[1] != width:
            raise ValueError(
                f"a direction for latents {[num_layers, width]} (L, D) is [1, {width}] or {[num_layers, width]},"
                f" got {list(direction.shape)}: take one that was found in this generator's latents"
            )
        moved = moved + _finite("strength", strength) * direction.to(latents)
    return torch.where(_mask(latents, layers), moved, latents)


def parse_layers(text: str, num_layers: int) -> list[int]:
    """Returns the layers that a text such as "0-3,8" names, both ends included; "4-" goes up to the last.

    Raises:
        ValueError: for another spelling, and layers that are not there.
    """
    layers: set[int] = set()
    for part in text.replace(" ", "").split(","):
        first, dash, last = part.partition("-")
        last = last or (str(num_layers - 1) if dash else first)
        if not (first.isdecimal() and last.isdecimal()) or not int(first) <= int(last) < num_layers:
            raise ValueError(
                f"layers {text!r}: expected layers from 0 to {num_layers - 1} of this generator, such as 0-3 or 2,4-"
            )
        layers |= set(range(int(first), int(last) + 1))
    return sorted(layers)


def _mask(latents: Tensor, layers: Sequence[int] | None) -> Tensor:
    """Returns which rows of latents [..., L, D] change, [L, 1]."""
    num_layers = latents.shape[-2]
    chosen = range(num_layers) if layers is None else layers
    strange = [layer for layer in chosen if not 0 <= layer < num_layers]
    if strange:
        raise ValueError(f"layers: expected numbers from 0 to {num_layers - 1}, the generator's layers, got {strange}")
    mask = torch.zeros(num_layers, 1, dtype=torch.bool, device=latents.device)
    mask[list(chosen)] = True
    return mask


def _finite(name: str, number: float) -> float:
    if not abs(number) < float("inf"):
        raise ValueError(f"{name}={number}: expected a finite number")
    return float(number)
