"""Label-guided search: the classes, the candidates and the best, beside algorithm 1 done candidate by candidate."""

import pytest
import torch
from test_bank import TARGETS, Classy, Counting
from tiny_models import TinyEmbedder, TinyGenerator

from clip2latent.bank import Banks
from clip2latent.embedders import load_embedder
from clip2latent.generators import load_generator
from clip2latent.label_search import (
    check_classes,
    class_bank,
    embed_candidates,
    label_embeddings,
    lay_out,
    nearest_classes,
    pick_candidates,
    rows_of,
    score_candidates,
)

CLASSES = torch.tensor([[2, 0], [0, 1], [1, 2]])


def test_labels_are_embedded_as_the_paper_s_sentence():
    found = label_embeddings(["great_white_shark", "hen"], TinyEmbedder())
    torch.testing.assert_close(found, TinyEmbedder().embed_text(["An image of great white shark", "An image of hen"]))
    assert not found.equal(label_embeddings(["great_white_shark", "hen"], TinyEmbedder(), "a {}"))


@pytest.mark.parametrize("k", [1, 2, 5])
def test_nearest_classes_are_those_of_the_largest_cosine(k):
    labels = torch.randn(5, 5, generator=torch.Generator().manual_seed(0))
    found = nearest_classes(7 * TARGETS, labels, k)
    cosine = torch.cosine_similarity(TARGETS[:, None], labels[None], dim=-1)
    assert found.equal(cosine.topk(k, dim=1).indices)


def test_candidates_are_uniform_over_the_classes_and_never_the_same_twice():
    plan = lay_out(CLASSES, 4000, seed=1)
    for own, classes, rows in zip(CLASSES, plan.classes, plan.rows, strict=True):
        assert len(set(zip(classes.tolist(), rows.tolist(), strict=True))) == 4000
        assert classes.unique().equal(own.sort().values)
        for index in own:
            assert abs(int((classes == index).sum()) - 2000) < 200  # six standard deviations
            assert rows[classes == index].equal(torch.arange(int((classes == index).sum())))
    orders = [(classes == own[0]) for own, classes in zip(CLASSES, plan.classes, strict=True)]
    assert not orders[0].equal(orders[1])  # prompts of other classes have other orders
    needed = {index: int((plan.classes == index).sum(1).max()) for index in range(3)}
    assert rows_of([plan]) == needed


def test_more_candidates_extend_fewer_and_another_seed_has_others():
    few, many, other = lay_out(CLASSES, 50), lay_out(CLASSES, 70), lay_out(CLASSES, 50, seed=1)
    assert few.classes.equal(many.classes[:, :50]) and few.rows.equal(many.rows[:, :50])
    assert not few.classes.equal(other.classes)


def test_scores_are_those_of_algorithm_1_candidate_by_candidate():
    banks = Banks(Classy(), TinyEmbedder(), chunk=7)
    plan = lay_out(CLASSES, 45, seed=2)
    (scores,) = score_candidates([plan], TARGETS, banks)
    best = pick_candidates(scores, plan, banks, keep=3)
    for prompt, target in enumerate(TARGETS):
        seen, latents = [], []
        for index, row in zip(plan.classes[prompt].tolist(), plan.rows[prompt].tolist(), strict=True):
            bank = class_bank(banks, 2, index)
            latents.append(bank.latents(row // bank.block)[row % bank.block])
            image = banks.generator.synthesize(latents[-1][None])
            seen.append(float(torch.cosine_similarity(TinyEmbedder().embed_images(image)[0], target, dim=0)))
        order = sorted(range(45), key=lambda j: -seen[j])[:3]
        torch.testing.assert_close(best.scores[prompt], torch.tensor([seen[j] for j in order]))
        assert best.candidates[prompt].tolist() == order
        assert best.latents[prompt].equal(torch.stack([latents[j] for j in order]))
        assert plan.classes[prompt, order].equal(best.latents[prompt, :, 0, 3].long())


def test_a_prompt_s_result_does_not_depend_on_the_others():
    banks = Banks(Classy(), TinyEmbedder())
    together = lay_out(CLASSES, 40)
    alone = lay_out(CLASSES[1:2], 40)
    a, b = score_candidates([together], TARGETS, banks)[0], score_candidates([alone], TARGETS[1:2], banks)[0]
    torch.testing.assert_close(a[1:2], b)
    first = torch.arange(3)
    assert together.latents(first.expand(3, 3), banks)[1].equal(alone.latents(first[None], banks)[0])


def test_embeddings_of_candidates_are_those_of_their_latents():
    banks = Banks(Classy(), TinyEmbedder())
    plan = lay_out(CLASSES, 20)
    latents = plan.latents(torch.arange(12).expand(3, 12), banks)
    torch.testing.assert_close(embed_candidates(plan, 12, banks), banks.embed(latents.flatten(0, 1)).view(3, 12, 5))


def test_plans_share_what_they_draw(tmp_path):
    class Counted(Classy, Counting):
        pass

    generator = Counted()
    plans = [lay_out(CLASSES[:, :k], 20) for k in (1, 2)]
    done = []
    banks = Banks(generator, TinyEmbedder())
    tables = score_candidates(plans, TARGETS, banks, done.append)
    assert rows_of(plans) == {0: 20, 1: 20, 2: 20} and sum(done) == generator.drawn == 60
    assert [table.shape for table in tables] == [(3, 20), (3, 20)]
    kept = score_candidates(plans, TARGETS, Banks(generator, TinyEmbedder(), tmp_path))
    again = score_candidates(plans, TARGETS, Banks(generator, TinyEmbedder(), tmp_path))
    assert generator.drawn == 60 + 96  # whole blocks, once
    for table, one, two in zip(tables, kept, again, strict=True):
        torch.testing.assert_close(table, one)
        assert one.equal(two)


def test_the_demo_finds_the_class_of_what_is_asked_for():
    generator, embedder = load_generator("demo-objects"), load_embedder("demo")
    prompts = ["a red fish", "a white kitten at night", "a spaceship on a red background", "a toadstool in a meadow"]
    labels = label_embeddings(check_classes(generator), embedder)
    found = nearest_classes(embedder.embed_text(prompts), labels, 1)
    assert [generator.class_names[index] for index in found[:, 0]] == ["fish", "cat", "rocket", "mushroom"]


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: nearest_classes(TARGETS, TARGETS, 0), "k=0: expected 1 to 3"),
        (lambda: nearest_classes(TARGETS, TARGETS, 4), "k=4: expected 1 to 3"),
        (lambda: lay_out(CLASSES, 0), "num=0"),
        (lambda: check_classes(TinyGenerator()), "TinyGenerator has no classes"),
        (lambda: pick_candidates(torch.zeros(3, 4), lay_out(CLASSES, 4), None, 5), "keep=5"),
    ],
)
def test_what_does_not_fit_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
