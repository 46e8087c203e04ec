import pytest
import torch
from torch.nn import functional as F

from clip2latent.bridge import Bridge


def unit(num, dim=6, seed=0):
    return F.normalize(torch.randn(num, dim, generator=torch.Generator().manual_seed(seed)), dim=-1)


def test_the_plain_bridge_changes_no_bit():
    bridge, embeddings = Bridge.plain(6), unit(4)
    assert bridge.images(embeddings).equal(embeddings) and bridge.texts(embeddings).equal(embeddings)


def test_conditions_have_unit_norm_and_each_modality_its_own_mean():
    image_mean, text_mean = 0.3 * unit(2, seed=1)
    bridge, embeddings = Bridge(image_mean, text_mean), unit(5)
    for condition, mean in ((bridge.images(embeddings), image_mean), (bridge.texts(embeddings), text_mean)):
        torch.testing.assert_close(condition.norm(dim=-1), torch.ones(5))
        scale = (embeddings - mean).norm(dim=-1, keepdim=True)
        torch.testing.assert_close(condition * scale + mean, embeddings)


def test_a_constant_gap_between_the_modalities_vanishes():
    gap, content = 0.4 * unit(1, seed=2)[0], 0.5 * torch.randn(64, 6, generator=torch.Generator().manual_seed(3))
    content -= content.mean(0)
    images, texts = content + gap, content - gap
    bridge = Bridge(images.mean(0), texts.mean(0))
    torch.testing.assert_close(bridge.images(images), bridge.texts(texts))
    assert (F.normalize(images, dim=-1) * F.normalize(texts, dim=-1)).sum(-1).mean() < 0.9


def test_a_dataset_gives_its_means():
    dataset = {"embedding_dim": 2, "embedding_mean": [0.25, 0.0], "text_mean": [0.0, 0.5]}
    bridge = Bridge.of(dataset, centre=True)
    assert bridge.image_mean.tolist() == [0.25, 0.0] and bridge.text_mean.tolist() == [0.0, 0.5]
    assert not Bridge.of(dataset, centre=False).image_mean.any()


def test_centring_without_texts_names_the_fix():
    with pytest.raises(ValueError, match="--texts FILE"):
        Bridge.of({"embedding_dim": 2, "embedding_mean": [0.25, 0.0]}, centre=True)


@pytest.mark.parametrize("means", [(torch.zeros(2), torch.zeros(3)), (torch.zeros(1, 2),) * 2])
def test_means_of_other_shapes_are_refused(means):
    with pytest.raises(ValueError, match="must be"):
        Bridge(*means)


def test_means_that_are_not_finite_are_refused():
    with pytest.raises(ValueError, match="finite"):
        Bridge(torch.full((2,), float("nan")), torch.zeros(2))
