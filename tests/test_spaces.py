"""Latent spaces: row groups that partition every generator's rows, and latents that go there and back."""

import math

import pytest
import torch

from clip2latent.generators.spaces import SPACES, row_groups
from clip2latent.generators.stylegan2 import StyleGAN2
from clip2latent.generators.stylegan3 import StyleGAN3
from clip2latent.latents import expand, reduce

RESOLUTIONS = [2**power for power in range(2, 11)]


def rows(resolution: int) -> int:
    return 2 * int(math.log2(resolution)) - 2


def test_w3_is_coarse_middle_and_fine():
    assert row_groups("w3", 18) == (4, 4, 10)
    assert row_groups("w3", 16) == (4, 4, 8)
    assert [row_groups("w3", rows(side)) for side in (8, 16, 32, 64, 128)] == [
        (1, 1, 2),
        (2, 2, 2),
        (2, 2, 4),
        (4, 4, 2),
        (4, 4, 4),
    ]


@pytest.mark.parametrize("resolution", RESOLUTIONS)
@pytest.mark.parametrize("space", ["w", "w3", "w+"])
def test_groups_partition_the_rows_and_tokens_round_trip(space, resolution):
    num_rows = rows(resolution)
    if space == "w3" and resolution == 4:
        with pytest.raises(ValueError, match=r"space: w3 needs at least 3 rows of w, this generator has 2"):
            row_groups(space, num_rows)
        return
    groups = row_groups(space, num_rows)
    assert sum(groups) == num_rows and min(groups) >= 1
    assert len(groups) == {"w": 1, "w3": 3, "w+": num_rows}[space]
    tokens = torch.randn(2, len(groups), 5)
    assert reduce(expand(tokens, groups), groups).equal(tokens)


def test_an_unknown_space_is_named():
    with pytest.raises(ValueError, match=r"space: expected one of z, w, w3, w\+, got 'w2'"):
        row_groups("w2", 18)


def tiny(family, **arguments):
    torch.manual_seed(0)
    sizes = {"z_dim": 6, "c_dim": 0, "w_dim": 8, "img_resolution": 16, "img_channels": 3}
    return family(**{**sizes, "channel_base": 64, "channel_max": 4, **arguments}).eval().requires_grad_(False)


@pytest.mark.parametrize("c_dim", [0, 3])
@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("family", [StyleGAN2, StyleGAN3])
def test_a_generator_draws_independent_tokens_of_its_space(family, space, c_dim):
    generator = tiny(family, space=space, c_dim=c_dim)
    latents = generator.sample_latents(3, torch.Generator().manual_seed(0))
    num_rows = generator.mapping.num_ws
    assert generator.groups == row_groups(space, num_rows) and generator.space == space
    assert generator.latent_shape == ((1, 6 + c_dim) if space == "z" else (num_rows, 8))
    assert latents.shape == (3, *generator.latent_shape)
    tokens = reduce(latents, generator.groups)
    assert expand(tokens, generator.groups).equal(latents)
    assert len(tokens.flatten(0, 1).unique(dim=0)) == 3 * len(generator.groups)
    assert generator.synthesize(latents).shape == (3, 3, 16, 16)


@pytest.mark.parametrize("family", [StyleGAN2, StyleGAN3])
def test_z_is_mapped_to_the_image_of_its_w(family):
    by_z, by_w = (tiny(family, space=space, c_dim=3) for space in ("z", "w"))
    classes = torch.tensor([2, 0])
    z = by_z.sample_latents(2, torch.Generator().manual_seed(1), classes)
    w = by_w.sample_latents(2, torch.Generator().manual_seed(1), classes)
    assert z[:, 0, 6:].argmax(dim=1).equal(classes)
    torch.testing.assert_close(by_z.synthesize(z), by_w.synthesize(w))


def test_the_tokens_of_an_image_share_its_class():
    """With all of z's weight gone, w is a function of the class alone."""
    generator = tiny(StyleGAN2, space="w+", c_dim=3)
    generator.mapping.fc0.weight[:, :6] = 0
    latents = generator.sample_latents(4, torch.Generator().manual_seed(0))
    torch.testing.assert_close(latents, latents[:, :1].expand_as(latents))
    assert len(latents[:, 0].unique(dim=0)) > 1


def test_classes_are_checked():
    generator = tiny(StyleGAN2, c_dim=3, class_names=["cat", "dog", "fox"])
    assert generator.class_names == ("cat", "dog", "fox")
    rng = torch.Generator()
    for wrong in ([3, 0], [-1, 0], [0]):
        with pytest.raises(ValueError, match=r"classes: expected \[2\] indices from 0 to 2"):
            generator.sample_latents(2, rng, torch.tensor(wrong))
    with pytest.raises(ValueError, match="classes: this network has no classes"):
        tiny(StyleGAN2).sample_latents(1, rng, torch.tensor([0]))
    with pytest.raises(ValueError, match="class_names: expected 3 names"):
        tiny(StyleGAN2, c_dim=3, class_names=["cat"])
    assert not hasattr(tiny(StyleGAN2), "class_names")
