"""LeanPrior is the LatentPrior it was made of, with less arithmetic."""

import copy

import pytest
import torch
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from clip2latent.diffusion import guided
from clip2latent.lean_prior import LeanPrior, PreparedPrior
from clip2latent.lean_transformer import LeanTransformer
from clip2latent.prior import LatentPrior

TIMES = torch.tensor([49, 30, 12, 3])
SIZES = {
    "w": {"embedding_dim": 24, "latent_dim": 24, "dim": 24, "depth": 3, "heads": 3, "dim_head": 40},
    "w projected": {"embedding_dim": 7, "latent_dim": 5, "dim": 16, "depth": 2, "heads": 2, "dim_head": 8},
    "w3": {"embedding_dim": 24, "latent_dim": 9, "dim": 24, "depth": 2, "heads": 3, "num_tokens": 3},
    "w+": {"embedding_dim": 12, "latent_dim": 16, "dim": 16, "depth": 2, "heads": 2, "num_tokens": 18},
    "one layer, odd head": {"embedding_dim": 9, "latent_dim": 9, "dim": 16, "depth": 1, "dim_head": 33},
    "deep": {"embedding_dim": 64, "latent_dim": 64, "dim": 64, "depth": 12},
}


def frozen(**sizes):
    torch.manual_seed(0)
    prior = LatentPrior(timesteps=50, **sizes).eval().requires_grad_(False)
    for name, weight in prior.named_parameters():
        if name.endswith(".g"):
            weight.add_(0.2 * torch.randn_like(weight))
    return prior


def asked(prior, batch=6):
    """Noised tokens, and conditions of which rows 0 to 2 are the batch's."""
    rng = torch.Generator().manual_seed(1)
    config = prior.config
    x = torch.randn(batch, config["num_tokens"], config["latent_dim"], generator=rng)
    conditions = F.normalize(torch.randn(4, config["embedding_dim"], generator=rng), dim=-1)
    return x, conditions, torch.tensor([0, 0, 1, 2, 2, 1])[:batch]


def prepared(prior, conditions, times=TIMES):
    lean = LeanPrior(prior)
    return PreparedPrior(lean.follow, lean.remember(conditions, times))


@pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES)
def test_predictions_are_the_priors(sizes):
    prior = frozen(**sizes)
    x, conditions, which = asked(prior)
    lean, rows = prepared(prior, conditions), 1 + which[:, None]
    for t in TIMES.tolist():
        t = torch.full((len(x),), t)
        for scale in (0.0, 1.0, 2.0):
            expected = guided(prior, conditions[which], scale)(x, t)
            torch.testing.assert_close(guided(lean, rows, scale)(x, t), expected, rtol=0, atol=1e-5)
    away = guided(prior, conditions[which], 2.0, negative=conditions[3:].expand(len(x), -1))
    found = guided(lean, rows, 2.0, negative=torch.full_like(rows, 4))(x, t)
    torch.testing.assert_close(found, away(x, t), rtol=0, atol=1e-5)


def test_rows_need_not_share_a_timestep_or_a_branch():
    prior = frozen(**SIZES["w3"])
    x, conditions, which = asked(prior)
    t, keep = TIMES[[0, 1, 2, 3, 0, 1]], torch.tensor([True, False, True, False, False, True])
    found = prepared(prior, conditions)(x, t, 1 + which[:, None], keep)
    torch.testing.assert_close(found, prior(x, t, conditions[which], keep), rtol=0, atol=1e-5)


def test_many_timesteps_and_conditions_are_read_in_blocks(monkeypatch):
    prior = frozen(**SIZES["w projected"])
    x, conditions, which = asked(prior)
    whole = prepared(prior, conditions, torch.arange(50))
    monkeypatch.setattr("clip2latent.lean_prior.ROWS_AT_ONCE", 8)
    t = torch.tensor([0, 7, 49, 1, 2, 30])
    blocks = prepared(prior, conditions, torch.arange(50).flip(0))
    torch.testing.assert_close(blocks(x, t, 1 + which[:, None]), whole(x, t, 1 + which[:, None]))
    torch.testing.assert_close(blocks(x, t, 0 * which[:, None]), prior(x, t, conditions[which], which < 0))


def test_bfloat16_is_as_near_to_float32_as_the_prior_is():
    prior = frozen(**SIZES["deep"])
    rounded = copy.deepcopy(prior).bfloat16()
    x, conditions, which = asked(prior)
    t = torch.full((len(x),), 30)
    exact = prior(x, t, conditions[which])
    plain = rounded(x.bfloat16(), t, conditions[which].bfloat16())
    lean = prepared(rounded, conditions)(x, t, 1 + which[:, None])
    assert lean.dtype == x.dtype
    assert (lean - exact).norm() < 1.5 * (plain - exact).norm()
    assert (lean - exact).norm() < 5e-2 * exact.norm()


def test_a_guided_step_is_half_the_arithmetic():
    prior = frozen(**SIZES["deep"])
    x, conditions, which = asked(prior)
    t = torch.full((len(x),), 30)
    lean = prepared(prior, conditions)
    operations = []
    for denoise in (guided(lean, 1 + which[:, None], 2.0), guided(prior, conditions[which], 2.0)):
        with FlopCounterMode(display=False) as counter:
            denoise(x, t)
        operations.append(counter.get_total_flops())
    assert operations[0] < 0.52 * operations[1]


def test_the_null_conditions_timesteps_are_read_once(monkeypatch):
    prior = frozen(**SIZES["w projected"])
    _, conditions, _ = asked(prior)
    lean, remember, read = LeanPrior(prior), LeanTransformer.remember, []
    monkeypatch.setattr(LeanTransformer, "remember", lambda *args: (read.append(len(args[1])), remember(*args))[1])
    lean.remember(conditions, TIMES)
    lean.remember(conditions[:1], TIMES)
    assert read == [4, 4, 16, 1, 4]  # Conditions, the null condition's timesteps, theirs; conditions, theirs.


def test_bits_do_not_depend_on_what_was_read_before():
    prior = frozen(**SIZES["deep"])
    _, conditions, _ = asked(prior)
    used, fresh = LeanPrior(prior), LeanPrior(prior)
    for shift in range(1, 10):
        used.remember(conditions[:1], TIMES[::2] - shift % 3)
        used.remember(conditions[:2], torch.arange(shift, 50))
    for found, expected in zip(used.remember(conditions, TIMES), fresh.remember(conditions, TIMES), strict=True):
        assert found.equal(expected)


def test_a_timestep_that_was_not_read_is_an_error():
    prior = frozen(**SIZES["w projected"])
    x, conditions, which = asked(prior)
    with pytest.raises(IndexError):
        prepared(prior, conditions)(x, torch.full((len(x),), 29), 1 + which[:, None])


def test_it_keeps_no_tie_to_the_priors_weights():
    prior = frozen(**SIZES["w projected"])
    x, conditions, which = asked(prior)
    t = torch.full((len(x),), 30)
    lean, expected = prepared(prior, conditions), prior(x, t, conditions[which])
    for weight in prior.parameters():
        weight.zero_()
    torch.testing.assert_close(lean(x, t, 1 + which[:, None]), expected, rtol=0, atol=1e-5)


def test_gradients_reach_the_noised_tokens():
    prior = frozen(**SIZES["w3"])
    x, conditions, which = asked(prior)
    t, lean = torch.full((len(x),), 30), prepared(prior, conditions)
    one, two = x.clone().requires_grad_(), x.clone().requires_grad_()
    lean(one, t, 1 + which[:, None]).square().sum().backward()
    prior(two, t, conditions[which]).square().sum().backward()
    torch.testing.assert_close(one.grad, two.grad, rtol=0, atol=1e-4)
