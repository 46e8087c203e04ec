"""Metrics: known values, laws, and scipy where it is installed."""

import math

import pytest
import torch

from clip2latent.metrics import (
    clip_score,
    diversity,
    frechet_distance,
    judge_accuracy,
    normalised_frechet,
    total_variation,
)


def features(n: int, width: int, seed: int) -> torch.Tensor:
    rng = torch.Generator().manual_seed(seed)
    return torch.randn(n, width, generator=rng) @ torch.randn(width, width, generator=rng)


def test_clip_score_is_each_images_cosine_with_its_own_prompt():
    images = torch.tensor([[[1.0, 0.0], [0.0, 2.0]], [[3.0, 0.0], [1.0, 1.0]]])
    texts = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    torch.testing.assert_close(clip_score(images, texts), torch.tensor([[1.0, 0.0], [0.0, math.sqrt(0.5)]]))
    with pytest.raises(ValueError, match="do not fit"):
        clip_score(images, texts[:1])


def test_diversity_is_zero_for_copies_and_one_for_orthogonal_images():
    copies = torch.ones(1, 4, 3)
    orthogonal = torch.eye(3)[None]
    torch.testing.assert_close(diversity(torch.cat([copies[:, :3], 5 * orthogonal])), torch.tensor([0.0, 1.0]))
    with pytest.raises(ValueError, match="at least 2"):
        diversity(copies[:, :1])


def test_diversity_agrees_with_the_pairwise_definition():
    x = features(5, 7, 0)
    pairs = [1 - torch.cosine_similarity(x[i], x[j], dim=0) for i in range(5) for j in range(i)]
    torch.testing.assert_close(diversity(x[None])[0], torch.stack(pairs).mean())


def test_frechet_distance_of_shifted_and_scaled_gaussians():
    x = features(500, 6, 0).double()
    shift = torch.arange(6.0, dtype=torch.float64)
    assert frechet_distance(x, x) == pytest.approx(0, abs=1e-6)
    assert frechet_distance(x, x + shift) == pytest.approx(float(shift.square().sum()), rel=1e-6)
    # A and c^2 A commute: tr(A + c^2 A - 2 c A) = (c - 1)^2 tr A, and the mean moves too.
    centred = x - x.mean(0)
    assert frechet_distance(centred, 3 * centred) == pytest.approx(4 * float(torch.cov(x.mT).trace()), rel=1e-6)


def test_frechet_distance_is_symmetric_and_survives_singular_covariances():
    a, b = features(8, 20, 1), features(9, 20, 2)
    assert frechet_distance(a, b) == pytest.approx(frechet_distance(b, a), rel=1e-6)
    assert math.isfinite(frechet_distance(a, b)) and frechet_distance(a, a) == pytest.approx(0, abs=1e-5)


def test_frechet_distance_agrees_with_scipy():
    linalg = pytest.importorskip("scipy.linalg")
    a, b = features(300, 12, 3), features(400, 12, 4) + 1
    cov_a, cov_b = torch.cov(a.double().mT).numpy(), torch.cov(b.double().mT).numpy()
    mean = float((a.double().mean(0) - b.double().mean(0)).square().sum())
    expected = mean + (cov_a + cov_b - 2 * linalg.sqrtm(cov_a @ cov_b).real).trace()
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-6)


def test_normalised_frechet_does_not_depend_on_the_features_scale():
    a, b = features(300, 5, 5), features(300, 5, 6)
    assert normalised_frechet(a, b) == pytest.approx(normalised_frechet(100 * a, 100 * b), rel=1e-4)
    point = a.mean(0).expand(10, 5)
    assert normalised_frechet(a, point) == pytest.approx(1, rel=1e-4)


@pytest.mark.parametrize("bad", [torch.zeros(1, 3), torch.zeros(3)])
def test_frechet_distance_refuses_what_has_no_covariance(bad):
    with pytest.raises(ValueError, match="b: expected features"):
        frechet_distance(torch.zeros(4, 3), bad)


def test_total_variation_is_the_share_that_would_have_to_change():
    a, b = torch.tensor([0, 0, 1, 2]), torch.tensor([0, 1, 1, 1])
    assert total_variation(a, b, 3) == pytest.approx(0.5)
    assert total_variation(a, a.repeat(3), 3) == 0
    assert total_variation(torch.zeros(5).long(), torch.ones(2).long(), 2) == 1


VALUES = {"hat": ("none", "cap", "crown"), "age": ("young", "old")}


def test_judge_accuracy_counts_only_what_a_prompt_names():
    predictions = {"hat": torch.tensor([[1, 2], [0, 1], [0, 0]]), "age": torch.tensor([[0, 1], [1, 1], [1, 1]])}
    named = [{"hat": "cap", "age": "old"}, {"hat": "any"}, {}]
    found = judge_accuracy(predictions, named, VALUES)
    assert found.mean == pytest.approx(3 / 6) and found.count == 6
    assert found.by_prompt == [0.5, 0.5, None]
    assert found.by_attribute == {"age": 0.5, "hat": 0.5}


def test_judge_accuracy_without_named_attributes_is_no_number():
    assert judge_accuracy({"hat": torch.zeros(1, 2).long()}, [{}], VALUES).mean is None


@pytest.mark.parametrize("named", [{"shoes": "red"}, {"hat": "helmet"}])
def test_judge_accuracy_names_what_the_judge_does_not_know(named):
    with pytest.raises(ValueError, match=r"the judge does not know .*it knows"):
        judge_accuracy({"hat": torch.zeros(1, 2).long()}, [named], VALUES)


def test_cosines_agree_with_scipy():
    distance = pytest.importorskip("scipy.spatial.distance", reason="scipy is not installed")
    images, texts = torch.randn(3, 4, 6), torch.randn(3, 6)
    expected = [1 - distance.cdist(row, text[None], "cosine")[:, 0] for row, text in zip(images, texts, strict=True)]
    assert clip_score(images, texts).tolist() == [pytest.approx(row.tolist(), abs=1e-6) for row in expected]
    assert diversity(images).tolist() == pytest.approx(
        [distance.pdist(row, "cosine").mean() for row in images], abs=1e-6
    )
