import pytest
import torch

from clip2latent.latents import LatentSpace, expand, reduce

GROUPS = [(1,), (6,), (2, 3, 1), (1,) * 6, (4, 4, 10)]


def space(groups, width=5):
    rng = torch.Generator().manual_seed(0)
    shape = (len(groups), width)
    return LatentSpace(groups, torch.randn(shape, generator=rng), torch.rand(shape, generator=rng) + 0.1)


@pytest.mark.parametrize("groups", GROUPS)
def test_reduce_undoes_expand(groups):
    tokens = torch.randn(3, len(groups), 5)
    latents = expand(tokens, groups)
    assert latents.shape == (3, sum(groups), 5)
    assert torch.equal(reduce(latents, groups), tokens)
    assert torch.equal(expand(reduce(latents, groups), groups), latents)


def test_reduce_takes_the_first_row_of_each_group():
    rows = torch.arange(18.0)[None, :, None]
    assert reduce(rows, (4, 4, 10)).flatten().tolist() == [0, 4, 8]


@pytest.mark.parametrize("groups", GROUPS)
def test_decode_undoes_encode(groups):
    latent_space = space(groups)
    latents = latent_space.expand(torch.randn(4, len(groups), 5) * 3)
    torch.testing.assert_close(latent_space.decode(latent_space.encode(latents)), latents)


def test_encode_standardises_the_data():
    tokens = torch.randn(5000, 2, 3, dtype=torch.float64) * torch.tensor([0.1, 1, 10]) + torch.tensor([5, 0, -5])
    latent_space = LatentSpace((1, 2), tokens.mean(0), tokens.std(0))
    encoded = latent_space.encode(expand(tokens.float(), (1, 2)))
    torch.testing.assert_close(encoded.mean(0), torch.zeros(2, 3), atol=1e-4, rtol=0)
    torch.testing.assert_close(encoded.std(0), torch.ones(2, 3), atol=1e-4, rtol=0)


def test_a_constant_dimension_survives():
    latent_space = LatentSpace((1,), torch.tensor([[2.0, 1.0]]), torch.tensor([[0.0, 3.0]]))
    latents = torch.tensor([[[2.0, 4.0]]])
    assert latent_space.encode(latents).tolist() == [[[0.0, 1.0]]]
    assert torch.equal(latent_space.decode(latent_space.encode(latents)), latents)


def test_truncation_draws_towards_the_mean():
    latent_space = space((2, 1))
    tokens = torch.randn(2, 2, 5)
    mean = latent_space.decode(tokens, truncation=0.0)
    torch.testing.assert_close(mean[0], latent_space.expand(latent_space.mean[None])[0])
    half = latent_space.decode(tokens, truncation=0.5)
    torch.testing.assert_close(half, (mean + latent_space.decode(tokens)) / 2)


def test_the_gradient_reaches_the_tokens():
    tokens = torch.randn(2, 2, 5, requires_grad=True)
    space((2, 1)).decode(tokens).sum().backward()
    assert (tokens.grad != 0).all()


@pytest.mark.parametrize(
    ("groups", "mean", "std", "message"),
    [
        ((), torch.zeros(0, 3), torch.ones(0, 3), "groups"),
        ((0, 2), torch.zeros(2, 3), torch.ones(2, 3), "groups"),
        ((1, 1), torch.zeros(1, 3), torch.ones(1, 3), "K = 2"),
        ((1,), torch.zeros(1, 3), torch.ones(1, 4), "K = 1"),
        ((1,), torch.zeros(1, 3), -torch.ones(1, 3), "not negative"),
        ((1,), torch.full((1, 3), torch.nan), torch.ones(1, 3), "finite"),
    ],
)
def test_wrong_statistics_are_refused(groups, mean, std, message):
    with pytest.raises(ValueError, match=message):
        LatentSpace(groups, mean, std)


def test_wrong_shapes_are_refused():
    with pytest.raises(ValueError, match=r"\[B, 18, D\].*\(2, 14, 5\)"):
        space((4, 4, 10)).encode(torch.zeros(2, 14, 5))
    with pytest.raises(ValueError, match=r"\[B, 3, 5\].*\(2, 18, 5\)"):
        space((4, 4, 10)).decode(torch.zeros(2, 18, 5))
