"""The objects world: pure drawing, truthful captions, and objects that can be seen on any ground."""

import time

import numpy as np
import pytest

from demo import objects

NOWHERE = {"second_class": "none", "second_color": "none"}


def picture(kind: str, color: str, ground: str, seed: int = 0) -> np.ndarray:
    attributes = {"class": kind, "color": color, "ground": ground, **NOWHERE}
    return objects.draw(attributes, np.random.default_rng(seed)).astype(int)


def test_example_is_a_pure_function_of_seed_and_index():
    first, again, other, reseeded = (objects.example(*key) for key in ((5, 7), (5, 7), (5, 8), (6, 7)))
    assert first.image.shape == (64, 64, 3) and first.image.dtype == np.uint8
    assert np.array_equal(first.image, again.image) and first[1:] == again[1:]
    assert not np.array_equal(first.image, other.image) and not np.array_equal(first.image, reseeded.image)


def test_every_value_of_every_attribute_occurs():
    drawn = [objects.sample_attributes(np.random.default_rng((1, index))) for index in range(3000)]
    for name, values in objects.ATTRIBUTES.items():
        assert {attributes[name] for attributes in drawn} == set(values)
    for attributes in drawn:
        assert (attributes["second_class"] == "none") == (attributes["second_color"] == "none")
        assert attributes["class"] != attributes["second_class"]


def test_parse_recovers_what_a_caption_names():
    named = dict.fromkeys(objects.ATTRIBUTES, 0)
    for index in range(4000):
        rng = np.random.default_rng((2, index))
        attributes = objects.sample_attributes(rng)
        text = objects.caption(attributes, rng)
        found = objects.parse(text)
        assert found.items() <= attributes.items(), text
        assert set(text.replace(",", "").split()) <= objects.WORDS, text
        for name in found:
            named[name] += 1
    assert named["class"] > 3600 and named["color"] > 3200 and named["ground"] > 2700 and named["second_class"] > 700


@pytest.mark.parametrize(
    ("text", "attributes"),
    [
        ("a red car", {"class": "car", "color": "red"}),
        ("An alarm clock in violet on an orange background", {"class": "clock", "color": "purple", "ground": "orange"}),
        (
            "a blue dog to the right of a kitten at night",
            {"class": "cat", "second_class": "dog", "second_color": "blue", "ground": "night"},
        ),
        ("a star and a cloud in the blue sky", {"class": "star", "second_class": "cloud", "ground": "sky"}),
        ("a pink thing on the grass", {"color": "pink", "ground": "grass"}),
        ("nothing it knows", {}),
    ],
)
def test_parse_reads_sentences(text, attributes):
    assert objects.parse(text) == attributes


@pytest.mark.parametrize("kind", objects.ATTRIBUTES["class"])
def test_object_shows_on_its_own_colour(kind):
    for color in objects.ATTRIBUTES["color"]:
        image = picture(kind, color, color)
        edge = np.median(np.concatenate([image[0], image[-1], image[:, 0], image[:, -1]]), axis=0)
        assert (np.abs(image - edge).max(axis=2) > 40).mean() > 0.03


def test_classes_and_colours_look_different():
    by_class = [picture(kind, "red", "white") for kind in objects.ATTRIBUTES["class"]]
    by_color = [picture("car", color, "white") for color in objects.ATTRIBUTES["color"]]
    for pictures in (by_class, by_color):
        for index, image in enumerate(pictures):
            assert all(np.abs(image - other).mean() > 2 for other in pictures[:index])


def test_second_object_is_on_the_right():
    attributes = {"class": "heart", "color": "red", "ground": "white", "second_class": "star", "second_color": "blue"}
    image = objects.draw(attributes, np.random.default_rng(0)).astype(int)
    redness = (image[..., 0] - image[..., 2]).clip(min=0).sum(axis=0)
    blueness = (image[..., 2] - image[..., 0]).clip(min=0).sum(axis=0)
    assert redness[:32].sum() > 5 * redness[32:].sum() and blueness[32:].sum() > 5 * blueness[:32].sum()


def test_draws_at_least_300_images_a_second():
    def rate(start: int) -> float:
        begun = time.process_time()
        for index in range(start, start + 30):
            objects.example(0, index)
        return 30 / (time.process_time() - begun)

    assert max(rate(30 * attempt) for attempt in range(5)) >= 300
