"""Sampling: how candidates are drawn, checked when it is made."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from clip2latent.diffusion import (
    Schedule,
    Steps,
    clip2latent_skip_steps,
    ddim_steps,
    ddpm_steps,
    dpmpp_steps,
)

SAMPLERS: dict[str, Callable[[Schedule, int], Steps]] = {
    "dpmpp": dpmpp_steps,
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
        sampler: "dpmpp", "ddim" or "ddpm"; "clip2latent-skip" is the original's, to reproduce its results.
        truncation: 1 for the prior's own spread, towards 0 ever nearer to the mean latent.
        seed: any integer from 0.
        chunk: images made at once.
    """

    guidance: float | None = None
    steps: int = 8
    sampler: str = "dpmpp"
    truncation: float = 1.0
    seed: int = 0
    chunk: int = 64

    def __post_init__(self) -> None:
        check_at_least(1, steps=self.steps, chunk=self.chunk)
        check_at_least(0, seed=self.seed, truncation=self.truncation, guidance=self.guidance or 0)
        if self.sampler not in SAMPLERS:
            raise ValueError(f"sampler={self.sampler!r}: expected one of {', '.join(SAMPLERS)}")

    def table(self, schedule: Schedule) -> Steps:
        """Returns the sampler's table for a schedule; ValueError for more steps than it has."""
        if self.steps > schedule.timesteps:
            raise ValueError(f"steps={self.steps}: expected at most {schedule.timesteps}, the prior's timesteps")
        return SAMPLERS[self.sampler](schedule, self.steps)


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
