"""Pasting: what lands where, exactly, and gradients to both images."""

import pytest
import torch
from torch.nn import functional as F

from clip2latent.paste import EDGES, LOCATIONS, Placement, make_pasting, paste

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


def test_soft_edges_fade_but_for_those_on_the_pictures_border():
    front, back = torch.ones(2, 3, 8, 8), torch.zeros(2, 3, 16, 16)
    places = [Placement(0.5, "centre"), Placement(0.5, "top-left")]
    middle, corner = paste(front, back, make_pasting(places, 8, 16, "soft"))[:, 0]
    line = middle[8]
    assert line[:4].eq(0).all() and line[12:].eq(0).all() and line[6:10].eq(1).all() and 0 < line[4] < line[5] < 1
    torch.testing.assert_close(middle, middle.flip(0)), torch.testing.assert_close(middle, middle.mT)
    assert corner[0, :6].eq(1).all() and 0 < corner[0, 7] < corner[0, 6] < 1


@pytest.mark.parametrize("place", LOCATIONS)
def test_seamless_edges_add_what_has_no_laplacian_and_meets_the_background(place):
    """Against the equation itself: each pixel's correction is the mean of its neighbours', or of the steps at edges."""
    side, small = 9, 5
    front, back = 0.2 * images(1, small), 0.2 * images(1, side)
    placement = Placement(small / side, place)
    hard, seamless = (paste(front, back, make_pasting([placement], small, side, edges))[0] for edges in EDGES[::2])
    row, column = divmod(LOCATIONS.index(place), 3)
    top, left = (side - small) * row // 2, (side - small) * column // 2
    added = seamless - hard
    outside = torch.ones(side, side, dtype=torch.bool)
    outside[top : top + small, left : left + small] = False
    assert added[:, outside].eq(0).all()
    for y in range(top, top + small):
        for x in range(left, left + small):
            rest = torch.zeros(3)
            for v, u in ((y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)):
                if 0 <= v < side and 0 <= u < side:
                    other = back[0, :, v, u] - hard[:, y, x] if outside[v, u] else added[:, v, u]
                    rest += added[:, y, x] - other
            torch.testing.assert_close(rest, torch.zeros(3), rtol=0, atol=1e-5)


def test_a_seamless_foreground_of_one_colour_takes_the_backgrounds():
    places = [Placement(0.5, "centre"), Placement(0.99, "centre")]  # the second covers the whole picture
    fused = paste(
        torch.full((2, 3, 8, 8), 0.5), torch.full((2, 3, 16, 16), -0.3), make_pasting(places, 8, 16, "seamless")
    )
    torch.testing.assert_close(fused[0], torch.full((3, 16, 16), -0.3))
    torch.testing.assert_close(fused[1], torch.full((3, 16, 16), 0.5))
    front, back = images(1, 6).mul(0.1).requires_grad_(), images(1, 8).mul(0.1).requires_grad_()
    fused = paste(front, back, make_pasting(places[:1], 6, 8, "seamless"))
    gradients = torch.autograd.grad(fused.square().sum(), (front, back))
    assert all(gradient.isfinite().all() and gradient.abs().sum() > 0 for gradient in gradients)


@pytest.mark.parametrize("placement", [Placement(0, "top"), Placement(1, "top"), Placement(0.5, "middle")])
def test_what_cannot_be_placed_is_refused(placement):
    with pytest.raises(ValueError, match=r"scale=|location='middle'"):
        make_pasting([placement], 8, 8)
    with pytest.raises(ValueError, match="edges='round'"):
        make_pasting([Placement(0.5, "top")], 8, 8, "round")
    with pytest.raises(ValueError, match="at least one"):
        make_pasting([], 8, 8)
