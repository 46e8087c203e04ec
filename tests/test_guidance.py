"""Guidance: one call of the prior; 1 is plain and 0 unconditional; the options hold back what goes beyond 1."""

import pytest
import torch

from clip2latent.guidance import extrapolate, guided
from clip2latent.prior import LatentPrior

OPTIONS = {"guidance_rescale": 0.7, "guidance_interval": (100, 900), "guidance_limit": 2.0}
LARGE = {"scale": 6.0, "t": torch.tensor([5, 500, 950])}


class LinearPrior(torch.nn.Module):
    """Counts its calls; the null branch is x alone."""

    calls = 0

    def forward(self, x, t, embedding, keep=None):
        self.calls += 1
        text = embedding if keep is None else embedding * keep[:, None]
        return 0.5 * x + text[:, None] + 0.001 * t[:, None, None]


def inputs():
    rng = torch.Generator().manual_seed(0)
    x, embedding, negative = (torch.randn(3, *shape, generator=rng) for shape in ((2, 4), (4,), (4,)))
    return x, LARGE["t"], embedding, negative


def branches():
    rng = torch.Generator().manual_seed(1)
    return tuple(torch.randn(3, 2, 40, generator=rng) for _ in range(2))


@pytest.mark.parametrize("negated", [False, True])
@pytest.mark.parametrize("options", [{}, OPTIONS])
@pytest.mark.parametrize("scale", [0.0, 0.5, 1.0, 2.0, 3.5])
def test_guidance_is_one_call_and_extrapolates_from_the_null_branch(scale, options, negated):
    prior = LinearPrior()
    x, t, embedding, negative = inputs()
    out = guided(prior, embedding, scale, negative=negative if negated else None, **options)(x, t)
    assert prior.calls == 1
    plain = prior(x, t, embedding)
    null = prior(x, t, negative) if negated else prior(x, t, embedding, torch.zeros(3, dtype=torch.bool))
    torch.testing.assert_close(out, extrapolate(plain, null, t, scale, **options))
    if scale <= 1 or not options:
        torch.testing.assert_close(out, null + scale * (plain - null))
    if scale in (0.0, 1.0):
        assert torch.equal(out, plain if scale else null)


@pytest.mark.parametrize("option", OPTIONS)
def test_each_option_joins_plain_guidance_at_scale_one(option):
    conditional, null = branches()
    t, options = LARGE["t"], {option: OPTIONS[option]}
    torch.testing.assert_close(extrapolate(conditional, null, t, 1 + 1e-6, **options), conditional, rtol=0, atol=1e-4)
    assert not torch.equal(extrapolate(conditional, null, **LARGE, **options), extrapolate(conditional, null, **LARGE))


@pytest.mark.parametrize("options", [{}, OPTIONS])
def test_a_row_does_not_depend_on_the_others(options):
    torch.manual_seed(0)
    prior = LatentPrior(embedding_dim=4, latent_dim=4, num_tokens=2, dim=16, depth=1, heads=2, dim_head=8).eval()
    x, t, embedding, negative = inputs()
    whole = guided(prior, embedding, 3.0, negative=negative, **options)(x, t)
    for row in range(3):
        one = slice(row, row + 1)
        alone = guided(prior, embedding[one], 3.0, negative=negative[one], **options)(x[one], t[one])
        torch.testing.assert_close(alone, whole[one], rtol=0, atol=1e-5)


def test_the_negative_takes_the_null_branchs_place():
    """Away from itself nothing moves, and the other way round the two swap."""
    prior, (x, t, embedding, negative) = LinearPrior(), inputs()
    torch.testing.assert_close(guided(prior, embedding, 3.0, negative=embedding)(x, t), prior(x, t, embedding))
    torch.testing.assert_close(
        guided(prior, embedding, 0.25, negative=negative)(x, t), guided(prior, negative, 0.75, negative=embedding)(x, t)
    )


def test_rescale_gives_the_conditional_deviation_back():
    conditional, null = branches()
    plain = extrapolate(conditional, null, **LARGE)
    whole, part = (extrapolate(conditional, null, **LARGE, guidance_rescale=phi) for phi in (1.0, 0.7))
    torch.testing.assert_close(whole.std(dim=(1, 2)), conditional.std(dim=(1, 2)))
    torch.testing.assert_close(part, 0.7 * whole + 0.3 * plain)
    assert (plain.std(dim=(1, 2)) > 2 * conditional.std(dim=(1, 2))).all()


def test_outside_the_interval_guidance_is_off():
    conditional, null = branches()
    found = extrapolate(conditional, null, **LARGE, guidance_interval=(5, 500))
    plain = extrapolate(conditional, null, **LARGE)
    assert torch.equal(found[:2], plain[:2])  # both bounds belong to it
    assert torch.equal(found[2], conditional[2])


def test_the_limit_holds_each_channel_where_the_branches_are_at_most():
    conditional, null = branches()
    plain, found = extrapolate(conditional, null, **LARGE), extrapolate(conditional, null, **LARGE, guidance_limit=2.0)
    inside = plain.abs() <= 2
    assert torch.equal(found[inside], plain[inside])
    bound = torch.maximum(conditional.abs(), null.abs()).clamp(min=2)
    assert (found.abs() <= bound).all() and torch.equal(found[~inside].sign(), plain[~inside].sign())
    assert (plain.abs() > 3 * bound).any() and (found.abs() > 2).any()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"guidance_rescale": 1.5}, "guidance_rescale=1.5: expected 0"),
        ({"guidance_rescale": float("nan")}, "guidance_rescale=nan"),
        ({"guidance_interval": (900, 100)}, "guidance_interval=\\(900, 100\\): expected two timesteps"),
        ({"guidance_interval": (1, 2, 3)}, "expected two timesteps"),
        ({"guidance_interval": (0.1, 0.9)}, "expected two timesteps"),
        ({"guidance_limit": 0.0}, "guidance_limit=0.0: expected a positive number"),
        ({"guidance_limit": float("nan")}, "guidance_limit=nan"),
        ({"negative": torch.zeros(1, 4)}, r"shape \(3, 4\), got \(1, 4\): repeat"),
    ],
)
def test_wrong_options_are_refused(options, said):
    with pytest.raises(ValueError, match=said):
        guided(LinearPrior(), inputs()[2], 2.0, **options)
