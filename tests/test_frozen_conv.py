"""Kept forms of frozen weights: equal to the plain convolutions, and never older than the weights."""

import copy
import pickle

import pytest
import torch
import torch.nn.functional as F

from clip2latent.generators import frozen_conv, stylegan2_layers
from clip2latent.generators.frozen_conv import (
    Frozen,
    WinogradConv,
    for_conv,
    for_transposed,
    for_winograd,
    winograd_conv,
)
from clip2latent.generators.stylegan2 import StyleGAN2
from clip2latent.generators.stylegan2_layers import SynthesisLayer, demodulation

TINY = dict(z_dim=16, c_dim=0, w_dim=16, img_resolution=16, img_channels=3, channel_base=256, channel_max=16)


@pytest.fixture
def network(monkeypatch):
    """A frozen network whose layers of 8 and 16 px are Winograd's."""
    monkeypatch.setattr(stylegan2_layers, "WINOGRAD_CHANNELS", 16)
    torch.manual_seed(0)
    return StyleGAN2(**TINY).eval().requires_grad_(False)


def latents(network):
    return network.sample_latents(2, torch.Generator().manual_seed(0))


def layers(network):
    return [module for module in network.modules() if isinstance(module, SynthesisLayer)]


def plain_and_kept(network):
    """The images with gradients on, which takes the plain forms, and without: equal up to rounding."""
    with torch.enable_grad():
        plain = network.synthesize(latents(network))
    with torch.no_grad():
        kept = network.synthesize(latents(network))
    assert all(layer.frozen.holds for layer in layers(network))
    torch.testing.assert_close(kept, plain, rtol=0, atol=1e-5 * float(plain.abs().max()))
    return plain, kept


@pytest.mark.parametrize("at_once", [1, 200, 2**17])
@pytest.mark.parametrize("batch, height, width", [(1, 2, 2), (3, 8, 8), (2, 10, 6)])
def test_winograd_is_the_convolution(batch, height, width, at_once, monkeypatch):
    """In double precision, so that only the rounding of 1e-16 may differ; in bands of every kind."""
    monkeypatch.setattr(frozen_conv, "AT_ONCE", at_once)
    rng = torch.Generator().manual_seed(0)
    x = torch.randn(batch, 5, height, width, dtype=torch.float64, generator=rng)
    weight = torch.randn(4, 5, 3, 3, dtype=torch.float64, generator=rng)
    found = winograd_conv(x, for_winograd(weight).weight)
    torch.testing.assert_close(found, F.conv2d(x, weight, padding=1), rtol=0, atol=1e-12)


@pytest.mark.parametrize("at_once", [1, 200, 2**17])
@pytest.mark.parametrize("batch, height, width", [(1, 2, 2), (3, 8, 8), (2, 10, 6)])
def test_winograd_gradient_is_that_of_the_convolution(batch, height, width, at_once, monkeypatch):
    monkeypatch.setattr(frozen_conv, "AT_ONCE", at_once)
    rng = torch.Generator().manual_seed(0)
    x = torch.randn(batch, 5, height, width, dtype=torch.float64, generator=rng).requires_grad_()
    weight = torch.randn(4, 5, 3, 3, dtype=torch.float64, generator=rng)
    outer = torch.randn(batch, 4, height, width, dtype=torch.float64, generator=rng)
    found = torch.autograd.grad(WinogradConv.apply(x, for_winograd(weight).weight), x, outer)[0]
    expected = torch.autograd.grad(F.conv2d(x, weight, padding=1), x, outer)[0]
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


def test_layouts_are_those_the_convolutions_read():
    weight = torch.randn(4, 5, 3, 3)
    for kept, read in ((for_conv(weight), lambda w: w), (for_transposed(weight), lambda w: w.transpose(0, 1))):
        assert kept.weight.equal(weight)
        assert read(kept.weight).is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("prepare", [for_conv, for_transposed, for_winograd])
def test_norms_are_enough_for_the_demodulation(prepare):
    weight, styles = torch.randn(4, 5, 3, 3), torch.randn(2, 5)
    torch.testing.assert_close(demodulation(prepare(weight).norms, styles), demodulation(weight, styles))


def test_kept_forms_draw_the_same_images(network):
    plain, kept = plain_and_kept(network)
    assert [layer.frozen(layer.weight).weight.ndim for layer in layers(network)] == [4, 4, 3, 4, 3]
    assert not kept.equal(plain)  # they are other sums


def test_gradients_are_those_of_the_plain_form(network):
    def gradient(of):
        ws = latents(of).requires_grad_()
        return torch.autograd.grad(of.synthesize(ws).square().sum(), ws)[0]

    before = gradient(network)
    plain_and_kept(network)
    assert gradient(network).equal(before)
    unfrozen = copy.deepcopy(network).requires_grad_(True)
    torch.testing.assert_close(gradient(unfrozen), before)


def load_others(network):
    network.load_state_dict({name: tensor * 1.5 for name, tensor in network.state_dict().items()})


def change_in_place(network):
    for layer in layers(network):
        layer.weight[0].add_(1.0)


def replace(network):
    for layer in layers(network):
        layer.weight = torch.nn.Parameter(layer.weight + 1, requires_grad=False)


def assign(network):
    state = {name: tensor * 1.5 for name, tensor in network.state_dict().items()}
    network.load_state_dict(state, assign=True)


def round_to_half(network):
    network.bfloat16().float()


@pytest.mark.parametrize("change", [load_others, change_in_place, replace, assign, round_to_half])
def test_changed_weights_are_noticed(network, change):
    _, before = plain_and_kept(network)
    with torch.no_grad():
        change(network)
    _, after = plain_and_kept(network)
    assert (after - before).abs().max() > 1e-3 * before.abs().max()


def test_a_weight_is_prepared_once():
    calls = []
    kept = frozen_conv.Kept(lambda weight: calls.append(1) or Frozen(weight, weight))
    weight = torch.randn(2, 2, 3, 3)
    assert kept(weight) is kept(weight) and len(calls) == 1
    weight.zero_()
    kept(weight)
    kept.clear()
    kept(weight)
    assert len(calls) == 3


def test_what_is_kept_is_not_stored(network):
    names = list(network.state_dict())
    _, kept = plain_and_kept(network)
    assert list(network.state_dict()) == names
    for again in (copy.deepcopy(network), pickle.loads(pickle.dumps(network))):
        assert not any(layer.frozen.holds for layer in layers(again))
        with torch.inference_mode():
            assert again.synthesize(latents(again)).equal(kept)
        assert plain_and_kept(again)[1].equal(kept)  # also where it was prepared in inference mode


def test_other_precisions_and_trained_weights_take_the_plain_form(network):
    def used(**change):
        again = copy.deepcopy(network)
        for method, value in change.items():
            getattr(again, method)(value)
        with torch.no_grad():
            again.synthesize(latents(again))
        return [layer.frozen.holds for layer in layers(again)]

    assert all(used()) and not any(used(to=torch.float64)) and not any(used(requires_grad_=True))
    with torch.no_grad():
        network.synthesis(latents(network), half_dtype=torch.bfloat16)
    assert [layer.frozen.holds for layer in layers(network)] == [True] + 4 * [False]  # 4 px stay in float32
    with torch.inference_mode():  # its tensors count no versions
        unversioned = StyleGAN2(**TINY).requires_grad_(False)
        unversioned.synthesize(latents(unversioned))
    assert not any(layer.frozen.holds for layer in layers(unversioned))
