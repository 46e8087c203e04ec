"""Schedules: who is left after how many steps."""

import itertools

import pytest

from clip2latent.halving import Round, exhaustive, halving, total_steps


def test_halving_doubles_the_steps_of_half_the_candidates():
    assert halving(8, 80) == [Round(8, 10), Round(4, 20), Round(2, 40), Round(1, 80)]
    assert halving(27, 200) == [Round(27, 7), Round(14, 13), Round(7, 25), Round(4, 50), Round(2, 100), Round(1, 200)]
    assert halving(1, 5) == exhaustive(1, 5) == [Round(1, 5)]


@pytest.mark.parametrize(("candidates", "steps"), [(1, 0), (5, 1), (27, 200), (100, 3)])
def test_the_last_one_gets_all_steps_and_nobody_loses_any(candidates, steps):
    rounds = halving(candidates, steps)
    assert rounds[0].left == candidates and rounds[-1] == (1, steps)
    assert all(one.steps <= two.steps and one.left > two.left for one, two in itertools.pairwise(rounds))


def test_halving_costs_a_few_times_one_candidate():
    assert total_steps(exhaustive(27, 200)) == 5400
    assert total_steps(halving(27, 200)) == 27 * 7 + 14 * 6 + 7 * 12 + 4 * 25 + 2 * 50 + 100
