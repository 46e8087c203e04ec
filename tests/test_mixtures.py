"""Mixtures: a prompt is a text unless it says otherwise, and what is wrong with one is named."""

import pytest

from clip2latent.mixtures import Part, read_mixtures


@pytest.fixture(autouse=True)
def in_a_folder_with_pictures(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a.png", "My Photo.JPG"):
        (tmp_path / name).touch()


@pytest.mark.parametrize("text", ["a red hat", " padded ", "at 10::30", "1/2 {0.__class__} {x}", "שלום", "x" * 5000])
def test_a_prompt_without_a_bar_is_one_text_as_it_stands(text):
    assert read_mixtures([text]) == [(text, (Part(text, False, 1.0),))]


def test_parts_have_weights_and_may_be_pictures():
    (mixture,) = read_mixtures(["a.png | a smile::0.5|My Photo.JPG:: 2e0 |night::-1"])
    assert mixture.parts == (
        Part("a.png", True),
        Part("a smile", False, 0.5),
        Part("My Photo.JPG", True, 2.0),
        Part("night", False, -1.0),
    )
    assert mixture.texts == ["a smile", "night"]
    assert read_mixtures([" a.png "])[0].parts == (Part("a.png", True),)


def test_a_template_goes_around_texts_only_and_formats_nothing_else():
    mixtures = read_mixtures(["a hat|a.png", "{0} {}"], "a photograph of {}, {1}")
    assert mixtures[0].parts == (Part("a photograph of a hat, {1}", False), Part("a.png", True))
    assert mixtures[0].prompt == "a hat|a.png" and mixtures[1].texts == ["a photograph of {0} {}, {1}"]


@pytest.mark.parametrize(
    "prompts, message",
    [
        ([], "no prompt"),
        ([" "], "is empty"),
        (["a|"], "empty part"),
        (["|"], "empty part"),
        (["a|::2"], "empty part"),
        (["a::x|b"], "'x' is not a weight"),
        (["a::nan|b"], "'nan' is not a weight"),
        (["a::inf|b"], "'inf' is not a weight"),
        (["a::0|b::-1"], "at least one weight above 0"),
    ],
)
def test_what_is_wrong_is_named(prompts, message):
    with pytest.raises(ValueError, match=message):
        read_mixtures(prompts)


@pytest.mark.parametrize("prompt", ["b.png", "a hat | b.webp::2"])
def test_a_picture_that_is_not_there_is_named(prompt):
    with pytest.raises(FileNotFoundError, match=r"no picture b\."):
        read_mixtures([prompt])


def test_a_template_has_a_place_for_the_text():
    with pytest.raises(ValueError, match=r"template='a photo of %s'.*\{\}"):
        read_mixtures(["a"], "a photo of %s")
