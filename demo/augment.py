"""Mild degradations of renders, so that what is trained on them also reads a generator's imperfect images."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

_KERNEL = (0.25, 0.5, 0.25)


def augment(images: Tensor, rng: torch.Generator) -> Tensor:
    """Shifts and scales every image a little, lightens or tints it, and softens, coarsens or roughens some.

    Args:
        images: [B, 3, R, R] in [-1, 1].
        rng: on the CPU, decides everything.

    Returns:
        [B, 3, R, R], slightly beyond [-1, 1] at places.
    """
    num, _, side, _ = images.shape
    images = _place(images, rng)
    coarse, soft, rough = (torch.rand(3, num, generator=rng) < torch.tensor([[0.3], [0.25], [0.4]])).to(images.device)
    size = int(torch.randint(side // 2, side - side // 16, (), generator=rng))
    images[coarse] = _coarsen(images[coarse], size)
    images[soft] = _soften(images[soft])
    tint = 0.05 * _uniform((num, 3, 1, 1), rng)
    contrast, light = 0.08 * _uniform((num, 1, 1, 1), rng), 0.06 * _uniform((num, 1, 1, 1), rng)
    images = images * (1 + tint + contrast).to(images) + light.to(images)
    noise = torch.randn(images[rough].shape, generator=rng).to(images)
    images[rough] += 0.12 * torch.rand((len(noise), 1, 1, 1), generator=rng).to(images) * noise
    return images


def _uniform(shape: tuple[int, ...], rng: torch.Generator) -> Tensor:
    return torch.rand(shape, generator=rng) * 2 - 1


def _place(images: Tensor, rng: torch.Generator) -> Tensor:
    """Shifts by up to 4 % and scales by up to 5 %, with the border repeated."""
    num = images.shape[0]
    theta = torch.zeros(num, 2, 3)
    theta[:, 0, 0] = theta[:, 1, 1] = 1 + 0.05 * _uniform((num,), rng)
    theta[:, :, 2] = 0.08 * _uniform((num, 2), rng)
    grid = F.affine_grid(theta.to(images), list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, padding_mode="border", align_corners=False)


def _coarsen(images: Tensor, size: int) -> Tensor:
    """Scales down to a side of `size` pixels and up again."""
    small = F.interpolate(images, size=(size, size), mode="bilinear", antialias=True, align_corners=False)
    return F.interpolate(small, size=images.shape[-2:], mode="bilinear", align_corners=False)


def _soften(images: Tensor) -> Tensor:
    """Blurs with a binomial kernel of 3 x 3."""
    taps = torch.tensor(_KERNEL, dtype=images.dtype, device=images.device)
    kernel = torch.outer(taps, taps).expand(3, 1, 3, 3)
    return F.conv2d(F.pad(images, (1, 1, 1, 1), mode="replicate"), kernel, groups=3)
