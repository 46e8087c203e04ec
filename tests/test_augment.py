"""Augmentation: views against DiffAugment's recorded outputs and against its steps one after the other."""

import pytest
import torch
from golden_cases import FOLDERS
from safetensors.torch import load_file
from torch.nn import functional as F

from clip2latent.augment import Augment, Views, apply_views

POLICIES = ("color", "translation", "resize", "cutout")
ONLY = {policy: Augment(**{other: other == policy for other in POLICIES}) for policy in POLICIES}
NONE = Augment(**dict.fromkeys(POLICIES, False))


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def pictures(num, side, dtype=torch.float32):
    return (torch.rand(num, 3, side, side, generator=seeded(5)) * 2 - 1).to(dtype)


def straightforward(image, views, index, size):
    """One view of an image [3, R, R], step by step, each as large as the image."""
    number = {name: value[index].double().tolist() for name, value in views._asdict().items()}
    side = image.shape[-1]
    x = image + number["brightness"]
    grey = x.mean(0, keepdim=True)
    x = (x - grey) * number["saturation"] + grey
    x = (x - x.mean()) * number["contrast"] + x.mean()

    reach = int(side * 0.125 + 0.5)
    down, right = (int(place * (2 * reach + 1)) - reach for place in number["shift"])
    padded = F.pad(x, (reach,) * 4)
    x = padded[:, reach + down : reach + down + side, reach + right : reach + right + side]

    inner = int(number["ratio"] * side)
    x = F.interpolate(x[None], (inner, inner), mode="bilinear")[0]
    if inner <= side:
        left = (side - inner) // 2
        x = F.pad(x, (left, side - inner - left, left, side - inner - left))
    else:
        left = (inner - side) // 2
        x = x[:, left : left + side, left : left + side]

    hole = int(side * number["hole"] + 0.5)
    mask = torch.ones_like(x)
    top, left = (int(place * (side + 1 - hole % 2)) - hole // 2 for place in number["centre"])
    mask[:, max(0, top) : max(0, top + hole), max(0, left) : max(0, left + hole)] = 0
    return F.interpolate((x * mask)[None], (size, size), mode="bilinear")[0]


@pytest.mark.parametrize("side, size", [(32, 32), (35, 24), (24, 40), (33, 7)])
@pytest.mark.parametrize("augment", [*ONLY.values(), Augment(), NONE], ids=[*POLICIES, "all", "none"])
def test_equal_to_the_steps_one_after_the_other(augment, side, size):
    images, views = pictures(2, side), augment.draw(6, seeded())
    found = apply_views(images, views, size)
    expected = torch.stack(
        [torch.stack([straightforward(image, views, index, size) for index in range(6)]) for image in images]
    )
    assert found.shape == (2, 6, 3, size, size)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


def test_equal_to_the_steps_at_a_side_where_places_between_pixels_round():
    images, views = pictures(1, 256), Augment().draw(12, seeded(1))
    expected = torch.stack([straightforward(images[0], views, index, 224) for index in range(12)])
    torch.testing.assert_close(apply_views(images, views, 224)[0], expected, rtol=0, atol=5e-6)


def test_gradient_is_that_of_the_steps():
    images, views = pictures(2, 21, torch.float64).requires_grad_(), Augment().draw(5, seeded())
    weights = torch.randn(2, 5, 3, 16, 16, generator=seeded(1), dtype=torch.float64)
    (found,) = torch.autograd.grad((apply_views(images, views, 16) * weights).sum(), images)
    views = views.to(images)
    steps = torch.stack([torch.stack([straightforward(x, views, v, 16) for v in range(5)]) for x in images])
    (expected,) = torch.autograd.grad((steps * weights).sum(), images)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


def test_gradient_is_exact():
    images, views = pictures(1, 6, torch.float64).requires_grad_(), Augment().draw(3, seeded(3))
    assert torch.autograd.gradcheck(lambda x: apply_views(x, views, 5), images)


def recorded():
    """DiffAugment's inputs, draws and outputs, or skips the test where they are not on this machine."""
    folder = next((root / "diffaugment" for root in FOLDERS if (root / "diffaugment").is_dir()), None)
    if folder is None:
        pytest.skip("reference data diffaugment is not on this machine")
    return load_file(folder / "io.safetensors")


def as_views(draws, policy, num, side):
    """The recorded draws of a policy, in the order in which they were made, as numbers of views."""
    draws = [draw.double().flatten() for draw in draws]
    values = NONE.draw(num, seeded())._asdict()
    values = {name: value.double() for name, value in values.items()}
    if policy in ("color", "all"):
        r = [draws.pop(0) for _ in range(3)]
        values |= {"brightness": r[0] - 0.5, "saturation": 2 * r[1], "contrast": r[2] + 0.5}
    if policy in ("translation", "all"):
        reach = int(side * 0.125 + 0.5)
        values["shift"] = (torch.stack([draws.pop(0), draws.pop(0)], 1) + reach + 0.5) / (2 * reach + 1)
    if policy in ("resize", "all"):
        values["ratio"] = (draws.pop(0) * 0.4 + 0.8).expand(num)
    if policy in ("cutout", "all"):
        hole = int(side * 0.5 + 0.5)
        values["hole"] = torch.full((num,), 0.5).double()
        values["centre"] = (torch.stack([draws.pop(0), draws.pop(0)], 1) + 0.5) / (side + 1 - hole % 2)
    assert not draws
    return Views(**values)


CASES = [(p, side, "") for p in ("all", "color", "translation", "cutout") for side in (32, 35)]
CASES += [("resize", side, f"_s{seed}") for side in (32, 35) for seed in (3, 4, 5, 6)]


@pytest.mark.parametrize("policy, side, run", CASES)
def test_equal_to_diffaugment(policy, side, run):
    data, name = recorded(), f"{policy}{side}{run}"
    if f"{name}.out" not in data:
        pytest.skip(f"reference data {name} is not on this machine: all policies together are")
    expected = data[f"{name}.out"]
    draws = [data[key] for key in sorted(data) if key.startswith(f"{name}.draw")]
    images = data[f"in{side}"][: len(expected)].clone().requires_grad_()
    views = as_views(draws, policy, len(images), side)
    found = apply_views(images, views, side).diagonal().permute(3, 0, 1, 2)  # image b through view b
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    if f"{name}.grad_in" in data:
        (gradient,) = torch.autograd.grad((found * data[f"{name}.grad_r"]).sum(), images)
        torch.testing.assert_close(gradient, data[f"{name}.grad_in"], rtol=0, atol=1e-5)


def test_draws_depend_on_the_seed_alone_and_policies_do_not_disturb_each_other():
    everything = Augment().draw(9, seeded())
    assert all(map(torch.equal, everything, Augment().draw(9, seeded())))
    fields = {
        "color": ("brightness", "saturation", "contrast"),
        "translation": ("shift",),
        "resize": ("ratio",),
        "cutout": ("hole", "centre"),
    }
    for policy, augment in ONLY.items():
        drawn = augment.draw(9, seeded())
        assert all(torch.equal(getattr(drawn, name), getattr(everything, name)) for name in fields[policy])


def test_draws_cover_the_published_ranges():
    views = Augment().draw(20_000, seeded())
    ranges = {"brightness": (-0.5, 0.5), "saturation": (0, 2), "contrast": (0.5, 1.5), "ratio": (0.8, 1.2)}
    for name, (least, largest) in ranges.items():
        values, width = getattr(views, name), largest - least
        assert least <= values.min() < least + 0.01 * width and largest - 0.01 * width < values.max() <= largest
        assert abs(values.mean() - (least + largest) / 2) < 0.02 * width


def test_parts_of_views_are_the_views():
    images, views = pictures(2, 16), Augment().draw(7, seeded())
    parts = [apply_views(images, part, 12) for part in views.split(3)]
    assert [part.shape[1] for part in parts] == [3, 3, 1]
    torch.testing.assert_close(torch.cat(parts, 1), apply_views(images, views, 12))


def test_no_augmentation_is_the_image_itself():
    images = pictures(2, 16)
    found = apply_views(images, NONE.draw(2, seeded()), 16)
    torch.testing.assert_close(found, images[:, None].expand(-1, 2, -1, -1, -1))


def test_half_precision_is_computed_in_single():
    images, views = pictures(1, 16, torch.float16), Augment().draw(2, seeded())
    assert torch.equal(apply_views(images, views, 12), apply_views(images.float(), views, 12))


@pytest.mark.parametrize(
    "images, size, fault",
    [
        (torch.zeros(1, 3, 4, 5), 4, r"images must be \[B, 3, R, R\], got \[1, 3, 4, 5\]"),
        (torch.zeros(1, 3, 4, 4, dtype=torch.uint8), 4, "floating point"),
        (torch.zeros(1, 3, 4, 4), 0, "size=0"),
    ],
)
def test_wrong_input_is_refused(images, size, fault):
    with pytest.raises(ValueError, match=fault):
        apply_views(images, Augment().draw(1, seeded()), size)


def test_no_views_are_refused():
    with pytest.raises(ValueError, match="views=0"):
        Augment().draw(0, seeded())
