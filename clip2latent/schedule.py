"""Schedule: how much noise each timestep holds, and which timesteps a sampler keeps.

abar is the cumulative alpha, a = sqrt(abar), s = sqrt(1 - abar), lambda = log(a / s). All of it is float64.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


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


def uniform_times(schedule: Schedule, num: int) -> list[int]:
    """Returns `num` timesteps from T-1 downwards, uniform in t; each step covers the same number of timesteps.

    Raises:
        ValueError: unless `num` is in 1..T.
    """
    check_num_steps(schedule, num)
    return [round(schedule.timesteps * (num - index) / num) - 1 for index in range(num)]


def uniform_log_snr_times(schedule: Schedule, num: int, low: float = -2.5, high: float = 5.5) -> list[int]:
    """Returns `num` distinct timesteps from T-1 downwards, the others nearest to lambda uniform in [low, high].

    The range keeps out the ends of the cosine schedule, where lambda runs away and little is decided; beginning lower
    than here, eight steps of a trained prior spread further than a thousand ancestral ones. The first timestep stays
    T-1, the only one at which pure noise is the right state to start from. Where several targets are nearest to one
    timestep, the next lower ones are taken, so that any number up to T is possible.
    Source: the step size schedule of Lu et al. 2022, "DPM-Solver" (arXiv:2206.00927), between these ends.

    Raises:
        ValueError: unless `num` is in 1..T.
    """
    check_num_steps(schedule, num)
    log_snr = schedule.log_snr
    targets = torch.linspace(low, high, num, dtype=torch.float64)
    times = [schedule.timesteps - 1]
    for index in range(1, num):
        nearest = int((log_snr - targets[index]).abs().argmin())
        times.append(max(min(nearest, times[-1] - 1), num - 1 - index))
    return times


SPACINGS: dict[str, Callable[[Schedule, int], list[int]]] = {"t": uniform_times, "lambda": uniform_log_snr_times}


def check_num_steps(schedule: Schedule, num: int) -> None:
    """Raises ValueError unless `num` is in 1..T."""
    if not 1 <= num <= schedule.timesteps:
        raise ValueError(f"the number of sampling steps must be in 1..{schedule.timesteps}, got {num}")
