"""Search: the streamed best are the true best."""

import pytest
import torch

from clip2latent.objectives import clip_objective
from clip2latent.search import TopK, best_of


class Echo:
    """A generator whose image is its latent."""

    latent_shape = (1, 3)
    resolution = 1

    def synthesize(self, latents):
        return latents.reshape(-1, 3, 1, 1)


class Mean:
    dim = 3

    def embed_images(self, images):
        return torch.nn.functional.normalize(images.mean((2, 3)), dim=-1)


@pytest.mark.parametrize("keep, sizes", [(3, (1, 5, 2, 4)), (20, (3, 3)), (1, (7,))])
def test_topk_of_a_stream_is_topk_of_the_whole(keep, sizes):
    scores = torch.randn(sum(sizes), generator=torch.Generator().manual_seed(0))
    rows = torch.arange(sum(sizes))
    best = TopK(keep)
    for part, ids in zip(scores.split(sizes), rows.split(sizes), strict=True):
        best.update(part, ids)
    expected = scores.sort(descending=True)
    torch.testing.assert_close(best.scores, expected.values[:keep])
    torch.testing.assert_close(best.items[0], expected.indices[:keep])


def test_topk_prefers_the_earlier_of_equals_and_ranks_nan_last():
    best = TopK(3)
    best.update(torch.tensor([float("nan"), 1.0]), torch.tensor([0, 1]))
    best.update(torch.tensor([1.0, 0.0]), torch.tensor([2, 3]))
    assert best.items[0].tolist() == [1, 2, 3]


def test_best_of_finds_the_nearest_latents_and_never_holds_more_than_a_chunk():
    rng = torch.Generator().manual_seed(0)
    asked, drawn = [], []

    def propose(num):
        asked.append(num)
        drawn.append(torch.randn(num, 1, 3, generator=rng))
        return drawn[-1]

    target = torch.tensor([0.0, 0.6, 0.8])
    found = best_of(propose, Echo(), clip_objective(Mean(), target), num=100, keep=5, chunk=32)
    everything = torch.cat(drawn)
    losses = 1 - torch.cosine_similarity(everything[:, 0], target, dim=-1)
    assert asked == [32, 32, 32, 4]
    torch.testing.assert_close(found.losses, losses.sort().values[:5])
    torch.testing.assert_close(found.latents, everything[losses.argsort()[:5]])


@pytest.mark.parametrize("keep, num, chunk", [(0, 4, 1), (5, 4, 1), (1, 4, 0)])
def test_best_of_refuses_impossible_numbers(keep, num, chunk):
    with pytest.raises(ValueError, match="expected"):
        best_of(lambda n: torch.zeros(n, 1, 3), Echo(), lambda images: images, num=num, keep=keep, chunk=chunk)


def test_clip_objective_is_differentiable_and_checks_the_width():
    images = torch.randn(2, 3, 4, 4, requires_grad=True)
    clip_objective(Mean(), torch.tensor([1.0, 0.0, 0.0]))(images).sum().backward()
    assert images.grad.abs().sum() > 0
    with pytest.raises(ValueError, match="targets"):
        clip_objective(Mean(), torch.zeros(4))
