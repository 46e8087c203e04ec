"""Initial bases: every source gives the best of its candidates, and a recheck ranks them by something else."""

import contextlib
from types import SimpleNamespace

import pytest
import torch
from test_bank import TARGETS, Classy
from tiny_checkpoint import write_tiny_checkpoint
from tiny_models import TinyEmbedder, TinyGenerator

from clip2latent.bank import Banks
from clip2latent.initial import Picking, from_labels, from_prior, from_random, rechecked
from clip2latent.text2image import TextToImage

PROMPTS = ["a hat", "night", "a dog at noon"]
PICKING = Picking(keep=3, candidates=30, seed=1)


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory):
    return TextToImage.from_pretrained(write_tiny_checkpoint(tmp_path_factory.mktemp("tiny") / "made"), "cpu")


def sources(pipeline, picking=PICKING):
    banks = Banks(Classy(), TinyEmbedder())
    return {
        "random": from_random(banks, picking),
        "labels": from_labels(banks, picking, k=2),
        "prior": from_prior(pipeline, picking, steps=2),
    }


@pytest.mark.parametrize("name", ["random", "labels", "prior"])
def test_a_basis_is_the_best_of_its_candidates_by_the_cosine_of_its_images(name, pipeline):
    basis = sources(pipeline)[name](PROMPTS, TARGETS)
    assert basis.latents.shape == (3, 3, 3, 4) and basis.scores.shape == basis.candidates.shape == (3, 3)
    images = Banks(TinyGenerator(), TinyEmbedder()).embed(basis.latents.flatten(0, 1)).unflatten(0, (3, 3))
    torch.testing.assert_close(basis.scores, torch.cosine_similarity(images, TARGETS[:, None], dim=-1))
    assert (basis.scores.diff(dim=1) <= 0).all()
    more = sources(pipeline, Picking(keep=30, candidates=30, seed=1))[name](PROMPTS, TARGETS)
    torch.testing.assert_close(more.scores[:, :3], basis.scores)
    assert more.candidates.sort(dim=1).values.equal(torch.arange(30).expand(3, 30))


@pytest.mark.parametrize("name", ["random", "labels"])
def test_a_search_tells_how_many_images_and_the_best_score_so_far(name):
    told, updates = [], []

    @contextlib.contextmanager
    def bar(name, total):
        yield SimpleNamespace(update=updates.append, set_postfix_str=told.append)
        assert sum(updates) == total

    banks, picking = Banks(Classy(), TinyEmbedder()), Picking(keep=2, candidates=300)
    source = from_random(banks, picking, bar) if name == "random" else from_labels(banks, picking, 2, bar)
    best = source(PROMPTS[:1], TARGETS[:1]).scores[0, 0]
    shown = [float(text.removeprefix("best ")) for text in told]
    assert len(shown) == 2 and shown == sorted(shown) and shown[-1] == pytest.approx(float(best), abs=1e-3)


@pytest.mark.parametrize("name", ["random", "labels"])
def test_a_search_does_not_depend_on_the_other_prompts(name, pipeline):
    together, alone = (sources(pipeline)[name](PROMPTS[part], TARGETS[part]) for part in (slice(3), slice(1, 2)))
    assert together.latents[1].equal(alone.latents[0])


def test_a_recheck_ranks_by_its_own_objective():
    banks = Banks(Classy(), TinyEmbedder(), chunk=4)
    shortlist = from_random(banks, Picking(keep=12, candidates=40))

    def redness(target):
        return lambda images: 1 - images[:, 0].mean(dim=(1, 2))

    basis = rechecked(shortlist, redness, banks, keep=4)(PROMPTS, TARGETS)
    found = shortlist(PROMPTS, TARGETS)
    for row in range(3):
        red = banks.draw(found.latents[row])[:, 0].mean(dim=(1, 2))
        torch.testing.assert_close(basis.scores[row], red.sort(descending=True).values[:4])
        assert basis.candidates[row].equal(found.candidates[row, red.argsort(descending=True)[:4]])
        torch.testing.assert_close(banks.draw(basis.latents[row])[:, 0].mean(dim=(1, 2)), basis.scores[row])


def test_a_recheck_by_the_same_cosine_changes_nothing():
    from clip2latent.objectives import clip_objective

    banks = Banks(Classy(), TinyEmbedder())
    source = from_labels(banks, PICKING, k=2)
    basis = rechecked(source, lambda target: clip_objective(banks.embedder, target), banks, keep=2)(PROMPTS, TARGETS)
    assert basis.candidates.equal(source(PROMPTS, TARGETS).candidates[:, :2])


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda banks: Picking(keep=4, candidates=3), "keep=4"),
        (lambda banks: Picking(keep=0), "keep=0"),
        (lambda banks: from_labels(Banks(TinyGenerator(), TinyEmbedder()), PICKING), "no classes"),
        (lambda banks: from_labels(banks, PICKING, k=4)(PROMPTS, TARGETS), "k=4"),
        (lambda banks: rechecked(from_random(banks, PICKING), None, banks, keep=4)(PROMPTS, TARGETS), "keep=4"),
    ],
)
def test_what_does_not_fit_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call(Banks(Classy(), TinyEmbedder()))
