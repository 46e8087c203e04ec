"""Ranking: another embedder chooses within each prompt, by whatever names it."""

import pytest
import torch
from tiny_models import TinyEmbedder

from clip2latent.augment import Augment, apply_views
from clip2latent.mixtures import read_mixtures
from clip2latent.ranking import augclip, chunk_scores, load_ranker, rank_by
from clip2latent.samples import Chunk

PROMPTS = ["a hat", "night | a dog::2"]


def chunk(num):
    rng = torch.Generator().manual_seed(0)
    images = torch.rand(num, 3, 8, 8, generator=rng) * 2 - 1
    prompt = torch.arange(num) % len(PROMPTS)
    return Chunk(prompt, torch.arange(num), torch.empty(num, 3, 4), images, TinyEmbedder().embed_images(images))


def test_objectives_score_each_image_for_its_own_prompt():
    part, other = chunk(5), TinyEmbedder(seed=9)
    scores = chunk_scores(part, torch.empty(2, 5), rank_by(other)(read_mixtures(PROMPTS)), "cpu")
    texts = other.embed_text(["a hat", "night", "a dog"])
    wanted = torch.stack([texts[0], torch.nn.functional.normalize(texts[1] + 2 * texts[2], dim=-1)])
    expected = (other.embed_images(part.images) * wanted[part.prompt]).sum(-1)
    torch.testing.assert_close(scores, expected)


def test_the_priors_own_embedder_ranks_as_no_ranking_does():
    part, same = chunk(6), TinyEmbedder()
    mixtures = read_mixtures(PROMPTS[:1] * 2)
    plain = chunk_scores(part, same.embed_text(PROMPTS[:1] * 2), None, "cpu")
    torch.testing.assert_close(chunk_scores(part, torch.empty(0), rank_by(same)(mixtures), "cpu"), plain)


def test_augclip_ranks_by_the_mean_over_the_same_views_of_every_image():
    part, embedder = chunk(6), TinyEmbedder()
    objectives = rank_by(embedder, make=augclip(views=5, seed=3))(read_mixtures(PROMPTS[:1] * 2))
    scores = chunk_scores(part, torch.empty(0), objectives, "cpu")
    views = Augment().draw(5, torch.Generator().manual_seed(3))
    seen = apply_views(part.images, views, getattr(embedder, "resolution", 8))
    mean = embedder.embed_images(seen.flatten(0, 1)).unflatten(0, (6, 5)).mean(1)
    torch.testing.assert_close(scores, (mean * embedder.embed_text(PROMPTS[:1])).sum(-1))
    alone = Chunk(*(tensor[2:3] for tensor in part))
    torch.testing.assert_close(chunk_scores(alone, torch.empty(0), objectives, "cpu"), scores[2:3])


def test_a_yaml_file_names_an_embedder(tmp_path):
    (tmp_path / "clip.yaml").write_text("class_path: tiny_models.TinyEmbedder\ninit_args: {seed: 9}\n")
    assert load_ranker(str(tmp_path / "clip.yaml")).weight.equal(TinyEmbedder(seed=9).weight)


@pytest.mark.parametrize(
    "content, message",
    [
        ("- a\n", "expected class_path"),
        ("a: [", "is not yaml"),
        ("class_path: tiny_models.TinyGenerator\n", "not an embedder"),
        ("class_path: os.system\n", "neither an nn.Module"),
        ("class: x\n", "class_path is required"),
    ],
)
def test_a_file_that_names_none_is_refused(tmp_path, content, message):
    (tmp_path / "clip.yaml").write_text(content)
    with pytest.raises(ValueError, match=message):
        load_ranker(str(tmp_path / "clip.yaml"))


def test_sources_that_are_none_are_refused(tmp_path):
    with pytest.raises(ValueError, match="rank='clip'"):
        load_ranker("clip")
    with pytest.raises(FileNotFoundError, match="no embedder file"):
        load_ranker(str(tmp_path / "clip.yaml"))
