"""Objectives: the cosines they say, gradients that are exact, chunks that change nothing."""

import pytest
import torch
from tiny_models import TinyEmbedder
from torch.nn import functional as F

from clip2latent.augment import Augment, apply_views
from clip2latent.objectives import augclip_objective, clip_objective


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def pictures(num=4, side=8, dtype=torch.float32):
    return (torch.rand(num, 3, side, side, generator=seeded(5)) * 2 - 1).to(dtype)


def targets(num=4, dtype=torch.float32):
    return F.normalize(torch.randn(num, 5, generator=seeded(6)).to(dtype), dim=-1)


class Counting(TinyEmbedder):
    """Remembers how many images each call had, and of which side."""

    def __init__(self, **attributes):
        super().__init__()
        self.calls = []
        for name, value in attributes.items():
            setattr(self, name, value)

    def embed_images(self, images):
        self.calls.append(tuple(images.shape[::3]))
        return super().embed_images(images)


def plain_augclip(embedder, images, targets, views, size):
    """The mean over views, with all of them in memory."""
    every = apply_views(images, views, size)
    cosines = [embedder.embed_images(one) @ target for one, target in zip(every, targets, strict=True)]
    return 1 - torch.stack(cosines).mean(1)


def test_clip_objective_is_one_minus_the_cosine_to_each_own_target():
    images, each, embedder = pictures(), targets(), TinyEmbedder()
    expected = 1 - F.cosine_similarity(embedder.embed_images(images), each, dim=-1)
    torch.testing.assert_close(clip_objective(embedder, each)(images), expected)
    torch.testing.assert_close(clip_objective(embedder, 3 * each)(images), expected)
    torch.testing.assert_close(clip_objective(embedder, each[1])(images)[1], expected[1])


@pytest.mark.parametrize("chunk", [1, 3, 10, 14, 64])
def test_chunks_change_neither_loss_nor_gradient(chunk):
    images, each, embedder = pictures().double().requires_grad_(), targets(dtype=torch.float64), TinyEmbedder().double()
    outer = torch.tensor([1.0, -2.0, 0.5, 3.0]).double()
    expected = plain_augclip(embedder, images, each, Augment().draw(7, seeded()), 8)
    found = augclip_objective(embedder, each, views=7, rng=seeded(), chunk=chunk)(images)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    gradients = [torch.autograd.grad((loss * outer).sum(), images)[0] for loss in (found, expected)]
    torch.testing.assert_close(*gradients, rtol=0, atol=1e-12)


def test_gradient_is_exact():
    embedder, images = TinyEmbedder().double(), pictures(1, 3, torch.float64).requires_grad_()
    objective = augclip_objective(embedder, targets(1, torch.float64), views=3, rng=seeded(), chunk=2, fixed=True)
    assert torch.autograd.gradcheck(objective, images)


@pytest.mark.parametrize("grad", [False, True])
def test_no_more_than_a_chunk_is_embedded_at_once_nor_than_the_embedder_likes(grad):
    images = pictures().requires_grad_(grad)
    for attributes, chunk, expected in (({}, 6, [5, 5, 4] * 4), ({}, 28, [28]), ({"chunk": 14}, 64, [28 // 2] * 2)):
        embedder = Counting(**attributes)
        augclip_objective(embedder, targets(), views=14 if chunk == 6 else 7, rng=seeded(), chunk=chunk)(images)
        assert [num for num, _ in embedder.calls] == expected


def test_views_have_the_side_that_the_embedder_sees():
    for attributes, side in (({}, 8), ({"resolution": 5}, 5)):
        embedder = Counting(**attributes)
        augclip_objective(embedder, targets(), rng=seeded())(pictures())
        assert {seen for _, seen in embedder.calls} == {side}


def test_views_are_new_at_each_call_or_kept():
    images, embedder = pictures(), TinyEmbedder()
    fresh = augclip_objective(embedder, targets(), views=3, rng=seeded())
    first, second = fresh(images), fresh(images)
    assert (first != second).all()
    rng = seeded()
    kept = augclip_objective(embedder, targets(), views=3, rng=rng, fixed=True)
    state = rng.get_state()
    assert torch.equal(kept(images), kept(images)) and torch.equal(kept(images), first)
    assert torch.equal(rng.get_state(), state)


def test_a_loss_does_not_depend_on_the_other_images():
    images, each, embedder = pictures(), targets(), TinyEmbedder()
    together = augclip_objective(embedder, each, views=5, rng=seeded())(images)
    for index in range(4):
        alone = augclip_objective(embedder, each[index], views=5, rng=seeded())(images[index : index + 1])
        torch.testing.assert_close(alone[0], together[index])


def test_weights_of_an_embedder_gather_no_gradients():
    embedder = TinyEmbedder()
    embedder.weight.requires_grad_()
    images = pictures().requires_grad_()
    augclip_objective(embedder, targets(), views=3, rng=seeded())(images).sum().backward()
    assert embedder.weight.grad is None and images.grad.abs().sum() > 0


@pytest.mark.parametrize("make", [clip_objective, lambda *args: augclip_objective(*args, rng=seeded())])
def test_targets_that_do_not_fit_are_refused(make):
    with pytest.raises(ValueError, match=r"expected shape \(5,\) or \(B, 5\), got \(4,\)"):
        make(TinyEmbedder(), torch.ones(4))
    with pytest.raises(ValueError, match="expected 3, one for each target, got 4"):
        make(TinyEmbedder(), targets(3))(pictures())


def test_numbers_under_one_are_refused():
    with pytest.raises(ValueError, match="chunk=0"):
        augclip_objective(TinyEmbedder(), targets(), rng=seeded(), chunk=0)
    with pytest.raises(ValueError, match="views=0"):
        augclip_objective(TinyEmbedder(), targets(), views=0, rng=seeded(), fixed=True)
