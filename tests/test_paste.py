"""Pasting: what lands where, exactly, and gradients to both images."""

import pytest
import torch
from torch.nn import functional as F

from clip2latent.paste import LOCATIONS, Placement, make_pasting, paste

RNG = torch.Generator().manual_seed(0)


def images(num, side):
    return torch.rand(num, 3, side, side, generator=RNG) * 2 - 1


@pytest.mark.parametrize(("scale", "side"), [(0.5, 8), (0.3, 8), (0.9, 32)])
def test_every_place_holds_the_resampled_foreground_and_nothing_else_changes(scale, side):
    front, back = images(9, side), images(9, 20)
    fused = paste(front, back, make_pasting([Placement(scale, place) for place in LOCATIONS], side, 20))
    small = round(scale * 20)
    shrunk = F.interpolate(front, (small, small), mode="bilinear", antialias=True)
    for number in range(9):
        row, column = divmod(number, 3)
        top, left = (20 - small) * row // 2, (20 - small) * column // 2
        expected = back[number].clone()
        expected[:, top : top + small, left : left + small] = shrunk[number]
        torch.testing.assert_close(fused[number], expected)


def test_places_are_where_their_names_say():
    front, back = torch.ones(9, 3, 4, 4), torch.zeros(9, 3, 12, 12)
    seen = paste(front, back, make_pasting([Placement(1 / 3, place) for place in LOCATIONS], 4, 12))[:, 0]
    heights = {"top": 0, "bottom": 2}
    widths = {"left": 0, "right": 2}
    for picture, place in zip(seen, LOCATIONS, strict=True):
        row = next((number for name, number in heights.items() if name in place), 1)
        column = next((number for name, number in widths.items() if name in place), 1)
        cells = picture.view(3, 4, 3, 4).mean((1, 3))
        assert cells[row, column] == 1 and cells.sum() == 1, place


def test_sizes_mix_in_one_batch_and_stay_in_range():
    front, back = images(2, 16).sign(), images(2, 16).sign()
    fused = paste(front, back, make_pasting([Placement(0.25, "top"), Placement(0.75, "left")], 16, 16))
    assert fused.abs().max() <= 1 + 1e-6
    assert fused[0].ne(back[0]).any(0).sum() <= 16 and fused[1].ne(back[1]).any(0).sum() <= 144


def test_gradients_reach_both_images_and_nothing_behind_the_foreground():
    front, back = images(1, 6).double().requires_grad_(), images(1, 8).double().requires_grad_()
    pasting = make_pasting([Placement(0.5, "bottom-right")], 6, 8)
    pasting = pasting._replace(rows=pasting.rows.double(), columns=pasting.columns.double())
    torch.autograd.gradcheck(lambda one, other: paste(one, other, pasting), (front, back))
    behind = torch.autograd.grad(paste(front, back, pasting).sum(), back)[0]
    assert behind[..., 4:, 4:].eq(0).all() and behind[..., :4, :].eq(1).all()


@pytest.mark.parametrize("placement", [Placement(0, "top"), Placement(1, "top"), Placement(0.5, "middle")])
def test_what_cannot_be_placed_is_refused(placement):
    with pytest.raises(ValueError, match=r"scale=|location='middle'"):
        make_pasting([placement], 8, 8)
    with pytest.raises(ValueError, match="at least one"):
        make_pasting([], 8, 8)
