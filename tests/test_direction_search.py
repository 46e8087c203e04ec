"""Directions from prompts: the way between the means, what a separator adds, and what separation measures."""

import pytest
import torch
from tiny_checkpoint import write_tiny_checkpoint

from clip2latent.direction_search import find_direction, mean_difference, separation, separator
from clip2latent.sampling import Sampling
from clip2latent.text2image import TextToImage

POSITIVE, NEGATIVE = ["a red hat", "a red dog"], ["a blue hat", "a blue dog"]


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory):
    return TextToImage.from_pretrained(write_tiny_checkpoint(tmp_path_factory.mktemp("prior") / "tiny"), "cpu")


def two_sets(num=4000):
    """Two Gaussians whose means differ by 1 along x, both varying most along x + y: x - y tells them apart best."""
    rng = torch.Generator().manual_seed(0)
    noise = torch.randn(2, num, 3, generator=rng, dtype=torch.float64) @ torch.tensor(
        [[1.0, 1.0, 0.0], [0.0, 0.1, 0.0], [0.0, 0.0, 1.0]], dtype=torch.float64
    )
    shift = torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64)
    return noise[0] + shift, noise[1]


def test_the_mean_difference_is_the_way_between_the_means():
    positive, negative = two_sets()
    found = mean_difference(positive, negative)
    torch.testing.assert_close(found, torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64), atol=0.1, rtol=0)
    torch.testing.assert_close(negative.mean(0) + found, positive.mean(0))


def test_the_separator_separates_better_where_the_sets_vary_along_the_difference():
    positive, negative = two_sets()
    middle = (positive.mean(0) + negative.mean(0)) / 2
    found = [method(positive[:2000], negative[:2000]) for method in (mean_difference, separator)]
    by_mean, by_plane = (separation(way, middle, positive[2000:], negative[2000:]) for way in found)
    assert by_plane.accuracy > by_mean.accuracy + 0.05 and by_plane.effect > 1.3 * by_mean.effect
    # A step of strength 1 crosses the gap between the means, seen along the normal.
    gap = (positive[:2000].mean(0) - negative[:2000].mean(0)) @ found[1]
    torch.testing.assert_close(found[1] @ found[1], gap)


def test_both_methods_agree_where_the_sets_are_round():
    rng = torch.Generator().manual_seed(1)
    positive, negative = torch.randn(2, 20000, 4, generator=rng, dtype=torch.float64)
    positive = positive + torch.tensor([2.0, 0.0, 0.0, -1.0], dtype=torch.float64)
    ways = mean_difference(positive, negative), separator(positive, negative)
    torch.testing.assert_close(*ways, atol=0.05, rtol=0)


def test_separation_of_known_sets():
    apart = torch.tensor([[1.0, 5.0], [3.0, -5.0]], dtype=torch.float64)
    way, middle = torch.tensor([1.0, 0.0], dtype=torch.float64), torch.zeros(2, dtype=torch.float64)
    assert separation(way, middle, apart, -apart).accuracy == 1.0
    assert separation(way, middle, apart, apart) == (separation(way, middle, -apart, -apart))
    measured = separation(way, middle, apart, -apart)
    assert measured.effect == pytest.approx(4 / 2**0.5, abs=1e-3) and measured.count == 4
    assert separation(way, middle, apart, apart).accuracy == 0.5 and separation(way, middle, apart, apart).effect == 0


@pytest.mark.parametrize("method", ["mean", "separator"])
def test_a_found_direction_is_the_same_again_and_says_where_it_is_from(pipeline, method):
    options = {"name": "red", "method": method, "num": 8, "sampling": Sampling(seed=3)}
    done = []
    found = find_direction(pipeline, POSITIVE, NEGATIVE, **options, progress=done.append)
    again = find_direction(pipeline, POSITIVE, NEGATIVE, **options)
    assert found.vector.equal(again.vector) and found.vector.shape == (1, 4) and sum(done) == 32
    expected = {"name": "red", "positive": POSITIVE, "negative": NEGATIVE, "method": method, "num": 8, "seed": 3}
    assert found.description.items() >= expected.items()
    assert found.description["generator"] == pipeline.config["generator"]
    assert found.description["separation"]["count"] == 8


def test_strength_1_goes_from_the_mean_of_the_negative_samples_to_that_of_the_positive_ones(pipeline):
    found = find_direction(pipeline, POSITIVE[:1], NEGATIVE[:1], num=8)
    means = []
    for prompts in (POSITIVE[:1], NEGATIVE[:1]):
        (part,) = pipeline.stream(pipeline.embed_text(prompts), 8, Sampling())
        means.append(part.latents[part.candidate < 6].mean(0))  # a quarter is held out
    torch.testing.assert_close(found.vector.expand(3, 4), means[0] - means[1], rtol=1e-4, atol=1e-5)


def test_the_opposite_sets_give_the_opposite_direction(pipeline):
    there, back = (find_direction(pipeline, *sets, num=8) for sets in ((POSITIVE, NEGATIVE), (NEGATIVE, POSITIVE)))
    torch.testing.assert_close(there.vector, -back.vector)


@pytest.mark.parametrize(
    "wrong, message",
    [
        ({"positive": []}, "no prompt"),
        ({"negative": ["a", " "]}, "prompt 2 of 2"),
        ({"positive": NEGATIVE[::-1]}, "the same"),
        ({"method": "svm"}, "mean, separator"),
        ({"num": 7}, "num=7"),
    ],
)
def test_wrong_arguments_are_named(pipeline, wrong, message):
    with pytest.raises(ValueError, match=message):
        find_direction(pipeline, **{"positive": POSITIVE, "negative": NEGATIVE, **wrong})


def test_the_demo_s_smile_separates_held_out_samples():
    pipeline = TextToImage.from_pretrained("demo", device="cpu")
    found = find_direction(pipeline, ["a smiling man"], ["a sad man"], num=16)
    assert found.description["separation"]["accuracy"] >= 0.9 and found.description["separation"]["effect"] > 2
