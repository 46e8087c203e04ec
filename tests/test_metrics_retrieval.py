"""R-precision and the best of several: laws, chance levels and definitions."""

import math
from itertools import combinations

import pytest
import torch

from clip2latent.metrics_retrieval import expected_best, r_precision


def unit(num: int, width: int = 16, seed: int = 0) -> torch.Tensor:
    return torch.nn.functional.normalize(torch.randn(num, width, generator=torch.Generator().manual_seed(seed)), dim=1)


def test_perfect_embeddings_find_every_text_and_random_ones_one_in_a_hundred():
    texts = unit(300)
    own = torch.arange(300)
    assert r_precision(3 * texts, texts, own) == (1.0, 0.0, (1.0, 1.0, 1.0), 99)
    found = r_precision(unit(4000, seed=1), texts, torch.arange(4000) % 300, seed=5)
    assert found.mean == pytest.approx(0.01, abs=3 * math.sqrt(0.01 * 0.99 / 4000)) and len(found.repeats) == 3
    assert found.deviation == pytest.approx(float(torch.tensor(found.repeats, dtype=torch.float64).std()))


def test_embeddings_that_say_nothing_are_worth_chance_and_not_all():
    found = r_precision(torch.ones(50, 8), torch.ones(100, 8), torch.arange(50))
    assert found.mean == pytest.approx(0.01) and found.deviation == pytest.approx(0)


def test_all_other_texts_as_distractors_is_the_plain_accuracy():
    images, texts = unit(60, seed=1), unit(20, seed=2)
    images = images + 0.8 * texts[(own := torch.arange(60) % 20)]
    expected = ((images @ texts.mT).argmax(1) == own).double().mean()
    assert 0.2 < expected < 1
    found = r_precision(images, texts, own, distractors=19)
    assert found.repeats == pytest.approx([float(expected)] * 3)
    assert r_precision(images, texts, own, distractors=3, repeats=1).mean > found.mean


def test_the_own_text_is_never_its_own_distractor_and_rows_do_not_depend_on_the_chunk(monkeypatch):
    images, texts = unit(70, seed=1), unit(30, seed=2)
    whole = r_precision(images, texts, torch.arange(70) % 30, 10, seed=3)
    monkeypatch.setattr("clip2latent.metrics_retrieval.ROWS", 9)
    assert r_precision(images, texts, torch.arange(70) % 30, 10, seed=3) == whole
    assert r_precision(images, texts, torch.arange(70) % 30, 10, seed=4) != whole
    assert r_precision(texts, texts, torch.arange(30), 29).mean == 1


@pytest.mark.parametrize("wrong", [{"distractors": 5}, {"distractors": 0}, {"repeats": 0}])
def test_impossible_numbers_are_named(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        r_precision(unit(5), unit(5), torch.arange(5), **{"distractors": 4, **wrong})


def test_the_expected_best_is_the_mean_over_all_subsets():
    scores = torch.randn(3, 6, generator=torch.Generator().manual_seed(0))
    for num in range(1, 7):
        expected = [torch.stack([row[list(c)].max() for c in combinations(range(6), num)]).mean() for row in scores]
        torch.testing.assert_close(expected_best(scores, num).float(), torch.stack(expected))
    torch.testing.assert_close(expected_best(scores, 1).float(), scores.mean(1))
    assert expected_best(scores, 6).float().equal(scores.max(1).values)
    with pytest.raises(ValueError, match="num=7"):
        expected_best(scores, 7)


def test_r_precision_among_all_texts_agrees_with_torchmetrics():
    retrieval = pytest.importorskip("torchmetrics.functional.retrieval", reason="torchmetrics is not installed")
    texts, images, own = unit(40), unit(120, seed=1) + 0.5 * unit(40).repeat(3, 1), torch.arange(120) % 40
    cosines = torch.nn.functional.normalize(images, dim=1) @ texts.T
    relevant = torch.arange(40) == own[:, None]
    pairs = zip(cosines, relevant, strict=True)
    hits = [retrieval.retrieval_precision(row, wanted, top_k=1) for row, wanted in pairs]
    found = r_precision(images, texts, own, distractors=39, repeats=1)
    assert 0.3 < found.mean < 0.99 and found.mean == pytest.approx(float(torch.stack(hits).mean()), abs=1e-6)
