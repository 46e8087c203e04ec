"""Steps: samplers as tables of coefficients, one builder for each sampler.

Every sampler with one evaluation per step is a table of rows x <- A x + B x0 + C x0_prev + S eps, so that one loop runs
them all. In the formulas abar is the kept timestep's cumulative alpha and abar' the next kept one's (1 after the last),
a = sqrt(abar), s = sqrt(1 - abar), lambda = log(a / s), h the step in lambda. No formula divides by a' or s', so the
noiseless end needs no special case: the last row of every table returns x0. Tables are float64.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from clip2latent.schedule import Schedule, check_num_steps, uniform_log_snr_times, uniform_times


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


def dpmpp_steps(schedule: Schedule, times: int | Sequence[int]) -> Steps:
    """Returns DPM-Solver++(2M) (Lu et al. 2022, arXiv:2211.01095, algorithm 2), deterministic, accurate in few steps.

    Args:
        schedule: the training schedule.
        times: the number of steps S in 1..T, spaced uniformly in lambda, or the decreasing timesteps themselves.
    """
    t, abar, abar_next = _kept(schedule, uniform_log_snr_times(schedule, times) if isinstance(times, int) else times)
    decay = _decay(abar, abar_next)
    correction = _correction(decay)
    x = (1 - abar_next).sqrt() / (1 - abar).sqrt()
    weight = abar_next.sqrt() * (1 - decay)
    return Steps(t, x, weight * (1 + correction), -weight * correction, torch.zeros_like(x))


def sde_dpmpp_steps(schedule: Schedule, times: int | Sequence[int]) -> Steps:
    """Returns SDE-DPM-Solver++(2M) (Lu et al. 2022, arXiv:2211.01095, the section on diffusion SDEs; midpoint).

    It solves the stochastic equation of which `ddpm_steps` is the first-order solution, with the correction of
    `dpmpp_steps`: fresh noise at every step forgets the errors of earlier ones.

    Args:
        schedule: the training schedule.
        times: the number of steps S in 1..T, spaced uniformly in lambda, or the decreasing timesteps themselves.
    """
    t, abar, abar_next = _kept(schedule, uniform_log_snr_times(schedule, times) if isinstance(times, int) else times)
    decay = _decay(abar, abar_next)
    correction = _correction(decay)
    x = (1 - abar_next).sqrt() / (1 - abar).sqrt() * decay
    weight = abar_next.sqrt() * (1 - decay**2)
    noise = ((1 - abar_next) * (1 - decay**2)).sqrt()
    return Steps(t, x, weight * (1 + correction), -weight * correction, noise)


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
    check_num_steps(schedule, num)
    if schedule.timesteps % num:
        divisors = [number for number in range(1, schedule.timesteps + 1) if schedule.timesteps % number == 0]
        raise ValueError(f"clip2latent-skip takes as many steps as divide {schedule.timesteps}: {divisors}, got {num}")
    skip = schedule.timesteps // num
    steps = ddpm_steps(schedule, range(schedule.timesteps - skip, -1, -skip))
    return steps._replace(noise=ddpm_steps(schedule, schedule.timesteps).noise.flip(0)[steps.t])


def _kept(schedule: Schedule, times: Sequence[int]) -> tuple[Tensor, Tensor, Tensor]:
    """Returns the kept timesteps [S], their abar [S], and the next kept ones' abar' [S] (1 after the last)."""
    t = torch.as_tensor(times, dtype=torch.int64)
    if not len(t) or t[0] >= schedule.timesteps or t[-1] < 0 or (t[1:] >= t[:-1]).any():
        raise ValueError(f"times must be decreasing and in 0..{schedule.timesteps - 1}, got {t.tolist()}")
    abar = schedule.alphas_cumprod[t]
    return t, abar, torch.cat([abar[1:], abar.new_ones(1)])


def _decay(abar: Tensor, abar_next: Tensor) -> Tensor:
    """Returns exp(-h) [S] = s' a / (a' s), 0 at the end."""
    return (1 - abar_next).sqrt() * abar.sqrt() / (abar_next.sqrt() * (1 - abar).sqrt())


def _correction(decay: Tensor) -> Tensor:
    """Returns h / (2 h_prev) [S]: how far the line through the last two predictions is followed.

    The first step has no earlier prediction, and the last one (h infinite) returns x0: both are first order.
    """
    step = -decay.log()
    correction = torch.zeros_like(step)
    correction[1:-1] = step[1:-1] / (2 * step[:-2])
    return correction
