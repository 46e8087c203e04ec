"""Conditions: texts and pictures each cross the bridge by their own side, and mix as directions do."""

import pytest
import torch
from tiny_models import TinyEmbedder
from torch.nn.functional import normalize

from clip2latent.bridge import Bridge
from clip2latent.conditions import blend, embed_targets, make_conditions
from clip2latent.images import read_picture, save_png, to_pil
from clip2latent.mixtures import Mixture, Part, read_mixtures

EMBEDDER, BRIDGE = (
    TinyEmbedder(),
    Bridge(torch.tensor([0.1, 0.2, -0.1, 0.0, 0.3]), torch.tensor([0.3, -0.2, 0.1, 0, 0.4])),
)


@pytest.fixture
def picture(tmp_path):
    rng = torch.Generator().manual_seed(0)
    save_png(to_pil(torch.rand(1, 3, 8, 8, generator=rng) * 2 - 1)[0], tmp_path / "a.png")
    return str(tmp_path / "a.png")


def conditions(*prompts, **options):
    return make_conditions(EMBEDDER, BRIDGE, read_mixtures(prompts), **options)


def test_texts_and_pictures_cross_by_their_own_side(picture):
    found = conditions("a hat", picture)
    text, image = EMBEDDER.embed_text(["a hat"]), EMBEDDER.embed_images(read_picture(picture))
    assert found.positive[0].equal(BRIDGE.texts(text)[0]) and found.positive[1].equal(BRIDGE.images(image)[0])
    assert found.targets.equal(torch.cat([text, image])) and found.negative is None


def test_bits_do_not_depend_on_the_other_prompts(picture):
    alone, among = conditions("a hat|dog"), conditions("night", picture, "a hat|dog", "dog")
    assert alone.positive[0].equal(among.positive[2]) and alone.targets[0].equal(among.targets[2])


def test_a_mixture_goes_from_one_part_to_the_other(picture):
    a, b = conditions("a hat", picture).positive
    for share in (0.0, 0.25, 0.5, 1.0):
        mixed = conditions(f"a hat::{1 - share} | {picture}::{share}").positive[0]
        torch.testing.assert_close(mixed, normalize((1 - share) * a + share * b, dim=0))
    torch.testing.assert_close(conditions("a hat|a hat::3").positive[0], a)
    torch.testing.assert_close(conditions("dog|a hat").positive, conditions("a hat::2|dog::2").positive)


def test_a_mixture_is_as_long_as_its_parts_on_average():
    vectors = {"a": torch.tensor([3.0, 0.0]), "b": torch.tensor([0.0, 5.0])}
    mixture = Mixture("a|b", (Part("a", False, 3.0), Part("b", False, 1.0)))
    mixed = blend([mixture], lambda part: vectors[part.source])[0]
    torch.testing.assert_close(mixed.norm(), torch.tensor(3.5))
    torch.testing.assert_close(mixed[0] / mixed[1], torch.tensor(3.0))


def test_a_negative_weight_leads_away():
    plain, away = (conditions(prompt).targets[0] for prompt in ("a hat", "a hat | dog::-0.3"))
    dog = conditions("dog").targets[0]
    assert away @ dog < plain @ dog


def test_negatives_are_one_for_all_or_one_each():
    one = conditions("a", "b", negatives=read_mixtures(["dog"])).negative
    assert one.shape == (2, 5) and one[0].equal(one[1]) and one[0].equal(conditions("dog").positive[0])
    each = conditions("a", "b", negatives=read_mixtures(["dog", "night"])).negative
    assert each.equal(conditions("dog", "night").positive)
    with pytest.raises(ValueError, match="expected 1 prompt or 3"):
        conditions("a", "b", "c", negatives=read_mixtures(["dog", "night"]))


def test_parts_that_cancel_out_are_refused():
    with pytest.raises(ValueError, match="cancel out"):
        conditions("a hat | a hat::-1")


def test_targets_of_another_embedder_have_its_width():
    class Wide(TinyEmbedder):
        dim = 7

        def embed_text(self, prompts):
            return torch.eye(7)[: len(prompts)]

    assert embed_targets(Wide(), read_mixtures(["a", "b|c"])).shape == (2, 7)
