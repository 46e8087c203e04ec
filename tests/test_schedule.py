"""The schedule's tables are dalle2-pytorch's, and any number of timesteps can be kept, by either spacing."""

from itertools import pairwise
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from clip2latent.schedule import SPACINGS, Schedule, uniform_log_snr_times, uniform_times
from clip2latent.steps import ddpm_steps

GOLDEN = Path(__file__).parent / "golden" / "dalle2_noise_scheduler.safetensors"


def linear(timesteps: int) -> Schedule:
    """Ho et al. 2020's schedule, only to check the formulas on other numbers than the cosine's."""
    betas = torch.linspace(1e-4, 0.02, timesteps, dtype=torch.float64) * (1000 / timesteps)
    return Schedule(torch.cumprod(1 - betas, dim=0))


@pytest.mark.parametrize(
    ("case", "schedule"),
    [("cosine1000", Schedule.cosine(1000)), ("cosine40", Schedule.cosine(40)), ("linear1000", linear(1000))],
)
def test_tables_are_those_of_dalle2_pytorch(case, schedule):
    golden = {key.removeprefix(f"{case}."): value for key, value in load_file(GOLDEN).items() if key.startswith(case)}
    abar = schedule.alphas_cumprod
    assert abar.dtype == torch.float64
    abar_prev = torch.cat([abar.new_ones(1), abar[:-1]])
    steps = ddpm_steps(schedule, schedule.timesteps)
    assert all(column.dtype == torch.float64 for column in steps[1:])
    mean_xt, mean_x0, variance = steps.x.flip(0), steps.x0.flip(0), (steps.noise**2).flip(0)
    found = {
        "alphas_cumprod": abar,
        "alphas_cumprod_prev": abar_prev,
        "betas": 1 - abar / abar_prev,
        "sqrt_alphas_cumprod": abar.sqrt(),
        "sqrt_one_minus_alphas_cumprod": (1 - abar).sqrt(),
        "log_one_minus_alphas_cumprod": (1 - abar).log(),
        "sqrt_recip_alphas_cumprod": abar.rsqrt(),
        "sqrt_recipm1_alphas_cumprod": (-schedule.log_snr).exp(),
        "posterior_mean_coef1": mean_x0,
        "posterior_mean_coef2": mean_xt,
        "posterior_variance": variance,
        "posterior_log_variance_clipped": variance.clamp(min=1e-20).log(),
    }
    assert set(golden) - set(found) == {"p2_loss_weight"}  # 1 everywhere: its weight of the training loss is off
    for name, value in found.items():
        torch.testing.assert_close(value.float(), golden[name], rtol=2e-6, atol=1e-8, msg=lambda text, n=name: n + text)


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("timesteps", [1, 2, 13, 40])
def test_any_number_of_timesteps_can_be_kept(spacing, timesteps):
    schedule = Schedule.cosine(timesteps)
    for num in range(1, timesteps + 1):
        times = SPACINGS[spacing](schedule, num)
        assert len(times) == num and times[0] == timesteps - 1 and times[-1] >= 0
        assert all(later < earlier for earlier, later in pairwise(times))
    assert times == list(range(timesteps))[::-1]


@pytest.mark.parametrize("num", [-1, 0, 41])
@pytest.mark.parametrize("spacing", SPACINGS)
def test_impossible_numbers_are_refused(spacing, num):
    with pytest.raises(ValueError, match=rf"1\.\.40, got {num}"):
        SPACINGS[spacing](Schedule.cosine(40), num)


def test_spacings_are_uniform_in_what_they_say():
    schedule = Schedule.cosine(1000)
    assert uniform_times(schedule, 8) == [999, 874, 749, 624, 499, 374, 249, 124]
    gaps = schedule.log_snr[uniform_log_snr_times(schedule, 8)[1:]].diff()
    assert (gaps - gaps.mean()).abs().max() < 0.3


def test_a_schedule_has_timesteps():
    with pytest.raises(ValueError, match="at least 1, got 0"):
        Schedule.cosine(0)
