"""Gaussian diffusion with x0-prediction: the loop that runs every sampler, and where its randomness comes from.

The noise schedule is in schedule.py, samplers as coefficient tables in steps.py, guidance in guidance.py; their names
can be had from here.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from clip2latent.guidance import extrapolate, guided
from clip2latent.interfaces import Denoiser
from clip2latent.schedule import SPACINGS, Schedule, uniform_log_snr_times, uniform_times
from clip2latent.steps import Steps, clip2latent_skip_steps, ddim_steps, ddpm_steps, dpmpp_steps, sde_dpmpp_steps

__all__ = [
    "SPACINGS",
    "Rng",
    "Schedule",
    "Steps",
    "clip2latent_skip_steps",
    "ddim_steps",
    "ddpm_steps",
    "dpmpp_steps",
    "extrapolate",
    "fresh_noise",
    "guided",
    "normal",
    "row_generator",
    "row_generators",
    "sample",
    "sde_dpmpp_steps",
    "uniform_log_snr_times",
    "uniform_times",
]

Rng = torch.Generator | Sequence[torch.Generator]
"""One generator for the whole batch, or one for each row: then a row's result does not depend on the others."""


def row_generator(seed: int, prompt: int, image: int) -> torch.Generator:
    """Returns the generator of prompt p and candidate n, a function of (seed, p, n): no image depends on the others."""
    entropy = np.random.SeedSequence([seed, prompt, image]).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(entropy >> np.uint64(1)))


def row_generators(seed: int, num_prompts: int, num_images: int) -> list[torch.Generator]:
    """Returns P * N generators, one for each image, that of prompt p and candidate n at p * N + n."""
    return [row_generator(seed, prompt, image) for prompt in range(num_prompts) for image in range(num_images)]


def normal(shape: Sequence[int], rng: Rng, device: torch.device | str = "cpu") -> Tensor:
    """Draws standard normal noise of `shape` [B, ...]: from one generator, or row by row from B generators.

    The numbers are drawn where the generators live and moved to `device`, so that CPU generators give the same
    numbers on every device.
    """
    if isinstance(rng, torch.Generator):
        return torch.randn(*shape, generator=rng, device=rng.device).to(device)
    if len(rng) != shape[0]:
        raise ValueError(f"rng must be one generator or one for each of the {shape[0]} rows, got {len(rng)}")
    return torch.stack([torch.randn(*shape[1:], generator=row, device=row.device) for row in rng]).to(device)


def fresh_noise(steps: Steps, shape: Sequence[int], rng: Rng, device: torch.device | str = "cpu") -> Tensor:
    """Draws all noise [B, N, K, D] that N stochastic rows of a table add to a state of `shape` [B, K, D]."""
    drawn = [normal(shape, rng, device) for deviation in steps.noise.tolist() if deviation > 0]
    return torch.stack(drawn, dim=1) if drawn else torch.zeros(shape[0], 0, *shape[1:], device=device)


def sample(denoise: Denoiser, x: Tensor, steps: Steps, rng: Rng | Tensor) -> Tensor:
    """Runs a sampler from noise x [B, K, D] to clean tokens [B, K, D].

    Args:
        denoise: the prediction of x0.
        x: standard normal noise, e.g. from `normal` with the same `rng`.
        steps: the sampler's table.
        rng: source of the fresh noise of stochastic samplers, or what `fresh_noise` drew from it.
    """
    x0_prev, drawn = torch.zeros_like(x), 0
    for t, weight_x, weight_x0, weight_prev, deviation in zip(*(column.tolist() for column in steps), strict=True):
        x0 = denoise(x, torch.full((len(x),), t, device=x.device))
        x = weight_x * x + weight_x0 * x0 + weight_prev * x0_prev
        if deviation > 0:
            x = x + deviation * (rng[:, drawn] if isinstance(rng, Tensor) else normal(x.shape, rng, x.device))
            drawn += 1
        x0_prev = x0
    return x
