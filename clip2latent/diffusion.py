"""Gaussian diffusion with x0-prediction: the noise schedule, samplers as coefficient tables, guidance.

Every sampler with one evaluation per step is a table of rows x <- A x + B x0 + C x0_prev + S eps, so that one loop runs
them all. In the formulas abar is the kept timestep's cumulative alpha and abar' the next kept one's (1 after the last),
a = sqrt(abar), s = sqrt(1 - abar), lambda = log(a / s). Tables are float64.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from clip2latent.interfaces import Denoiser

Rng = torch.Generator | Sequence[torch.Generator]
"""One generator for the whole batch, or one for each row: then a row's result does not depend on the others."""


@dataclass(frozen=True)
class Schedule:
    """A discrete variance-preserving schedule x_t = sqrt(abar_t) x0 + sqrt(1 - abar_t) eps.

    Attributes:
        alphas_cumprod: abar [T], float64, decreasing in t.
    """

    alphas_cumprod: Tensor

    @classmethod
    def cosine(cls, timesteps: int, offset: float = 0.008) -> Schedule:
        """Returns the cosine schedule with T timesteps (Nichol and Dhariwal 2021, eq. 17; betas at most 0.999)."""
        if timesteps < 1:
            raise ValueError(f"timesteps must be at least 1, got {timesteps}")
        time = torch.arange(timesteps + 1, dtype=torch.float64) / timesteps
        curve = torch.cos((time + offset) / (1 + offset) * math.pi / 2) ** 2
        betas = (1 - curve[1:] / curve[:-1]).clamp(0, 0.999)
        return cls(torch.cumprod(1 - betas, dim=0))

    @property
    def timesteps(self) -> int:
        """T"""
        return len(self.alphas_cumprod)

    @property
    def log_snr(self) -> Tensor:
        """lambda [T] = log(a / s), float64: half the log of the signal-to-noise ratio, decreasing in t."""
        return 0.5 * (self.alphas_cumprod.log() - (-self.alphas_cumprod).log1p())


class Steps(NamedTuple):
    """A sampler as a table, one row per sampling step, first step first.

    Attributes:
        t: timesteps [S], int64, strictly decreasing.
        x: A [S], the weight of the current state.
        x0: B [S], the weight of the prediction.
        x0_prev: C [S], the weight of the prediction one step earlier.
        noise: S [S], the standard deviation of the fresh noise.
    """

    t: Tensor
    x: Tensor
    x0: Tensor
    x0_prev: Tensor
    noise: Tensor


def uniform_times(schedule: Schedule, num: int) -> list[int]:
    """Returns `num` timesteps from T-1 downwards, uniform in t; each step covers the same number of timesteps."""
    _check_num(schedule, num)
    return [round(schedule.timesteps * (num - index) / num) - 1 for index in range(num)]


def uniform_log_snr_times(schedule: Schedule, num: int, low: float = -5.25, high: float = 4.75) -> list[int]:
    """Returns `num` distinct timesteps from T-1 downwards, the others nearest to lambda uniform in [low, high].

    The range keeps out the ends of the cosine schedule, where lambda runs away and nothing is decided. The first
    timestep stays T-1, the only one at which pure noise is the right state to start from.
    """
    _check_num(schedule, num)
    log_snr = schedule.log_snr
    targets = torch.linspace(low, high, num, dtype=torch.float64)
    times = [schedule.timesteps - 1]
    for index in range(1, num):
        nearest = int((log_snr - targets[index]).abs().argmin())
        times.append(max(min(nearest, times[-1] - 1), num - 1 - index))
    return times


def ddpm_steps(schedule: Schedule, times: int | Sequence[int]) -> Steps:
    """Returns ancestral sampling, the exact posterior q(x' | x, x0) between kept timesteps (Ho et al. 2020, eq. 7).

    Args:
        schedule: the training schedule.
        times: the number of steps S in 1..T, spaced uniformly in t, or the decreasing timesteps themselves.
    """
    t, abar, abar_next = _kept(schedule, uniform_times(schedule, times) if isinstance(times, int) else times)
    alpha = abar / abar_next
    x = (1 - abar_next) * alpha.sqrt() / (1 - abar)
    x0 = abar_next.sqrt() * (1 - alpha) / (1 - abar)
    noise = ((1 - alpha) * (1 - abar_next) / (1 - abar)).sqrt()
    return Steps(t, x, x0, torch.zeros_like(x), noise)


def ddim_steps(schedule: Schedule, times: int | Sequence[int], eta: float = 0.0) -> Steps:
    """Returns DDIM (Song et al. 2021, eq. 12 and 16): eta 0 is deterministic, eta 1 is `ddpm_steps`.

    Args:
        schedule: the training schedule.
        times: the number of steps S in 1..T, spaced uniformly in t, or the decreasing timesteps themselves.
        eta: the share of the ancestral noise, 0 to 1.
    """
    if not 0 <= eta <= 1:
        raise ValueError(f"eta must be in [0, 1], got {eta}")
    t, abar, abar_next = _kept(schedule, uniform_times(schedule, times) if isinstance(times, int) else times)
    noise = eta * ((1 - abar_next) / (1 - abar) * (1 - abar / abar_next)).sqrt()
    x = ((1 - abar_next - noise**2).clamp(min=0) / (1 - abar)).sqrt()
    x0 = abar_next.sqrt() - x * abar.sqrt()
    return Steps(t, x, x0, torch.zeros_like(x), noise)


def clip2latent_skip_steps(schedule: Schedule, num: int) -> Steps:
    """Returns the sampling of the original clip2latent with skips of T / num timesteps, to reproduce its results.

    The means are those of `ddpm_steps`, but the noise has the deviation that belongs to steps of one timestep: too
    little at first, which acts as a hidden truncation, too much in the end. The first timestep is T - T / num, where
    pure noise is not yet the right state.
    Source: justinpinkney/clip2latent, LatentPrior.set_timestep_skip and p_sample_loop.

    Args:
        schedule: the training schedule.
        num: the number of steps S, a divisor of T.
    """
    _check_num(schedule, num)
    if schedule.timesteps % num:
        divisors = [number for number in range(1, schedule.timesteps + 1) if schedule.timesteps % number == 0]
        raise ValueError(f"clip2latent-skip takes as many steps as divide {schedule.timesteps}: {divisors}, got {num}")
    skip = schedule.timesteps // num
    steps = ddpm_steps(schedule, range(schedule.timesteps - skip, -1, -skip))
    return steps._replace(noise=ddpm_steps(schedule, schedule.timesteps).noise.flip(0)[steps.t])


def dpmpp_steps(schedule: Schedule, times: int | Sequence[int]) -> Steps:
    """Returns DPM-Solver++(2M) (Lu et al. 2022, algorithm 2), deterministic and accurate in few steps.

    Args:
        schedule: the training schedule.
        times: the number of steps S in 1..T, spaced uniformly in lambda, or the decreasing timesteps themselves.
    """
    t, abar, abar_next = _kept(schedule, uniform_log_snr_times(schedule, times) if isinstance(times, int) else times)
    a, s, a_next, s_next = abar.sqrt(), (1 - abar).sqrt(), abar_next.sqrt(), (1 - abar_next).sqrt()
    decay = s_next * a / (a_next * s)  # exp(-h), h the step in lambda; 0 at the end
    step = -decay.log()
    # The first step has no earlier prediction, and the last one (h infinite) returns x0: both are first order.
    correction = torch.zeros_like(step)
    correction[1:-1] = step[1:-1] / (2 * step[:-2])
    weight = a_next * (1 - decay)
    return Steps(t, s_next / s, weight * (1 + correction), -weight * correction, torch.zeros_like(step))


def _check_num(schedule: Schedule, num: int) -> None:
    if not 1 <= num <= schedule.timesteps:
        raise ValueError(f"the number of sampling steps must be in 1..{schedule.timesteps}, got {num}")


def _kept(schedule: Schedule, times: Sequence[int]) -> tuple[Tensor, Tensor, Tensor]:
    """Returns the kept timesteps [S], their abar [S], and the next kept ones' abar' [S] (1 after the last)."""
    t = torch.as_tensor(times, dtype=torch.int64)
    if not len(t) or t[0] >= schedule.timesteps or t[-1] < 0 or (t[1:] >= t[:-1]).any():
        raise ValueError(f"times must be decreasing and in 0..{schedule.timesteps - 1}, got {t.tolist()}")
    abar = schedule.alphas_cumprod[t]
    return t, abar, torch.cat([abar[1:], abar.new_ones(1)])


def row_generators(seed: int, num_prompts: int, num_images: int) -> list[torch.Generator]:
    """Returns P * N generators, one for each image, that of prompt p and candidate n at p * N + n.

    A generator depends on (seed, p, n) alone, so that an image does not depend on how many others are made.
    """
    generators = []
    for prompt in range(num_prompts):
        for image in range(num_images):
            entropy = np.random.SeedSequence([seed, prompt, image]).generate_state(1, np.uint64)[0]
            generators.append(torch.Generator().manual_seed(int(entropy >> np.uint64(1))))
    return generators


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


def sample(denoise: Denoiser, x: Tensor, steps: Steps, rng: Rng) -> Tensor:
    """Runs a sampler from noise x [B, K, D] to clean tokens [B, K, D].

    Args:
        denoise: the prediction of x0.
        x: standard normal noise, e.g. from `normal` with the same `rng`.
        steps: the sampler's table.
        rng: source of the fresh noise of stochastic samplers.
    """
    x0_prev = torch.zeros_like(x)
    for t, weight_x, weight_x0, weight_prev, deviation in zip(*(column.tolist() for column in steps), strict=True):
        x0 = denoise(x, torch.full((len(x),), t, device=x.device))
        x = weight_x * x + weight_x0 * x0 + weight_prev * x0_prev
        if deviation > 0:
            x = x + deviation * normal(x.shape, rng, x.device)
        x0_prev = x0
    return x


def guided(prior: nn.Module, embedding: Tensor, scale: float) -> Denoiser:
    """Wraps a prior into a denoiser with classifier-free guidance: x0 = null + scale (conditional - null).

    Both branches run in one batched call. The null branch keeps the noised tokens and drops only the embedding.

    Args:
        prior: (x, t, embedding, keep) -> x0, a `LatentPrior`.
        embedding: the condition [B, E].
        scale: 1 is the plain conditional prediction, 0 the unconditional one.
    """

    def conditional(x: Tensor, t: Tensor) -> Tensor:
        return prior(x, t, embedding)

    def unconditional(x: Tensor, t: Tensor) -> Tensor:
        return prior(x, t, embedding, torch.zeros(len(x), dtype=torch.bool, device=x.device))

    def both(x: Tensor, t: Tensor) -> Tensor:
        keep = torch.arange(2 * len(x), device=x.device) < len(x)
        doubled = prior(x.repeat(2, 1, 1), t.repeat(2), embedding.repeat(2, 1), keep)
        with_text, without = doubled.chunk(2)
        return without + scale * (with_text - without)

    return {1.0: conditional, 0.0: unconditional}.get(float(scale), both)
