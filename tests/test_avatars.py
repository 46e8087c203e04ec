import json
from pathlib import Path

import numpy as np
import pytest

from demo import avatars

PROMPTS = Path(__file__).parents[1] / "configs" / "prompts" / "demo.jsonl"
BASE = {
    "gender": "man",
    "age": "adult",
    "skin": "tan",
    "hair_style": "short",
    "hair_color": "brown",
    "beard": "none",
    "glasses": "none",
    "hat": "none",
    "hat_color": "red",
    "expression": "neutral",
    "eyes": "blue",
    "shirt_color": "green",
    "background": "white",
}


def rng(seed: int, index: int = 0) -> np.random.Generator:
    return np.random.default_rng((seed, index))


def drawn(**changes: str) -> np.ndarray:
    return avatars.draw(BASE | changes, rng(3)).astype(int)


def named_at(index: int) -> dict[str, str]:
    source = rng(11, index)
    return avatars.name_some(avatars.visible(avatars.sample_attributes(source)), source)


def test_an_example_depends_on_seed_and_index_alone() -> None:
    first = avatars.example(1, 5)
    avatars.example(1, 6)
    again = avatars.example(1, 5)
    np.testing.assert_array_equal(first.image, again.image)
    assert first[1:] == again[1:]
    assert (avatars.example(2, 5).image != first.image).any()
    assert (avatars.example(1, 6).image != first.image).any()


def test_images_are_64_px_bytes_and_attributes_are_complete() -> None:
    for index in range(50):
        image, attributes, caption = avatars.example(0, index)
        assert image.shape == (64, 64, 3)
        assert image.dtype == np.uint8
        assert image.std() > 15
        assert attributes.keys() == avatars.ATTRIBUTES.keys()
        assert all(value in avatars.ATTRIBUTES[name] for name, value in attributes.items())
        assert caption


@pytest.mark.parametrize("name", avatars.ATTRIBUTES)
def test_every_value_of_an_attribute_is_seen(name: str) -> None:
    context = {"hat": "cap"} if name == "hat_color" else {}
    images = [drawn(**context, **{name: value}) for value in avatars.ATTRIBUTES[name]]
    for i, image in enumerate(images):
        for other in images[:i]:
            # At least 25 of 4096 pixels change clearly.
            assert (np.abs(image - other).max(axis=2) > 40).sum() >= 25


def test_hidden_attributes_leave_the_picture_alone() -> None:
    np.testing.assert_array_equal(drawn(hat_color="red"), drawn(hat_color="blue"))
    np.testing.assert_array_equal(drawn(glasses="sunglasses", eyes="brown"), drawn(glasses="sunglasses", eyes="closed"))
    assert "hat_color" not in avatars.visible(BASE)
    assert "eyes" not in avatars.visible(BASE | {"glasses": "sunglasses"})
    bald = BASE | {"hair_style": "bald"}
    assert "hair_color" not in avatars.visible(bald)
    assert "hair_color" in avatars.visible(bald | {"beard": "beard"})


def test_attributes_are_sampled_independently_and_all_occur() -> None:
    samples = [avatars.sample_attributes(rng(0, index)) for index in range(3000)]
    for name, values in avatars.ATTRIBUTES.items():
        shares = [sum(sample[name] == value for sample in samples) / len(samples) for value in values]
        assert min(shares) > 0.03
    women = [sample for sample in samples if sample["gender"] == "woman"]
    bearded = sum(sample["beard"] != "none" for sample in women) / len(women)
    assert bearded == pytest.approx(0.5, abs=0.06)


def test_parse_recovers_exactly_what_a_caption_names() -> None:
    counts = []
    for index in range(4000):
        named = named_at(index)
        caption = avatars.caption_of(named, rng(12, index))
        assert avatars.parse(caption) == named, caption
        counts.append(len(named))
    assert min(counts) == 1
    assert np.mean(counts) == pytest.approx(5.5, abs=0.3)


def test_captions_name_only_what_is_visible() -> None:
    for index in range(300):
        _, attributes, caption = avatars.example(4, index)
        seen = avatars.visible(attributes)
        assert all(avatars.agrees(name, wanted, seen[name]) for name, wanted in avatars.parse(caption).items())


def test_words_are_those_of_captions() -> None:
    used = {
        word
        for index in range(6000)
        for word in avatars.caption_of(named_at(index), rng(13, index)).replace(",", "").split()
    }
    assert used <= avatars.WORDS
    assert len(avatars.WORDS - used) <= 3
    assert {"hat", "sad", "happy", "angry", "grandma", "glasses"} <= avatars.WORDS


def test_captions_of_one_seed_differ_in_the_expression_only() -> None:
    for index in range(200):
        named = named_at(index) | {"expression": "neutral"}
        captions = [
            avatars.caption_of(named | {"expression": value}, rng(14, index))
            for value in avatars.ATTRIBUTES["expression"]
        ]
        assert len(set(captions)) == len(captions)
        lengths = [len(caption.split()) for caption in captions]
        assert max(lengths) - min(lengths) <= 2


@pytest.mark.parametrize(
    ("caption", "named"),
    [
        (
            "an old man with glasses and a red hat",
            {"age": "old", "gender": "man", "glasses": "glasses", "hat": "any", "hat_color": "red"},
        ),
        (
            "A photograph of a furious bald man with a red hat at night.",
            {
                "expression": "angry",
                "hair_style": "bald",
                "gender": "man",
                "hat": "any",
                "hat_color": "red",
                "background": "night",
            },
        ),
        (
            "portrait of a young woman with long blonde hair, smiling, on a beach",
            {
                "age": "young",
                "gender": "woman",
                "hair_style": "long",
                "hair_color": "blonde",
                "expression": "smiling",
                "background": "beach",
            },
        ),
        (
            "a surprised girl wearing a green beanie",
            {"expression": "surprised", "gender": "woman", "age": "young", "hat": "beanie", "hat_color": "green"},
        ),
        ("a house by the road", {}),
    ],
)
def test_parse_reads_peoples_prompts(caption: str, named: dict[str, str]) -> None:
    assert avatars.parse(caption) == named


@pytest.mark.parametrize(
    "named", [{"hat_color": "red"}, {"hat_color": "red", "hat": "none"}, {"hair_style": "bald", "hair_color": "red"}]
)
def test_what_cannot_be_said_is_an_error(named: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="needs"):
        avatars.caption_of(named, rng(0))


def test_any_hat_agrees_with_every_hat() -> None:
    assert avatars.agrees("hat", "any", "crown")
    assert not avatars.agrees("hat", "any", "none")
    assert not avatars.agrees("hat", "cap", "crown")


def test_held_out_prompts_are_those_of_the_file() -> None:
    prompts = [json.loads(line) for line in PROMPTS.read_text().splitlines()]
    assert prompts == avatars.held_out_prompts()
    assert len({prompt["prompt"] for prompt in prompts}) == len(prompts) == 64
    for prompt in prompts:
        assert avatars.parse(prompt["prompt"]) == prompt["attributes"]
        assert 2 <= len(prompt["attributes"]) <= 6
    assert {name for prompt in prompts for name in prompt["attributes"]} == avatars.ATTRIBUTES.keys()


def test_prompts_that_choose_a_checkpoint_are_others() -> None:
    lines = PROMPTS.with_name("demo-validation.jsonl").read_text().splitlines()
    prompts = [json.loads(line) for line in lines]
    assert prompts == avatars.held_out_prompts(32, "validation")
    assert not {prompt["prompt"] for prompt in prompts} & {prompt["prompt"] for prompt in avatars.held_out_prompts()}
