"""Sampling: how candidates are drawn, checked when it is made."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from clip2latent.guidance import check_guidance
from clip2latent.schedule import SPACINGS, Schedule
from clip2latent.steps import (
    Steps,
    clip2latent_skip_steps,
    ddim_steps,
    ddpm_steps,
    dpmpp_steps,
    sde_dpmpp_steps,
)

SAMPLERS: dict[str, Callable[..., Steps]] = {
    "dpmpp": dpmpp_steps,
    "sde-dpmpp": sde_dpmpp_steps,
    "ddim": ddim_steps,
    "ddpm": ddpm_steps,
    "clip2latent-skip": clip2latent_skip_steps,
}


@dataclass(frozen=True)
class Sampling:
    """How candidates are drawn.

    Attributes:
        guidance: classifier-free guidance; 1 is none; None for what the checkpoint recommends.
        steps: sampling steps, 1 to the T of training.
        sampler: "dpmpp", "sde-dpmpp", "ddim" or "ddpm"; "clip2latent-skip" is the original's, to reproduce its results.
        truncation: 1 for the prior's own spread, towards 0 ever nearer to the mean latent.
        seed: any integer from 0.
        chunk: images made at once.
        spacing: which timesteps are kept, "t" (uniform in t) or "lambda" (uniform in the log of the signal-to-noise
            ratio); None for the sampler's own: lambda for dpmpp and sde-dpmpp, t for ddim and ddpm.
        eta: fresh noise of ddim, from 0, deterministic, to 1, which is ddpm.
        guidance_rescale: 0, off, to 1; this and the following hold large guidance back, see `guidance.extrapolate`.
        guidance_interval: the timesteps (low, high) between which guidance acts; None for all.
        guidance_limit: how far guidance may carry a channel, in standard deviations of the data; None for any distance.
    """

    guidance: float | None = None
    steps: int = 8
    sampler: str = "dpmpp"
    truncation: float = 1.0
    seed: int = 0
    chunk: int = 64
    spacing: str | None = None
    eta: float = 0.0
    guidance_rescale: float = 0.0
    guidance_interval: tuple[int, int] | None = None
    guidance_limit: float | None = None

    def __post_init__(self) -> None:
        check_at_least(1, steps=self.steps, chunk=self.chunk)
        check_at_least(0, seed=self.seed, truncation=self.truncation, guidance=self.guidance or 0)
        if self.sampler not in SAMPLERS:
            raise ValueError(f"sampler={self.sampler!r}: expected one of {', '.join(SAMPLERS)}")
        if self.spacing is not None and (self.spacing not in SPACINGS or self.sampler == "clip2latent-skip"):
            raise ValueError(
                f"spacing={self.spacing!r}: expected one of {', '.join(SPACINGS)}, and none for clip2latent-skip,"
                " which has its own"
            )
        if self.eta and (not 0 <= self.eta <= 1 or self.sampler != "ddim"):
            raise ValueError(f"eta={self.eta}: expected 0 to 1 for sampler ddim, and 0 for {self.sampler}")
        check_guidance(**self.guidance_options())

    def guidance_options(self) -> dict[str, Any]:
        """Returns the options of `guided` beside its scale."""
        names = ("guidance_rescale", "guidance_interval", "guidance_limit")
        return {name: getattr(self, name) for name in names}

    def table(self, schedule: Schedule) -> Steps:
        """Returns the sampler's table for a schedule; ValueError for more steps than it has."""
        if self.steps > schedule.timesteps:
            raise ValueError(f"steps={self.steps}: expected at most {schedule.timesteps}, the prior's timesteps")
        times = self.steps if self.spacing is None else SPACINGS[self.spacing](schedule, self.steps)
        if self.eta:
            return ddim_steps(schedule, times, self.eta)
        return SAMPLERS[self.sampler](schedule, times)


def count_candidates(num: int, candidates: int | None = None) -> int:
    """Returns how many candidates to draw to keep `num`: those asked for, or 16, or `num` where that is more."""
    check_at_least(1, num=num)
    candidates = max(16, num) if candidates is None else candidates
    if candidates < num:
        raise ValueError(f"candidates={candidates}: expected at least num={num}, the images to keep of them")
    return candidates


def check_at_least(least: int, **values: float) -> None:
    """Raises ValueError, naming the first value that is under `least`, infinite or not a number."""
    for name, value in values.items():
        if not least <= value < float("inf"):
            raise ValueError(f"{name}={value}: expected a number from {least}")
