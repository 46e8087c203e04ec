"""The way from one prompt or result to the next: paths of embeddings and of latents."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from clip2latent.metrics import clip_score
from clip2latent.sampling import Sampling
from clip2latent.text2image import TextToImage

Blend = Callable[[Tensor, Tensor, float], Tensor]
"""(a, b, share): a at share 0, b at share 1."""


def linear(a: Tensor, b: Tensor, share: float) -> Tensor:
    """Returns a + share (b - a), any shape: for latents."""
    return torch.lerp(a, b, share)


def spherical(a: Tensor, b: Tensor, share: float) -> Tensor:
    """Returns the point on the great arc from a to b, last dimension of any length: for embeddings and normal z.

    Lengths are blended linearly. Source: Shoemake 1985, "Animating rotation with quaternion curves", section 3.3.
    """
    lengths = [vector.norm(dim=-1, keepdim=True).clamp_min(1e-12) for vector in (a, b)]
    cosine = (a / lengths[0] * (b / lengths[1])).sum(-1, keepdim=True).clamp(-1, 1)
    angle = torch.acos(cosine)
    sine = torch.sin(angle)
    length = torch.lerp(*lengths, share)
    arc = (torch.sin((1 - share) * angle) * a / lengths[0] + torch.sin(share * angle) * b / lengths[1]) / sine
    # Without an angle, or at opposite points, there is no one arc.
    return torch.where(sine > 1e-4, length * arc, torch.lerp(a, b, share))


def path(points: Tensor, frames: int, blend: Blend = linear) -> Tensor:
    """Returns the way through M points [M, ...] as [(M-1) (frames-1) + 1, ...]: `frames` for each leg, ends included.

    Raises:
        ValueError: for fewer than two points or frames.
    """
    check_way(len(points), frames)
    way = [
        blend(points[leg], points[leg + 1], step / (frames - 1))
        for leg in range(len(points) - 1)
        for step in range(frames - 1)
    ]
    return torch.stack([*way, points[-1]])


def check_way(points: int, frames: int) -> None:
    """Raises ValueError for fewer than two points or frames."""
    if points < 2:
        raise ValueError(f"expected two or more prompts or results to go between, got {points}")
    if frames < 2:
        raise ValueError(f"frames={frames}: expected at least 2, the ends")


def between_prompts(
    pipeline: TextToImage,
    prompts: Sequence[str],
    frames: int = 16,
    candidates: int = 4,
    sampling: Sampling | None = None,
    progress: Callable[[int], object] | None = None,
) -> Tensor:
    """Returns the latents [F, L, D] of the way through prompts' embeddings, all drawn from the same noise.

    Several noises are tried over the whole way; the one whose images are nearest to their embeddings stays.

    Args:
        pipeline: draws the images.
        prompts: at least two texts, in order.
        frames: images from one prompt to the next, both included.
        candidates: noises to try.
        sampling: how to draw; a sampler without noise of its own gives a smooth way.
        progress: called with the number of images drawn since the last call.

    Raises:
        ValueError: for fewer than two prompts or frames, and numbers out of range.
    """
    way = path(pipeline.embed_text(prompts), frames, spherical)
    latents, scores = [], []
    for point in way:
        # Alone in its call, a point has the noise of the first prompt: the same for all of them.
        parts = list(pipeline.stream(point[None], candidates, sampling or Sampling()))
        latents.append(torch.cat([part.latents for part in parts]))
        scores.append(clip_score(torch.cat([part.embeddings for part in parts])[None], point[None])[0])
        if progress is not None:
            progress(candidates)
    best = int(torch.stack(scores).mean(0).argmax())
    return torch.stack([row[best] for row in latents])
