"""Edited latents become images."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from clip2latent.text2image import TextToImage


class Redrawn(NamedTuple):
    """Valid latents [..., L, D] and their images [..., 3, R, R] in [-1, 1], on the CPU."""

    latents: Tensor
    images: Tensor


@torch.no_grad()
def redraw(pipeline: TextToImage, latents: Tensor, chunk: int = 64) -> Redrawn:
    """Draws latents after an edit, in the memory of one chunk and of the images.

    Args:
        pipeline: its generator draws.
        latents: [..., L, D]; the generator's nearest valid ones are drawn and returned.
        chunk: images drawn at once.

    Raises:
        ValueError: for latents of another L or D, and a chunk under 1.
    """
    wanted = tuple(pipeline.generator.latent_shape)
    if latents.ndim < 2 or tuple(latents.shape[-2:]) != wanted or not latents.numel():
        raise ValueError(f"latents: expected [..., {wanted[0]}, {wanted[1]}], got {list(latents.shape)}")
    if chunk < 1:
        raise ValueError(f"chunk={chunk}: expected at least 1")
    device = pipeline.space.mean.device
    valid, images = [], []
    for part in latents.reshape(-1, *wanted).split(chunk):
        valid.append(pipeline.generator.project(part.to(device)))
        images.append(pipeline.draw(valid[-1]).cpu())
    drawn = torch.cat(images)
    return Redrawn(torch.cat(valid).cpu().view(latents.shape), drawn.view(*latents.shape[:-2], *drawn.shape[1:]))
