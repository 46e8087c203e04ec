"""Edits of latents: what each leaves alone, what undoes it, and what does not fit."""

import pytest
import torch

from clip2latent.edit import mean_latent, mix, move, parse_layers, truncate
from clip2latent.latents import LatentSpace

L, D = 6, 4
RNG = torch.Generator().manual_seed(0)
LATENTS, STYLE = (torch.randn(3, L, D, generator=RNG) for _ in range(2))
MEAN = torch.randn(L, D, generator=RNG)
ROW, ROWS = torch.randn(1, D, generator=RNG), torch.randn(L, D, generator=RNG)


def test_truncation_is_the_latent_space_s_own():
    space = LatentSpace((2, 4), torch.randn(2, D, generator=RNG), torch.rand(2, D, generator=RNG) + 0.1)
    tokens = torch.randn(3, 2, D, generator=RNG)
    truncated = truncate(space.decode(tokens), mean_latent(space), 0.7)
    torch.testing.assert_close(truncated, space.decode(tokens, truncation=0.7))


def test_truncation_has_its_ends_and_composes():
    torch.testing.assert_close(truncate(LATENTS, MEAN, 1.0), LATENTS)
    torch.testing.assert_close(truncate(LATENTS, MEAN, 0.0), MEAN.expand(3, L, D))
    twice = truncate(truncate(LATENTS, MEAN, 0.5), MEAN, 0.6)
    torch.testing.assert_close(twice, truncate(LATENTS, MEAN, 0.3))


def test_truncation_up_to_a_cutoff_leaves_the_finer_layers_as_they_were():
    truncated = truncate(LATENTS, MEAN, 0.0, range(2))
    assert truncated[:, 2:].equal(LATENTS[:, 2:])
    torch.testing.assert_close(truncated[:, :2], MEAN[:2].expand(3, 2, D))


def test_mixing_takes_the_layers_and_nothing_else():
    mixed = mix(LATENTS, STYLE, [1, 4])
    assert mixed[:, [1, 4]].equal(STYLE[:, [1, 4]]) and mixed[:, [0, 2, 3, 5]].equal(LATENTS[:, [0, 2, 3, 5]])
    assert mixed.equal(mix(STYLE, LATENTS, [0, 2, 3, 5]))
    assert mix(LATENTS, STYLE).equal(STYLE) and mix(LATENTS, STYLE, []).equal(LATENTS)
    assert mix(LATENTS, LATENTS, [3]).equal(LATENTS)


def test_mixing_makes_every_pair_where_shapes_broadcast():
    pairs = mix(LATENTS[:2, None], STYLE[None], range(3))
    assert pairs.shape == (2, 3, L, D)
    assert pairs[1, 2].equal(mix(LATENTS[1], STYLE[2], range(3)))


def test_steps_add_up_and_are_undone_by_their_opposite():
    steps = [(ROW, 1.5), (ROWS, -0.5)]
    moved = move(LATENTS, steps)
    torch.testing.assert_close(moved, LATENTS + 1.5 * ROW - 0.5 * ROWS)
    torch.testing.assert_close(moved, move(move(LATENTS, steps[1:]), steps[:1]))
    torch.testing.assert_close(move(moved, [(ROW, -1.5), (ROWS, 0.5)]), LATENTS)
    assert move(LATENTS, []).equal(LATENTS) and move(LATENTS, [(ROW, 0.0)]).equal(LATENTS)


def test_one_row_is_a_direction_of_all_layers():
    torch.testing.assert_close(move(LATENTS, [(ROW, 2.0)]), move(LATENTS, [(ROW.expand(L, D), 2.0)]))
    part = move(LATENTS, [(ROW, 2.0)], [5])
    assert part[:, :5].equal(LATENTS[:, :5]) and not part[:, 5].equal(LATENTS[:, 5])


def test_arguments_stay_as_they_were():
    before = [tensor.clone() for tensor in (LATENTS, STYLE, MEAN, ROW)]
    truncate(LATENTS, MEAN, 0.2)
    mix(LATENTS, STYLE, [0])
    move(LATENTS, [(ROW, 3.0)])
    assert all(now.equal(then) for now, then in zip((LATENTS, STYLE, MEAN, ROW), before, strict=True))


@pytest.mark.parametrize(
    "text, layers",
    [("0", [0]), ("0-3", [0, 1, 2, 3]), ("4-", [4, 5]), ("5,0-1", [0, 1, 5]), (" 1 - 2 , 2", [1, 2]), ("5-", [5])],
)
def test_layers_are_spelt_with_both_ends(text, layers):
    assert parse_layers(text, L) == layers


@pytest.mark.parametrize("text", ["", "6", "0-6", "3-1", "-2", "a", "1,", "1..3", "1.5", "²"])
def test_other_spellings_of_layers_are_refused(text):
    with pytest.raises(ValueError, match="from 0 to 5"):
        parse_layers(text, L)


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: truncate(LATENTS, MEAN[:2], 0.5), "mean"),
        (lambda: truncate(LATENTS, MEAN, float("nan")), "psi=nan"),
        (lambda: truncate(LATENTS, MEAN, 0.5, range(7)), r"got \[6\]"),
        (lambda: mix(LATENTS, STYLE[:, :5], [0]), "style"),
        (lambda: mix(LATENTS, STYLE, [-1]), r"got \[-1\]"),
        (lambda: move(LATENTS, [(ROW[:, :3], 1.0)]), r"\[1, 4\] or \[6, 4\]"),
        (lambda: move(LATENTS, [(ROWS[:2], 1.0)]), r"got \[2, 4\]"),
        (lambda: move(LATENTS, [(ROW[0], 1.0)]), r"got \[4\]"),
        (lambda: move(LATENTS, [(ROW, float("inf"))]), "strength=inf"),
    ],
)
def test_what_does_not_fit_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
