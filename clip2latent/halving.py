"""How steps are shared out among candidates of which one is wanted: schedules of equal signature."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple


class Round(NamedTuple):
    """A round of a search: how many of the best candidates are left, and the steps each has had when it ends."""

    left: int
    steps: int


def halving(candidates: int, steps: int) -> list[Round]:
    """Halves the candidates round by round and doubles the steps they have had, up to one with all steps.

    Source: Jamieson and Talwalkar 2016, "Non-stochastic best arm identification and hyperparameter optimization",
    successive halving.

    Args:
        candidates: from 1.
        steps: of the last candidate.
    """
    left = [candidates]
    while left[-1] > 1:
        left.append(-(-left[-1] // 2))
    return [Round(number, -(-steps // 2 ** (len(left) - 1 - rank))) for rank, number in enumerate(left)]


def exhaustive(candidates: int, steps: int) -> list[Round]:
    """Gives every candidate all steps; the same signature."""
    return [Round(candidates, steps)]


def total_steps(rounds: Sequence[Round]) -> int:
    """Returns the steps of all candidates together."""
    starts = [0, *(each.steps for each in rounds)]
    return sum(each.left * (each.steps - start) for each, start in zip(rounds, starts, strict=False))


SEARCHES: dict[str, Callable[[int, int], list[Round]]] = {"halving": halving, "all": exhaustive}
