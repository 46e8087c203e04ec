"""Scores of sets: laws, straightforward references, and torchmetrics and torch-fidelity where they are installed."""

import math

import pytest
import torch
from torch import nn

from clip2latent.metrics import frechet_distance
from clip2latent.metrics_sets import inception_score, kernel_distance, manifold


def features(num: int, width: int = 6, seed: int = 0, shift: float = 0.0) -> torch.Tensor:
    mixing = torch.randn(width, width, generator=torch.Generator().manual_seed(99))
    return torch.randn(num, width, generator=torch.Generator().manual_seed(seed)) @ mixing + shift


def probabilities(num: int, classes: int = 7, seed: int = 0) -> torch.Tensor:
    return (2 * torch.randn(num, classes, generator=torch.Generator().manual_seed(seed))).softmax(1)


class Same(nn.Module):
    """What torchmetrics calls a feature extractor: the numbers as they are, of images [B, F] in disguise."""

    num_features = 6

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.flatten(1)[:, :6].float()


def test_the_inception_score_lies_between_one_and_the_number_of_classes():
    sure = torch.eye(5).repeat(20, 1)
    assert inception_score(sure, splits=1).mean == pytest.approx(5)
    assert inception_score(sure[:1].repeat(30, 1), splits=3) == (pytest.approx(1), pytest.approx(0), 3, 10)
    found = inception_score(probabilities(300), splits=10)
    assert 1 < found.mean < 7 and found.deviation > 0
    assert found == inception_score(probabilities(300), splits=10) != inception_score(probabilities(300), seed=1)
    with pytest.raises(ValueError, match="sum to 1"):
        inception_score(torch.randn(20, 5))
    with pytest.raises(ValueError, match="splits=10"):
        inception_score(probabilities(5))


def test_the_inception_score_agrees_with_its_definition():
    p = probabilities(40).double()
    kl = [sum(float(x * math.log(x / q)) for x, q in zip(row, p.mean(0), strict=True)) for row in p]
    assert inception_score(p, splits=1).mean == pytest.approx(math.exp(sum(kl) / 40), rel=1e-9)


def test_the_inception_score_agrees_with_torchmetrics():
    image = pytest.importorskip("torchmetrics.image.inception", reason="torchmetrics is not installed")
    logits = features(64)
    metric = image.InceptionScore(feature=Same(), splits=1)
    metric.update(logits)
    assert inception_score(logits.softmax(1), splits=1).mean == pytest.approx(float(metric.compute()[0]), rel=1e-4)


def test_the_kernel_distance_of_one_distribution_is_near_zero_on_both_sides_and_grows_with_a_shift():
    found = [kernel_distance(features(60, seed=2 * n), features(60, seed=2 * n + 1), 1).mean for n in range(200)]
    mean = torch.tensor(found, dtype=torch.float64)
    assert min(found) < 0 < max(found) and abs(mean.mean()) < 3 * mean.std() / math.sqrt(len(found))
    near, far = (kernel_distance(features(200), features(200, seed=1, shift=s), 20, 100).mean for s in (0.5, 2.0))
    assert 0 < near < far
    assert kernel_distance(features(30), features(50, seed=1), 3, 1000).size == 30


def test_the_kernel_distance_agrees_with_its_definition():
    a, b = features(12).double(), features(9, seed=1).double()

    def kernel(x, y):
        return (float(x @ y) / 6 + 1) ** 3

    # One subset of all rows is no subset at all, where both sets are of one size.
    a = a[:9]
    within = sum(kernel(x[i], x[j]) for x in (a, b) for i in range(9) for j in range(9) if i != j) / 72
    between = sum(kernel(x, y) for x in a for y in b) / 81
    assert kernel_distance(a, b, 1).mean == pytest.approx(within - 2 * between, rel=1e-9)


def test_distances_agree_with_torchmetrics():
    fid = pytest.importorskip("torchmetrics.image.fid", reason="torchmetrics is not installed")
    from torchmetrics.image.kid import KernelInceptionDistance

    real, fake = features(80), features(80, seed=1, shift=0.7)
    reference = fid.FrechetInceptionDistance(feature=Same(), input_img_size=(1, 1, 6)).set_dtype(torch.float64)
    kernel = KernelInceptionDistance(feature=Same(), subsets=1, subset_size=80)
    for metric in (reference, kernel):
        metric.update(real, real=True)
        metric.update(fake, real=False)
    assert frechet_distance(real, fake) == pytest.approx(float(reference.compute()), rel=1e-4)
    assert kernel_distance(real, fake, 1, 80).mean == pytest.approx(float(kernel.compute()[0]), rel=1e-4)


def test_precision_and_recall_agree_with_torch_fidelity():
    prc = pytest.importorskip("torch_fidelity.metric_prc", reason="torch-fidelity is not installed")
    real, fake = features(150), 0.8 * features(130, seed=1, shift=0.7)
    expected = prc.prc_features_to_metric(fake, real, prc_neighborhood=3, prc_batch_size=50, verbose=False)
    found = manifold(real, fake, 3)
    assert 0.2 < found.precision < 0.999 and 0.2 < found.recall < 0.999
    assert (found.precision, found.recall) == pytest.approx((expected["precision"], expected["recall"]), abs=1e-6)


def test_density_and_coverage_agree_with_their_definition():
    real, fake, k = features(40).double(), features(30, seed=1, shift=0.5).double(), 5
    between = torch.tensor([[float((x - y).norm()) for y in fake] for x in real])
    radii = [sorted(float((x - y).norm()) for y in real)[k] for x in real]
    inside = between <= torch.tensor(radii)[:, None]
    found = manifold(real, fake, k)
    assert found.density == pytest.approx(float(inside.sum()) / (k * 30))
    assert found.coverage == pytest.approx(float(inside.any(1).double().mean()))


def test_a_set_covers_itself_and_nothing_far_away(monkeypatch):
    x = features(50)
    same, apart = manifold(x, x.clone()), manifold(x, x + 1000)
    assert same[:2] == (1, 1) and same.coverage == 1 and same.density > 1
    assert apart[:4] == (0, 0, 0, 0)
    few = manifold(x, x[:1].repeat(50, 1) + 1e-3)
    assert few.precision == 1 and few.recall < 0.5 and few.coverage < 0.5
    monkeypatch.setattr("clip2latent.metrics_sets.ROWS", 7)
    monkeypatch.setattr("clip2latent.metrics_sets.COLUMNS", 11)
    other = features(50, seed=3)
    chunked = manifold(x, other)
    monkeypatch.undo()
    assert chunked == manifold(x, other)
    with pytest.raises(ValueError, match="at least 4"):
        manifold(x[:3], x)
    with pytest.raises(ValueError, match="n, F"):
        kernel_distance(x, x[:, :2])
