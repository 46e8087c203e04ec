"""Sampling: its fields choose the table and guidance's options, and the defaults are eight DPM-Solver++ steps."""

import pytest
import torch

from clip2latent.guidance import guided
from clip2latent.sampling import SAMPLERS, Sampling
from clip2latent.schedule import SPACINGS, Schedule
from clip2latent.steps import ddim_steps, ddpm_steps, dpmpp_steps

SCHEDULE = Schedule.cosine(1000)


def same(table, expected):
    return all(torch.equal(column, other) for column, other in zip(table, expected, strict=True))


def test_the_default_is_eight_solver_steps_uniform_in_lambda():
    table = Sampling().table(SCHEDULE)
    assert same(table, dpmpp_steps(SCHEDULE, 8)) and same(table, Sampling(spacing="lambda").table(SCHEDULE))


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("sampler", [name for name in SAMPLERS if name != "clip2latent-skip"])
def test_every_sampler_takes_either_spacing(sampler, spacing):
    table = Sampling(sampler=sampler, steps=7, spacing=spacing).table(SCHEDULE)
    assert table.t.tolist() == SPACINGS[spacing](SCHEDULE, 7)
    assert same(table, SAMPLERS[sampler](SCHEDULE, table.t))


def test_eta_is_that_of_ddim():
    table = Sampling(sampler="ddim", steps=5, eta=0.5).table(SCHEDULE)
    assert same(table, ddim_steps(SCHEDULE, 5, eta=0.5))
    assert same(Sampling(sampler="ddpm", steps=5).table(SCHEDULE), ddpm_steps(SCHEDULE, 5))


def test_guidance_options_are_those_of_guided():
    options = Sampling().guidance_options()
    assert options == {key: value for key, value in guided.__kwdefaults__.items() if key != "negative"}
    chosen = {"guidance_rescale": 0.5, "guidance_interval": (10, 900), "guidance_limit": 3.0}
    assert Sampling(**chosen).guidance_options() == chosen


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"sampler": "euler"}, "sampler='euler': expected one of dpmpp, sde-dpmpp"),
        ({"spacing": "sigma"}, "spacing='sigma': expected one of t, lambda"),
        ({"spacing": "t", "sampler": "clip2latent-skip"}, "none for clip2latent-skip"),
        ({"eta": 0.5}, "eta=0.5: expected 0 to 1 for sampler ddim, and 0 for dpmpp"),
        ({"eta": 1.5, "sampler": "ddim"}, "eta=1.5"),
        ({"eta": float("nan"), "sampler": "ddim"}, "eta=nan"),
        ({"guidance_rescale": 2.0}, "guidance_rescale=2.0"),
        ({"guidance_interval": (5, 1)}, "guidance_interval"),
        ({"guidance_limit": -1.0}, "guidance_limit=-1.0"),
        ({"steps": 0}, "steps=0"),
    ],
)
def test_wrong_fields_are_refused(fields, said):
    with pytest.raises(ValueError, match=said):
        Sampling(**fields)


def test_more_steps_than_the_prior_has_are_refused():
    with pytest.raises(ValueError, match="steps=41: expected at most 40"):
        Sampling(steps=41).table(Schedule.cosine(40))
