"""Bases: mixtures stay between their members, weights of both kinds start equal, candidates are dealt out fairly."""

import pytest
import torch

from clip2latent.basis import Basis, groups_of, mixed, spread, start_basis

P, M, K, D = 2, 3, 2, 4
RNG = torch.Generator().manual_seed(0)
MEMBERS = torch.randn(P, M, K, D, generator=RNG)


@pytest.mark.parametrize("weights", ["shared", "each"])
def test_a_basis_starts_at_its_mean(weights):
    torch.testing.assert_close(mixed(start_basis(MEMBERS, weights)), MEMBERS.mean(1))


@pytest.mark.parametrize("weights", ["shared", "each"])
def test_a_lead_has_its_weight_and_the_others_share_the_rest(weights):
    basis = start_basis(MEMBERS, weights, 0.7)
    torch.testing.assert_close(mixed(basis), 0.7 * MEMBERS[:, 0] + 0.15 * MEMBERS[:, 1:].sum(1))
    torch.testing.assert_close(mixed(start_basis(MEMBERS[:, :1], weights, 0.7)), MEMBERS[:, 0])
    with pytest.raises(ValueError, match=r"lead=1\.0"):
        start_basis(MEMBERS, weights, 1.0)


def test_shared_weights_keep_to_the_members_hull_and_each_number_to_its_own_range():
    shared = Basis(MEMBERS, torch.randn(P, M, 1, 1, generator=RNG))
    weights = torch.linalg.lstsq(MEMBERS.flatten(2).mT, mixed(shared).flatten(1)[..., None]).solution[..., 0]
    torch.testing.assert_close(weights.sum(1), torch.ones(P))
    assert (weights > 0).all()
    each = mixed(Basis(MEMBERS, torch.randn(P, M, K, D, generator=RNG)))
    assert (each <= MEMBERS.amax(1)).all() and (each >= MEMBERS.amin(1)).all()


def test_a_large_logit_picks_its_member():
    logits = torch.zeros(P, M, 1, 1)
    logits[0, 2] = logits[1, 0] = 50.0
    torch.testing.assert_close(mixed(Basis(MEMBERS, logits)), torch.stack([MEMBERS[0, 2], MEMBERS[1, 0]]))


def test_weights_of_another_kind_are_refused():
    with pytest.raises(ValueError, match="weights='all'"):
        start_basis(MEMBERS, "all")


def test_groups_hold_while_rows_repeat_in_them():
    w = torch.randn(P, M, 1, D, generator=RNG).expand(P, M, 6, D)
    assert groups_of(w, (6,)) == (6,) and groups_of(w, (2, 4)) == (2, 4) and groups_of(w, None) == (1,) * 6
    mixed_styles = w.clone()
    mixed_styles[0, 1, 5] += 1
    assert groups_of(mixed_styles, (6,)) == (1,) * 6
    assert groups_of(mixed_styles, (5, 1)) == (5, 1)
    assert groups_of(mixed_styles, (4,)) == (1,) * 6  # groups of a generator of another depth


def test_candidates_are_dealt_in_turn_each_basis_best_first():
    first, second = torch.arange(7.0).view(7, 1, 1), 10 + torch.arange(9.0).view(9, 1, 1)
    dealt = spread([first, second], 2, 3)[..., 0, 0]
    assert dealt.tolist() == [[0, 2, 4], [1, 3, 5], [10, 12, 14], [11, 13, 15]]
    assert spread([first, second], 3, 5).shape == (6, 2, 1, 1)  # seven candidates for three bases
    assert spread([first], 7, 5)[:, 0].equal(first)


@pytest.mark.parametrize("num, size, message", [(8, 1, "at most 7"), (0, 1, "num=0"), (1, 0, "basis=0")])
def test_numbers_that_do_not_fit_are_named(num, size, message):
    with pytest.raises(ValueError, match=message):
        spread([torch.zeros(7, 1, 1)], num, size)
