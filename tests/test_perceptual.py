"""Perceptual distances: the laws of a distance, gradients, and what is said where something is missing."""

import sys
from types import ModuleType

import pytest
import torch
from tiny_models import TinyEmbedder
from torch import nn

from clip2latent import perceptual
from clip2latent.embedders import load_embedder
from clip2latent.perceptual import DISTANCES, crop_distance, feature_distance, lpips_distance

RNG = torch.Generator().manual_seed(0)


def images(num, side=32):
    return torch.rand(num, 3, side, side, generator=RNG) * 2 - 1


@pytest.fixture(scope="module", params=["features", "crops"])
def distance(request):
    return DISTANCES[request.param](load_embedder("demo"))


def test_the_laws_of_a_distance(distance):
    one, other = images(2), images(2)
    near, far = one.lerp(other, 0.1), one.lerp(other, 0.6)
    assert distance(one, one).abs().max() < 1e-5
    torch.testing.assert_close(distance(one, other), distance(other, one))
    assert (distance(one, near) < distance(one, far)).all() and (distance(one, near) > 1e-5).all()
    torch.testing.assert_close(distance(one, far)[1:], distance(one[1:], far[1:]), rtol=1e-3, atol=1e-5)


def test_the_gradient_reaches_both_images_and_is_a_number_where_they_are_equal(distance):
    one, other = images(1).requires_grad_(), images(1).requires_grad_()
    gradients = torch.autograd.grad(distance(one, other).sum(), (one, other))
    assert all(gradient.isfinite().all() and gradient.abs().max() > 0 for gradient in gradients)
    same = torch.autograd.grad(distance(one, one.detach()).sum(), one)[0]
    assert same.isfinite().all() and same.abs().max() < 1e-3
    grey = torch.zeros(1, 3, 32, 32, requires_grad=True)
    assert torch.autograd.grad(distance(grey, other.detach()).sum(), grey)[0].isfinite().all()


def test_pictures_are_looked_at_once_whatever_is_compared_with_them(distance):
    one, other = images(2), images(2)
    towards = distance.towards(other)
    torch.testing.assert_close(towards(one), distance(one, other))
    assert torch.autograd.grad(towards(one.requires_grad_()).sum(), one)[0].abs().max() > 0
    torch.testing.assert_close(
        distance.towards(other[:1])(one), distance(one, other[:1].expand_as(one)), rtol=1e-3, atol=1e-5
    )


class _Visual(nn.Module):
    """Gives its features as they are asked for: two maps, 3-4-5 triangles."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward_intermediates(self, images, intermediates_only):
        assert intermediates_only
        return {"image_intermediates": [images * self.scale, 10 * images[..., :1, :1]]}


class _Shown(TinyEmbedder):
    def __init__(self):
        super().__init__()
        self.clip = nn.Module()
        self.clip.visual = _Visual()

    def preprocess(self, images):
        return images


def test_features_are_compared_by_direction_at_each_place_and_averaged_over_depths():
    one, other = torch.zeros(1, 3, 2, 2), torch.zeros(1, 3, 2, 2)
    one[:, 0], other[:, 0], other[:, 1, 0, 0] = 2.0, 1.0, 4 / 3
    # At one place in four, and at the one place of the second map: (1, 0, 0) against (0.6, 0.8, 0).
    expected = ((0.4**2 + 0.8**2) / 4 + (0.4**2 + 0.8**2)) / 2
    torch.testing.assert_close(feature_distance(_Shown())(one, other), torch.tensor([expected]))


def test_crops_see_where_a_difference_is_but_for_the_crops_without_it():
    one = images(1, 8)
    other = one.clone()
    other[..., 7, 7] = -other[..., 7, 7]
    embedder = TinyEmbedder()
    corner = 1 - (embedder.embed_images(one[..., 4:, 4:]) * embedder.embed_images(other[..., 4:, 4:])).sum()
    torch.testing.assert_close(crop_distance(embedder)(one, other), corner[None] / 9, rtol=1e-3, atol=1e-6)


def test_an_embedder_that_shows_no_features_is_refused_with_a_way_out():
    with pytest.raises(ValueError, match=r"TinyEmbedder does not show its features.*--perceptual crops"):
        feature_distance(TinyEmbedder())


def test_lpips_says_which_package_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "lpips", None)
    with pytest.raises(ValueError, match=r'pip install "clip2latent\[lpips\]".*--perceptual features or crops'):
        lpips_distance()


class _Stand(nn.Module):
    """A stand-in for lpips.LPIPS with its names: a backbone in slices, and a head."""

    def __init__(self, net, pretrained, pnet_rand, verbose):
        assert (net, pretrained, pnet_rand, verbose) == ("alex", False, True, False)
        super().__init__()
        self.net = nn.Module()
        self.net.slice1, self.net.slice2 = nn.Sequential(), nn.Sequential()
        self.net.slice1.add_module("0", nn.Conv2d(3, 4, 1))
        self.net.slice2.add_module("3", nn.Conv2d(4, 4, 1))
        self.lins = nn.ModuleList([nn.Sequential(nn.Conv2d(4, 1, 1, bias=False))])

    def forward(self, one, other):
        seen = [self.net.slice2(self.net.slice1(images)) for images in (one, other)]
        return self.lins[0]((seen[0] - seen[1]) ** 2).mean((2, 3), keepdim=True)


@pytest.fixture
def package(tmp_path, monkeypatch):
    """The stand-in as the package lpips, with weights of its head, and a file of the backbone's."""
    stand = ModuleType("lpips")
    stand.__file__, stand.LPIPS = str(tmp_path / "lpips" / "__init__.py"), _Stand
    monkeypatch.setitem(sys.modules, "lpips", stand)
    monkeypatch.setenv("CLIP2LATENT_OFFLINE", "1")
    monkeypatch.setenv("CLIP2LATENT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    heads = tmp_path / "lpips" / "weights" / "v0.1"
    heads.mkdir(parents=True)
    torch.save({"lin0.0.weight": torch.ones(1, 4, 1, 1)}, heads / "alex.pth")
    shapes = {"0.weight": (4, 3, 1, 1), "0.bias": (4,), "3.weight": (4, 4, 1, 1), "3.bias": (4,), "9.bias": (2,)}
    weights = {f"features.{name}": torch.full(shape, 0.5) for name, shape in shapes.items()}
    torch.save(weights, tmp_path / "alexnet.pth")
    return tmp_path


def test_lpips_takes_its_weights_from_files_and_fetches_nothing(package):
    one, other = torch.zeros(1, 3, 2, 2), torch.full((1, 3, 2, 2), 0.1)
    distance = lpips_distance(None, package / "alexnet.pth")(one, other)
    torch.testing.assert_close(distance, torch.tensor([4 * (4 * 0.5 * 3 * 0.5 * 0.1) ** 2]))


def test_lpips_says_where_the_backbones_weights_belong_when_it_must_not_fetch_them(package):
    with pytest.raises(FileNotFoundError, match=f"offline.*put {perceptual.ALEXNET} at .*hub.*--perceptual features"):
        lpips_distance()
    with pytest.raises(FileNotFoundError, match="no file"):
        lpips_distance(None, package / "nothing.pth")
    place = package / "hub" / "checkpoints" / "alexnet-owt-7be5be79.pth"
    place.parent.mkdir(parents=True)
    place.write_bytes(b"cut off")
    with pytest.raises(ValueError, match=r"damaged.*7be5be79"):
        lpips_distance()


def test_lpips_refuses_weights_of_another_network(package):
    torch.save({"features.0.weight": torch.ones(4, 3, 1, 1)}, package / "other.pth")
    with pytest.raises(ValueError, match="do not fit"):
        lpips_distance(None, package / "other.pth")
    (package / "text.pth").write_text("no weights")
    with pytest.raises(ValueError, match="is not a file of weights"):
        lpips_distance(None, package / "text.pth")
