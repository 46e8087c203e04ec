"""Remake: a picture's file holds what draws it again to the bit, whatever batch it was drawn in."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_checkpoint import write_tiny_checkpoint

from clip2latent.images import METADATA_KEY, RECIPE_KEY, read_metadata, read_recipe, save_png
from clip2latent.remake import decode, encode, remake
from clip2latent.results import save_samples
from clip2latent.text2image import TextToImage

PROMPTS = ["a red hat", "a dog | night::0.5", "x / \N{GRINNING FACE}"]


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory):
    return TextToImage.from_pretrained(write_tiny_checkpoint(tmp_path_factory.mktemp("prior") / "tiny"))


def drawn(pipeline, folder, **options):
    samples = pipeline.generate(PROMPTS, num=3, candidates=5, **options)
    save_samples(samples.best(2), folder, {"seed": 0}, pipeline.identities())
    return sorted(folder.glob("0*.png"))


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"chunk": 4, "sampler": "ddpm", "steps": 5, "seed": 3, "guidance": 1.0},
        {"chunk": 7, "negative": "a | b", "sampler": "sde-dpmpp", "truncation": 0.7, "guidance_interval": (5, 40)},
    ],
)
def test_every_picture_is_remade_to_the_bit(pipeline, tmp_path, options):
    files = drawn(pipeline, tmp_path / "out", **options)
    assert len(files) == 6
    for file in files:
        remade = remake(pipeline, file)
        assert remade.differing == 0
        assert (np.asarray(remade.picture) == np.asarray(Image.open(file))).all()


def test_a_recipe_names_no_prompts_but_those_of_its_batch(pipeline, tmp_path):
    files = drawn(pipeline, tmp_path / "out", chunk=5)
    assert [list(read_recipe(file)["conditions"]) for file in files] == [["0"], ["0"], ["1"], ["1"], ["2"], ["2"]]


def test_other_pixels_are_counted(pipeline, tmp_path):
    file = drawn(pipeline, tmp_path / "out")[0]
    picture = Image.open(file)
    picture.load()
    picture.putpixel((2, 3), tuple(255 - value for value in picture.getpixel((2, 3))))
    save_png(picture, file, read_metadata(file), read_recipe(file))
    assert remake(pipeline, file).differing == 1


def test_other_models_are_refused_naming_both(pipeline, tmp_path):
    file = drawn(pipeline, tmp_path / "out")[0]
    metadata = read_metadata(file)
    metadata["models"]["prior"]["sha256"] = "0" * 64
    save_png(Image.open(file).copy(), file, metadata, read_recipe(file))
    with pytest.raises(ValueError, match=r"prior of sha256 000000000000.*--checkpoint"):
        remake(pipeline, file)


@pytest.mark.parametrize(
    "changes",
    [
        {"sampling": {"guidance": 1.0, "steps": -1}},
        {"sampling": {"guidance": 1.0, "sigma": 1}},
        {"sampling": {"guidance": None}},
        {"sampling": 3},
        {"rows": 10**9},
        {"rows": 1},
        {"candidates": 0},
        {"candidates": 10**9},
        {"conditions": {"0": "!"}},
        {"conditions": {"7": encode(torch.zeros(5))}},
        {"conditions": {"0": encode(torch.zeros(3))}},
        {"conditions": None},
    ],
)
def test_a_damaged_recipe_is_refused(pipeline, tmp_path, changes):
    file = drawn(pipeline, tmp_path / "out")[1]
    metadata, recipe = read_metadata(file), read_recipe(file)
    metadata["candidate"] = 4
    save_png(Image.open(file).copy(), file, metadata, {**recipe, **changes})
    with pytest.raises(ValueError, match="recipe is damaged"):
        remake(pipeline, file)


def test_files_without_a_recipe_are_refused(pipeline, tmp_path):
    drawn(pipeline, tmp_path / "out")
    with pytest.raises(ValueError, match="no recipe"):
        remake(pipeline, tmp_path / "out" / "grid.png")
    Image.new("RGB", (2, 2)).save(tmp_path / "foreign.png")
    with pytest.raises(ValueError, match="no clip2latent metadata"):
        remake(pipeline, tmp_path / "foreign.png")
    with pytest.raises(FileNotFoundError):
        remake(pipeline, tmp_path / "none.png")


def test_numbers_keep_their_bits():
    vector = torch.randn(9, generator=torch.Generator().manual_seed(0)) * 1e-20
    assert decode(encode(vector)).equal(vector) and decode(encode(vector)).shape == (9,)
    assert METADATA_KEY != RECIPE_KEY and json.dumps(encode(vector)).isascii()
