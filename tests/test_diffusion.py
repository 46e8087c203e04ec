from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from clip2latent.diffusion import (
    Schedule,
    Steps,
    ddim_steps,
    ddpm_steps,
    dpmpp_steps,
    guided,
    normal,
    row_generators,
    sample,
    uniform_log_snr_times,
    uniform_times,
)

GOLDEN = Path(__file__).parent / "golden"
SCHEDULE = Schedule.cosine(1000)


def eta_half(schedule, times):
    return ddim_steps(schedule, times, eta=0.5)


BUILDERS = [ddpm_steps, ddim_steps, eta_half, dpmpp_steps]


def gaussian_moments(steps: Steps, variance: float) -> tuple[float, float]:
    """Follows x ~ N(0, 1) through a table exactly when the data are N(1, variance): mean error and std ratio, in std.

    The ideal x0 is E[x0 | x_t] = mean + gain (x_t - a mean), so state and prediction stay jointly Gaussian.
    """
    abar = SCHEDULE.alphas_cumprod[steps.t]
    gain = abar.sqrt() * variance / (abar * variance + 1 - abar)
    mean, mean_prev = 0.0, 0.0
    state, prev, cross = 1.0, 0.0, 0.0  # Var x, Var x0_prev, Cov(x, x0_prev)
    for i in range(len(abar)):
        a, b, c, s = (float(column[i]) for column in (steps.x, steps.x0, steps.x0_prev, steps.noise))
        g = float(gain[i])
        prediction = 1 + g * (mean - float(abar[i].sqrt()))
        weight = a + b * g
        next_state = weight**2 * state + c**2 * prev + 2 * weight * c * cross + s**2
        cross = weight * g * state + c * g * cross
        prev = g**2 * state
        mean = a * mean + b * prediction + c * mean_prev
        mean_prev, state = prediction, next_state
    return (mean - 1) / variance**0.5, (state / variance) ** 0.5


@pytest.mark.parametrize("timesteps", [1000, 40])
def test_schedule_is_that_of_dalle2_pytorch(timesteps):
    golden = load_file(GOLDEN / "dalle2_noise_scheduler.safetensors")
    schedule = Schedule.cosine(timesteps)
    assert schedule.alphas_cumprod.dtype == torch.float64
    prefix = f"cosine{timesteps}."
    torch.testing.assert_close(schedule.alphas_cumprod.float(), golden[prefix + "alphas_cumprod"])
    steps = ddpm_steps(schedule, timesteps)
    for column, name in (("x", "posterior_mean_coef2"), ("x0", "posterior_mean_coef1")):
        torch.testing.assert_close(getattr(steps, column).flip(0).float(), golden[prefix + name])
    variance = (steps.noise**2).flip(0).float()
    torch.testing.assert_close(variance, golden[prefix + "posterior_variance"])


@pytest.mark.parametrize("num", [10, 20])
@pytest.mark.parametrize(
    ("run", "build"),
    [
        ("ddpm_leading", ddpm_steps),
        ("ddpm_trailing", ddpm_steps),
        ("ddim_leading_eta0.0", ddim_steps),
        ("ddim_trailing_eta0.0", ddim_steps),
        ("ddim_leading_eta1.0", lambda schedule, times: ddim_steps(schedule, times, eta=1.0)),
        ("ddim_trailing_eta1.0", lambda schedule, times: ddim_steps(schedule, times, eta=1.0)),
        ("dpmpp2m_midpoint_linspace", dpmpp_steps),
        ("dpmpp2m_midpoint_trailing", dpmpp_steps),
    ],
)
def test_samplers_are_those_of_diffusers(run, build, num):
    golden = load_file(GOLDEN / "diffusers_samplers.safetensors")
    matrix, by_time, offset = (golden[f"toy.{name}"].double() for name in "Abc")
    times = golden[f"{run}_{num}.timesteps"].tolist()
    if "trailing" in run and "dpmpp" not in run:
        assert uniform_times(SCHEDULE, num) == times
    steps = build(SCHEDULE, times)
    x, x0_prev = golden["init"].double(), 0
    for i, expected in enumerate(golden[f"{run}_{num}.x"]):
        x0 = torch.tanh(x @ matrix.T + by_time * (times[i] / 1000) + offset)
        x = steps.x[i] * x + steps.x0[i] * x0 + steps.x0_prev[i] * x0_prev + steps.noise[i] * golden["noise"][i]
        x0_prev = x0
        torch.testing.assert_close(x.float(), expected, rtol=0, atol=2e-4)


@pytest.mark.parametrize("num", [1, 2, 7, 50, 1000])
def test_eta_one_is_ddpm(num):
    for ddim, ddpm in zip(ddim_steps(SCHEDULE, num, eta=1.0), ddpm_steps(SCHEDULE, num), strict=True):
        torch.testing.assert_close(ddim, ddpm, rtol=0, atol=1e-9)


@pytest.mark.parametrize("build", BUILDERS)
@pytest.mark.parametrize("num", [1, 2, 3, 8, 999, 1000])
def test_tables_start_at_the_last_timestep_and_return_x0(build, num):
    steps = build(SCHEDULE, num)
    assert all(column.shape == (num,) and column.isfinite().all() for column in steps)
    assert steps.t[0] == 999 and (steps.t[1:] < steps.t[:-1]).all()
    assert [float(column[-1]) for column in steps[1:]] == pytest.approx([0, 1, 0, 0], abs=1e-12)


@pytest.mark.parametrize("build", BUILDERS)
@pytest.mark.parametrize("variance", [1.0, 0.5, 0.2, 0.05])
def test_full_chain_reproduces_a_gaussian(build, variance):
    bias, ratio = gaussian_moments(build(SCHEDULE, 1000), variance)
    assert abs(bias) < 1e-3
    assert ratio == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize("variance", [1.0, 0.5, 0.2, 0.05])
def test_eight_solver_steps_reproduce_a_gaussian(variance):
    bias, ratio = gaussian_moments(dpmpp_steps(SCHEDULE, 8), variance)
    assert abs(bias) < 0.02
    assert ratio == pytest.approx(1, abs=0.05)


def test_sampling_a_gaussian_agrees_with_its_moments():
    variance, steps = 0.5, ddpm_steps(SCHEDULE, 10)

    def ideal(x, t):
        abar = SCHEDULE.alphas_cumprod[t][:, None, None].float()
        return 1 + abar.sqrt() * variance / (abar * variance + 1 - abar) * (x - abar.sqrt())

    rng = torch.Generator().manual_seed(0)
    samples = sample(ideal, normal((20_000, 1, 2), rng), steps, rng)
    bias, ratio = gaussian_moments(steps, variance)
    assert samples.mean().item() == pytest.approx(1 + bias * variance**0.5, abs=0.02)
    assert samples.std().item() == pytest.approx(ratio * variance**0.5, abs=0.02)


@pytest.mark.parametrize("build", BUILDERS)
def test_a_row_depends_on_seed_prompt_and_candidate_only(build):
    steps = build(SCHEDULE, 6)

    def draw(prompts, images):
        rows = row_generators(3, prompts, images)
        x = normal((len(rows), 2, 5), rows)
        return sample(lambda x, t: torch.tanh(x), x, steps, rows).unflatten(0, (prompts, images))

    many, few = draw(3, 4), draw(2, 2)
    assert torch.equal(many[:2, :2], few)
    assert len(many.flatten(0, 1).unique(dim=0)) == 12
    assert torch.equal(draw(3, 4), many)


@pytest.mark.parametrize("num", [0, -1, 1001])
@pytest.mark.parametrize("build", BUILDERS)
def test_impossible_numbers_of_steps_are_refused(build, num):
    with pytest.raises(ValueError, match=rf"1\.\.1000, got {num}"):
        build(SCHEDULE, num)


def test_wrong_arguments_are_refused():
    with pytest.raises(ValueError, match="decreasing"):
        ddpm_steps(SCHEDULE, [5, 5, 0])
    with pytest.raises(ValueError, match="eta"):
        ddim_steps(SCHEDULE, 5, eta=1.5)
    with pytest.raises(ValueError, match="each of the 3 rows, got 2"):
        normal((3, 4), row_generators(0, 1, 2))


def test_log_snr_times_are_uniform():
    times = uniform_log_snr_times(SCHEDULE, 8)
    gaps = SCHEDULE.log_snr[times[1:]].diff()
    assert (gaps - gaps.mean()).abs().max() < 0.3


class LinearPrior(torch.nn.Module):
    """Counts its calls; the null branch is x alone."""

    calls = 0

    def forward(self, x, t, embedding, keep=None):
        self.calls += 1
        text = embedding if keep is None else embedding * keep[:, None]
        return 0.5 * x + text[:, None] + 0.001 * t[:, None, None]


@pytest.mark.parametrize("scale", [0.0, 1.0, 2.0, 3.5])
def test_guidance_is_one_call_and_extrapolates_from_the_null_branch(scale):
    prior = LinearPrior()
    x, t, embedding = torch.randn(3, 2, 4), torch.tensor([5, 6, 7]), torch.randn(3, 4)
    out = guided(prior, embedding, scale)(x, t)
    assert prior.calls == 1
    plain = prior(x, t, embedding)
    null = prior(x, t, embedding, torch.zeros(3, dtype=torch.bool))
    torch.testing.assert_close(out, null + scale * (plain - null))
    if scale in (0.0, 1.0):
        assert torch.equal(out, plain if scale else null)
