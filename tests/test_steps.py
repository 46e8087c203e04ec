"""Samplers: diffusers' recorded chains, exact laws between the tables, and Gaussian data as an oracle."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from clip2latent.schedule import SPACINGS, Schedule
from clip2latent.steps import Steps, ddim_steps, ddpm_steps, dpmpp_steps, sde_dpmpp_steps

GOLDEN = Path(__file__).parent / "golden" / "diffusers_samplers.safetensors"
SCHEDULE = Schedule.cosine(1000)
VARIANCES = [1.0, 0.5, 0.2, 0.05]


def eta_half_steps(schedule, times):
    return ddim_steps(schedule, times, eta=0.5)


def eta_one_steps(schedule, times):
    return ddim_steps(schedule, times, eta=1.0)


BUILDERS = [ddpm_steps, ddim_steps, eta_half_steps, dpmpp_steps, sde_dpmpp_steps]


def heun_steps(schedule, times):
    """DPM-Solver++(2M) in diffusers' "heun" form: the same rows, another weight of the correction."""
    steps = dpmpp_steps(schedule, times)
    h = torch.cat([schedule.log_snr[steps.t].diff(), torch.tensor([torch.inf])])
    x0_prev = steps.x0_prev * 2 * (1 / -torch.expm1(-h) - 1 / h)
    return steps._replace(x0=steps.x0 + steps.x0_prev - x0_prev, x0_prev=x0_prev)


def fixed_distance(build):
    """diffusers' DDIM aims T // S timesteps below the current one, even where the list's next entry is not."""

    def rows(schedule, times):
        distance = schedule.timesteps // len(times)
        tables = [build(schedule, [t, t - distance] if t >= distance else [t]) for t in times]
        return Steps(*(torch.stack([table[column][0] for table in tables]) for column in range(5)))

    return rows


RUNS = {
    "ddpm_leading": ddpm_steps,
    "ddpm_trailing": ddpm_steps,
    "ddpm_linspace": ddpm_steps,
    "ddim_leading_eta0.0": ddim_steps,
    "ddim_trailing_eta0.0": ddim_steps,
    "ddim_linspace_eta0.0": fixed_distance(ddim_steps),
    "ddim_leading_eta1.0": eta_one_steps,
    "ddim_trailing_eta1.0": eta_one_steps,
    "ddim_linspace_eta1.0": fixed_distance(eta_one_steps),
    "dpmpp1_linspace": ddim_steps,  # the first-order solver is DDIM
    "dpmpp2m_midpoint_linspace": dpmpp_steps,
    "dpmpp2m_midpoint_trailing": dpmpp_steps,
    "dpmpp2m_heun_linspace": heun_steps,
    "dpmpp2m_heun_trailing": heun_steps,
    "dpmpp2m_sde_linspace": sde_dpmpp_steps,
    "unipc2_bh2_linspace": dpmpp_steps,  # its predictor; its corrector is `unipc_correction`
}


def unipc_correction(schedule, times, i, y, x0s):
    """UniPC's corrected state at step i from that at step i - 1 (Zhao et al. 2023, order 2, B(h) = e^h - 1)."""
    abar, lam = schedule.alphas_cumprod[times], schedule.log_snr[times]
    a, s = abar.sqrt(), (1 - abar).sqrt()
    h = lam[i] - lam[i - 1]
    phi = torch.expm1(-h)
    slope = 0.5 * (x0s[i] - x0s[i - 1])
    if i > 1:
        ratio = ((lam[i - 2] - lam[i - 1]) / h).item()
        g1 = ((phi / -h - 1) / phi).item()
        g2 = (2 * ((phi / -h - 1) / -h - 0.5) / phi).item()
        before, now = (g1 - g2) / (1 - ratio), (g2 - ratio * g1) / (1 - ratio)
        slope = before / ratio * (x0s[i - 2] - x0s[i - 1]) + now * (x0s[i] - x0s[i - 1])
    return s[i] / s[i - 1] * y - a[i] * phi * (x0s[i - 1] + slope)


def largest_difference(run: str, num: int) -> float:
    """Of states and predictions of a recorded chain, over all its steps."""
    golden = load_file(GOLDEN)
    matrix, by_time, offset = (golden[f"toy.{name}"].double() for name in "Abc")
    times = golden[f"{run}_{num}.timesteps"].tolist()
    steps = RUNS[run](SCHEDULE, times)
    assert steps.t.tolist() == times
    x = y = golden["init"].double()
    x0s, worst = [], 0.0
    for i in range(num):
        x0s.append(torch.tanh(x @ matrix.T + by_time * (times[i] / 1000) + offset))
        if run.startswith("unipc") and i:
            x = unipc_correction(SCHEDULE, times, i, y, x0s)
        y = x
        x = steps.x[i] * x + steps.x0[i] * x0s[i] + steps.noise[i] * golden["noise"][i]
        if i:
            x = x + steps.x0_prev[i] * x0s[i - 1]
        for found, name in ((x, "x"), (x0s[i], "x0")):
            worst = max(worst, (found - golden[f"{run}_{num}.{name}"][i]).abs().max().item())
    return worst


@pytest.mark.parametrize("num", [10, 20])
@pytest.mark.parametrize("run", RUNS)
def test_chains_are_those_of_diffusers(run, num):
    """Up to its float32: 1e-5 in abar, more where eta 1 from T-1 leaves the root of a difference of near equals."""
    from_the_top = run in ("ddim_trailing_eta1.0", "ddim_linspace_eta1.0")
    assert largest_difference(run, num) < (2e-4 if from_the_top else 1e-5)


def test_every_recorded_chain_is_checked():
    recorded = {key.rpartition("_")[0] for key in load_file(GOLDEN) if key.endswith(".timesteps")}
    assert recorded == set(RUNS)


@pytest.mark.parametrize("num", [1, 2, 7, 50, 1000])
@pytest.mark.parametrize("spacing", SPACINGS)
def test_eta_one_is_ddpm(num, spacing):
    times = SPACINGS[spacing](SCHEDULE, num)
    for ddim, ddpm in zip(eta_one_steps(SCHEDULE, times), ddpm_steps(SCHEDULE, times), strict=True):
        torch.testing.assert_close(ddim, ddpm, rtol=0, atol=1e-9)


@pytest.mark.parametrize("times", [[999], [999, 400], [700, 0]])
def test_the_solvers_first_order_is_ddpm_and_ddim(times):
    """Two steps leave no room for a correction: the first has no earlier prediction, the last returns x0."""
    for solver, first_order in ((sde_dpmpp_steps, ddpm_steps), (dpmpp_steps, ddim_steps)):
        for column, expected in zip(solver(SCHEDULE, times), first_order(SCHEDULE, times), strict=True):
            torch.testing.assert_close(column, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("spacing", [None, *SPACINGS])
@pytest.mark.parametrize("build", BUILDERS)
@pytest.mark.parametrize("num", [1, 2, 3, 8, 250, 999, 1000])
def test_tables_start_at_the_last_timestep_and_return_x0(build, spacing, num):
    steps = build(SCHEDULE, SPACINGS[spacing](SCHEDULE, num) if spacing else num)
    assert all(column.shape == (num,) and column.isfinite().all() for column in steps)
    assert all(column.dtype == torch.float64 for column in steps[1:])
    assert steps.t[0] == 999 and (steps.t[1:] < steps.t[:-1]).all()
    assert [float(column[-1]) for column in steps[1:]] == pytest.approx([0, 1, 0, 0], abs=1e-12)


@pytest.mark.parametrize("build", BUILDERS)
@pytest.mark.parametrize("timesteps", [1, 2, 13])
def test_any_number_of_steps(build, timesteps):
    schedule = Schedule.cosine(timesteps)
    for num in range(1, timesteps + 1):
        for times in (num, *(spacing(schedule, num) for spacing in SPACINGS.values())):
            steps = build(schedule, times)
            assert len(steps.t) == num and all(column.isfinite().all() for column in steps)


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


def gaussian_moments(steps: Steps, variance: float) -> tuple[float, float]:
    """Follows x ~ N(0, 1) through a table exactly when the data are N(1, variance): mean error and std ratio, in std.

    The ideal x0 is E[x0 | x_t] = mean + gain (x_t - a mean), so state and prediction stay jointly Gaussian.
    """
    abar = SCHEDULE.alphas_cumprod[steps.t]
    gain = abar.sqrt() * variance / (abar * variance + 1 - abar)
    mean, mean_prev = 0.0, 0.0
    state, prev, cross = 1.0, 0.0, 0.0  # Var x, Var x0_prev, Cov(x, x0_prev)
    columns = (column.tolist() for column in (*steps[1:], gain, abar.sqrt()))
    for a, b, c, s, g, root in zip(*columns, strict=True):
        prediction = 1 + g * (mean - root)
        weight = a + b * g
        next_state = weight**2 * state + c**2 * prev + 2 * weight * c * cross + s**2
        cross = weight * g * state + c * g * cross
        prev = g**2 * state
        mean = a * mean + b * prediction + c * mean_prev
        mean_prev, state = prediction, next_state
    return (mean - 1) / variance**0.5, (state / variance) ** 0.5


@pytest.mark.parametrize("build", BUILDERS)
@pytest.mark.parametrize("variance", VARIANCES)
def test_full_chain_reproduces_a_gaussian(build, variance):
    bias, ratio = gaussian_moments(build(SCHEDULE, 1000), variance)
    assert abs(bias) < 1e-3
    assert ratio == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize("variance", VARIANCES)
@pytest.mark.parametrize(("build", "num", "tolerance"), [(dpmpp_steps, 8, 0.025), (sde_dpmpp_steps, 16, 0.05)])
def test_few_solver_steps_reproduce_a_gaussian(build, num, tolerance, variance):
    bias, ratio = gaussian_moments(build(SCHEDULE, num), variance)
    assert abs(bias) < 0.02
    assert ratio == pytest.approx(1, abs=tolerance)


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("build", BUILDERS)
def test_more_steps_come_nearer_to_a_gaussian(build, spacing):
    few, more, many = (
        max(abs(gaussian_moments(build(SCHEDULE, SPACINGS[spacing](SCHEDULE, num)), v)[1] - 1) for v in VARIANCES)
        for num in (4, 16, 250)
    )
    assert few > more > many and many < 0.035
