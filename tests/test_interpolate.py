"""Ways between points: their ends, their pace, and one noise for all frames."""

import pytest
import torch
from tiny_checkpoint import write_tiny_checkpoint

from clip2latent.interpolate import between_prompts, linear, path, spherical
from clip2latent.sampling import Sampling
from clip2latent.text2image import TextToImage

RNG = torch.Generator().manual_seed(0)
POINTS = torch.nn.functional.normalize(torch.randn(3, 8, generator=RNG), dim=-1)


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory):
    return TextToImage.from_pretrained(write_tiny_checkpoint(tmp_path_factory.mktemp("prior") / "tiny"), "cpu")


@pytest.mark.parametrize("blend", [linear, spherical])
def test_a_way_goes_through_its_points_and_is_the_same_backwards(blend):
    way = path(POINTS, 5, blend)
    assert way.shape == (9, 8)
    torch.testing.assert_close(way[[0, 4, 8]], POINTS)
    torch.testing.assert_close(path(POINTS.flip(0), 5, blend), way.flip(0))


def test_the_arc_stays_on_the_sphere_and_keeps_its_pace():
    way = path(POINTS[:2], 7, spherical)
    torch.testing.assert_close(way.norm(dim=-1), torch.ones(7))
    cosines = (way[1:] * way[:-1]).sum(-1)
    torch.testing.assert_close(cosines, cosines[:1].expand(6))


def test_lengths_are_blended_linearly_and_rows_by_themselves():
    a, b = torch.randn(2, 4, 3, 8, generator=RNG)
    middle = spherical(a, b, 0.25)
    torch.testing.assert_close(middle.norm(dim=-1), 0.75 * a.norm(dim=-1) + 0.25 * b.norm(dim=-1))
    torch.testing.assert_close(middle[2, 1], spherical(a[2, 1], b[2, 1], 0.25))


def test_points_without_one_arc_between_them_are_blended_straight():
    a = POINTS[0]
    for b in (a, -a, torch.zeros(8)):
        assert spherical(a, b, 0.3).isfinite().all()
    torch.testing.assert_close(spherical(a, a, 0.3), a)


def test_straight_ways_have_equal_steps():
    steps = path(POINTS[:2], 5, linear).diff(dim=0)
    torch.testing.assert_close(steps, steps[:1].expand(4, 8))


def test_the_ends_between_prompts_are_images_of_the_prompts_from_one_noise(pipeline):
    way = between_prompts(pipeline, ["a red hat", "night"], frames=3, candidates=4, sampling=Sampling(seed=2))
    assert way.shape == (3, 3, 4)
    (first,) = pipeline.stream(pipeline.embed_text(["a red hat"]), 4, Sampling(seed=2))
    (last,) = pipeline.stream(pipeline.embed_text(["night"]), 4, Sampling(seed=2))
    near = [(latents - part.latents).abs().amax((1, 2)) for latents, part in ((way[0], first), (way[-1], last))]
    assert near[0].argmin() == near[1].argmin() and max(near[0].min(), near[1].min()) < 1e-3


def test_the_same_prompt_twice_is_one_image(pipeline):
    way = between_prompts(pipeline, ["night", "night"], frames=4, candidates=2)
    torch.testing.assert_close(way, way[:1].expand_as(way), rtol=1e-3, atol=1e-4)


def test_progress_counts_every_image(pipeline):
    done = []
    between_prompts(pipeline, ["a", "b", "c"], frames=3, candidates=2, progress=done.append)
    assert sum(done) == 10


def test_too_few_points_and_frames_are_named(pipeline):
    with pytest.raises(ValueError, match="two or more"):
        path(POINTS[:1], 5)
    with pytest.raises(ValueError, match="frames=1"):
        path(POINTS, 1)
    with pytest.raises(ValueError, match="two or more"):
        between_prompts(pipeline, ["a"])
    with pytest.raises(ValueError, match="candidates=0"):
        between_prompts(pipeline, ["a", "b"], candidates=0)
