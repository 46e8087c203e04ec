import json
from collections import Counter
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch

from clip2latent import openclip
from clip2latent.embedders import load_embedder
from demo import avatars, clip, clip_scores, objects
from demo.augment import augment
from demo.clip_losses import Heads, contrast_and_attributes, encode_captions
from demo.data import UNKNOWN, Renders, labels, render
from demo.pairs import GROUP, Pairs, Source, draw_group
from demo.training import State, cosine, step_rng
from demo.vocabulary import learn_merges, vocab_size, write_merges

FACES = Source(avatars, rows=6, groups=1, varied={"expression": 1.0})
THINGS = Source(objects, rows=5, groups=1, varied={"class": 1.0, "color": 1.0})


def test_every_word_becomes_one_token(tmp_path: Path) -> None:
    words = Counter({"hat": 9, "hair": 7, "house": 1, "a": 20})
    merges = learn_merges(words)
    write_merges(tmp_path / "merges.txt.gz", merges)
    tokenizer = open_clip.SimpleTokenizer(bpe_path=str(tmp_path / "merges.txt.gz"), context_length=8)
    assert tokenizer.vocab_size == vocab_size(merges) == tokenizer.eot_token_id + 1
    assert [len(tokenizer.encode(word)) for word in words] == [1, 1, 1, 1]
    assert len(tokenizer.encode("harpsichord")) > 1
    assert tokenizer.decode(tokenizer.encode("a wizard hat")) == "a wizard hat "


def test_merges_are_reproducible(tmp_path: Path) -> None:
    words = {"hat": 2, "cat": 2, "that": 1}
    for name in ("a", "b"):
        write_merges(tmp_path / name, learn_merges(dict(reversed(words.items())) if name == "b" else words))
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    with pytest.raises(ValueError, match="'café'"):
        learn_merges({"café": 1})


def test_renders_go_on_where_they_stopped() -> None:
    stream, resumed = iter(Renders(objects, 3, 2)), iter(Renders(objects, 3, 2, start=1))
    next(stream)
    second, again = next(stream), next(resumed)
    assert torch.equal(second.images, again.images) and second.captions == again.captions
    assert second.images.shape == (2, 3, 64, 64) and second.images.abs().max() <= 1
    assert torch.equal(second.images, render(objects, 3, [2, 3]).images)


def test_labels_leave_out_what_is_not_named() -> None:
    found = labels({"hat": ("none", "cap")}, [{"hat": "cap"}, {}, {"hat": "any"}, {"hat": "none"}])
    assert found["hat"].tolist() == [1, UNKNOWN, UNKNOWN, 0]


def test_augmentation_is_mild_and_a_function_of_its_generator() -> None:
    images = render(avatars, 0, range(4)).images
    before = images.clone()
    first, second = (augment(images, step_rng(0, 5)) for _ in range(2))
    assert torch.equal(first, second) and torch.equal(images, before)
    assert not torch.equal(first, augment(images, step_rng(0, 6)))
    assert 0 < (first - images).abs().mean() < 0.25


def test_batches_are_a_function_of_seed_and_step() -> None:
    stream, resumed = iter(Pairs([FACES, THINGS], 1, pool=4)), iter(Pairs([FACES, THINGS], 1, pool=4, start=2))
    next(stream), next(stream)
    for part, again, rows in zip(next(stream), next(resumed), (6, 5), strict=True):
        assert torch.equal(part.images, again.images) and part.captions == again.captions
        assert len(part.captions) == len(part.images) == len(part.attributes) == rows


@pytest.mark.parametrize("source", [FACES, THINGS])
def test_groups_differ_in_one_attribute_that_their_captions_name(source: Source) -> None:
    for number in range(4):
        rows = [example.attributes for example in draw_group(source, 0, number)]
        differing = [name for name in rows[0] if len({row[name] for row in rows}) > 1]
        assert len(rows) == GROUP and len(differing) == 1 and differing[0] in source.varied
    batch = next(iter(Pairs([source], 0, pool=4)))[0]
    for caption, attributes in zip(batch.captions, batch.attributes, strict=True):
        assert clip_scores.satisfies(source.world, attributes, source.world.parse(caption))
    assert len(set(batch.captions[-GROUP:])) == GROUP


def test_captions_are_encoded_as_by_open_clip() -> None:
    embedder = load_embedder()
    captions = [avatars.example(0, index).caption for index in range(5)] + ["a cat"]
    tokens = embedder.tokenizer(captions)
    assert torch.allclose(encode_captions(embedder.clip, tokens), embedder.clip.encode_text(tokens), atol=1e-5)


def test_losses_fall_when_images_match_their_captions() -> None:
    parts = next(iter(Pairs([FACES], 0, pool=4)))
    heads = Heads(16, {"avatars": avatars})
    features, scale = torch.eye(6, 16), torch.tensor(5.0)
    matched = contrast_and_attributes(scale, heads, features, features, parts)
    crossed = contrast_and_attributes(scale, heads, features, features.flip(0), parts)
    assert matched["contrast"] < 0.1 < crossed["contrast"]
    assert set(matched) == {"contrast", "avatars_image", "avatars_text"}


def test_learning_rate_rises_and_falls() -> None:
    rates = [cosine(step, steps=100, warmup=10) for step in range(100)]
    assert np.argmax(rates) in (9, 10) and max(rates) == 1 and rates[0] < 0.2 and rates[-1] < 0.02


def test_a_killed_training_goes_on_to_the_same_clip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    preset = clip.PRESETS["smoke"]
    monkeypatch.setattr(clip, "scores", lambda embedder, sets: {})
    clip.train(preset, tmp_path / "whole", tmp_path / "a")
    save = State.save

    def save_and_die(self: State, step: int) -> None:
        save(self, step)
        raise KeyboardInterrupt

    monkeypatch.setattr(State, "save", save_and_die)
    with pytest.raises(KeyboardInterrupt):
        clip.train(preset, tmp_path / "cut", tmp_path / "b")
    monkeypatch.setattr(State, "save", save)
    clip.train(preset, tmp_path / "cut", tmp_path / "b")
    whole, cut = (load_embedder(str(tmp_path / name)).state_dict() for name in "ab")
    assert all(torch.equal(whole[name], cut[name]) for name in whole)
    assert (tmp_path / "a/merges.txt.gz").read_bytes() == (tmp_path / "b/merges.txt.gz").read_bytes()


def test_shipped_clip_fits_the_recipe() -> None:
    embedder = load_embedder()
    config = json.loads((Path(openclip.__file__).parent / "assets/demo-clip/config.json").read_text())
    vocabulary = config["model_cfg"]["text_cfg"]["vocab_size"]
    assert config["model_cfg"] == clip.model_cfg(clip.PRESETS["cpu"], vocabulary)
    for world in clip.WORLDS.values():
        captions = [world.example(7, index).caption for index in range(50)]
        assert not [word for caption in captions for word in embedder.unknown_words(caption)]


@pytest.mark.parametrize(("name", "to_text", "to_image"), [("avatars", 0.72, 0.68), ("objects", 0.75, 0.75)])
def test_shipped_clip_retrieves_held_out_pairs(name: str, to_text: float, to_image: float) -> None:
    found = clip_scores.retrieval(load_embedder(), clip.WORLDS[name], seed=4321, sets=3)
    assert found.image_to_text >= to_text and found.text_to_image >= to_image, found


def test_shipped_clip_knows_the_attributes() -> None:
    found = clip_scores.zero_shot(load_embedder(), avatars, clip.prompts("avatars"), seed=4321, num=300)
    wanted = {"expression": 0.5, "age": 0.7, "hair_color": 0.7, "hat": 0.7}
    assert all(found[name] >= least for name, least in wanted.items()), found
    assert set(found) == set(avatars.ATTRIBUTES)
