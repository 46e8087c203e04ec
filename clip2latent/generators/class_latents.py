"""Latent rows of class-conditional generators: z beside a class vector, both continuous."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

Z_LIMIT = 2.0
"""z is valid in [-2, 2]: the truncated normal of arXiv:1809.11096, sec. 3.1."""


def truncated_normal(num: int, width: int, rng: torch.Generator) -> Tensor:
    """Draws z [num, width] from N(0, 1) restricted to [-2, 2], by the inverse distribution function."""
    inside = math.erf(Z_LIMIT / math.sqrt(2))
    uniform = torch.rand(num, width, generator=rng, device=rng.device) * 2 - 1
    return (math.sqrt(2) * torch.erfinv(inside * uniform)).clamp(-Z_LIMIT, Z_LIMIT)


def chosen_or_random(classes: Tensor | None, num: int, num_classes: int, rng: torch.Generator) -> Tensor:
    """Returns `classes` [num], or draws them uniformly where None.

    Raises:
        ValueError: `classes` is not [num] or holds no integers in [0, num_classes).
    """
    if classes is None:
        return torch.randint(num_classes, (num,), generator=rng, device=rng.device)
    if classes.shape != (num,) or classes.is_floating_point() or classes.dtype == torch.bool:
        raise ValueError(f"classes: expected {num} integer indices, got {classes.dtype} {list(classes.shape)}")
    if num and not (int(classes.min()) >= 0 and int(classes.max()) < num_classes):
        raise ValueError(f"classes: expected indices in [0, {num_classes}), got {classes.tolist()}")
    return classes.long()


def clamp_z(latents: Tensor, z_width: int) -> Tensor:
    """Clamps the first z_width numbers of every row of latents [B, 1, D] to [-2, 2] and keeps the class vector."""
    z, class_vector = latents.split([z_width, latents.shape[-1] - z_width], dim=-1)
    return torch.cat([z.clamp(-Z_LIMIT, Z_LIMIT), class_vector], dim=-1)


def split_rows(latents: Tensor, z_width: int, class_width: int) -> tuple[Tensor, ...]:
    """Returns z [B, z_width] and the class vectors [B, class_width] of latents [B, 1, D].

    Raises:
        ValueError: latents have another shape.
    """
    if latents.ndim != 3 or tuple(latents.shape[1:]) != (1, z_width + class_width):
        raise ValueError(f"latents: expected [B, 1, {z_width + class_width}], got {list(latents.shape)}")
    return latents[:, 0].split([z_width, class_width], dim=1)


def checked_names(names: Sequence[str] | None, num_classes: int) -> list[str] | None:
    """Returns the names as a list; None stays None.

    Raises:
        ValueError: there is not one name for each class.
    """
    if names is None:
        return None
    if isinstance(names, str) or len(names) != num_classes:
        raise ValueError(f"class_names: expected {num_classes} names, one for each class, got {names!r}")
    return [str(name) for name in names]


def checked_truncation(truncation: float, most: float = math.inf) -> float:
    """Returns `truncation`.

    Raises:
        ValueError: it is not in (0, most].
    """
    if not 0 < truncation <= most:
        raise ValueError(f"truncation: expected a number in (0, {most:g}], got {truncation}")
    return float(truncation)


def names_or_default(names: Sequence[str] | None, num_classes: int) -> Sequence[str]:
    """Returns the names given; else ImageNet's labels where there are 1000 classes, else "class 0", "class 1", ..."""
    if names is not None:
        return names
    if num_classes == 1000:
        from open_clip import IMAGENET_CLASSNAMES  # in the order of the ILSVRC class indices

        return IMAGENET_CLASSNAMES
    return [f"class {index}" for index in range(num_classes)]
