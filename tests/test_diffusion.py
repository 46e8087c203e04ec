"""The loop: what it draws agrees with the exact moments, and a row depends on its own generator alone."""

import pytest
import torch
from test_steps import BUILDERS, SCHEDULE, gaussian_moments

from clip2latent.diffusion import ddpm_steps, normal, row_generators, sample


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


def test_one_generator_for_each_row_or_one_for_all():
    with pytest.raises(ValueError, match="each of the 3 rows, got 2"):
        normal((3, 4), row_generators(0, 1, 2))


def test_a_single_step_is_the_prediction_from_noise():
    x = torch.randn(3, 2, 5, generator=torch.Generator().manual_seed(0))
    for build in BUILDERS:
        found = sample(lambda x, t: torch.tanh(x) + t[:, None, None], x, build(SCHEDULE, 1), row_generators(0, 1, 3))
        torch.testing.assert_close(found, torch.tanh(x) + 999)
