"""StyleGAN3 against the official code's recorded outputs, and the laws of its own."""

import json

import pytest
import torch
from golden_cases import golden

from clip2latent.generators.stylegan3 import StyleGAN3, from_official
from clip2latent.generators.stylegan3_layers import decimate, interpolate, kaiser_low_pass

# Each case with ten times the difference that its README states between two runs of the official code.
CASES = {"stylegan3t_32": 2.1e-5, "stylegan3r_32": 1.3e-5}
TINY = {"z_dim": 16, "c_dim": 0, "w_dim": 16, "img_resolution": 16, "img_channels": 3, "channel_base": 64}
TINY |= {"channel_max": 8, "num_layers": 6, "margin_size": 4}


def official(case):
    _, config, weights, io = golden(case)
    return from_official(weights, **config["init_kwargs"]), io, config


def tiny(**arguments):
    torch.manual_seed(0)
    return StyleGAN3(**{**TINY, **arguments}).eval().requires_grad_(False)


@torch.no_grad()
@pytest.mark.parametrize("case", CASES)
def test_agrees_with_the_official_code(case):
    network, io, config = official(case)
    z, tolerance = io["z"], {"atol": CASES[case], "rtol": 0}
    cutoff = config["facts"]["truncation_cutoff_used"]
    ws = {
        "psi1": network.mapping(z),
        "psi07": network.mapping(z, psi=0.7),
        "psi05_cut": network.mapping(z, psi=0.5, cutoff=cutoff),
    }
    for name, found in ws.items():
        torch.testing.assert_close(found, io[f"ws_{name}"], **tolerance)
    layers = {}
    for name, layer in network.synthesis.named_children():
        layer.register_forward_hook(lambda _layer, _inputs, output, name=name: layers.update({name: output}))
    images = {
        "img_const_psi07": network.synthesis(ws["psi07"]),
        "img_const_mixed": network.synthesis(io["ws_mixed"]),
        "img_const_psi05_cut_fullcall": network(z, psi=0.5, cutoff=cutoff),
        "img_const_psi1": network.synthesis(ws["psi1"]),
    }
    found = images | {f"inter.{name}": output[:1, :2] for name, output in layers.items()}
    torch.testing.assert_close(network.synthesis.input.transform, io["transform_buffer"])
    for name in ("identity", "rot90", "zoomin", "zoomout"):
        network.synthesis.input.transform = io[f"transform_{name}"]
        found[f"img_transform_{name}"] = network.synthesis(ws["psi1"][:1])
    recorded = {name for name in io if name.startswith(("img_", "inter."))}
    assert recorded <= found.keys() and images.keys() < recorded
    for name in recorded:
        torch.testing.assert_close(found[name], io[name], **tolerance, msg=lambda text, name=name: f"{name}: {text}")


@pytest.mark.parametrize("case", CASES)
def test_filters_are_designed_from_the_arguments(case):
    network, _, config = official(case)
    fresh = StyleGAN3(**config["init_kwargs"])
    for name, layer in config["facts"]["layers"].items():
        designed, loaded = getattr(fresh.synthesis, name), getattr(network.synthesis, name)
        if layer["is_torgb"]:
            continue
        assert designed.padding == tuple(layer["padding"][:2])
        assert (designed.up, designed.down) == (layer["up_factor"], layer["down_factor"])
        assert designed.down_filter.ndim == 1 + layer["down_radial"]
        torch.testing.assert_close(designed.up_filter, loaded.up_filter, atol=1e-7, rtol=0)
        torch.testing.assert_close(designed.down_filter, loaded.down_filter, atol=1e-7, rtol=0)


@pytest.mark.parametrize("resolution", [4, 8, 64, 256, 1024])
def test_any_resolution_has_the_official_names_and_rows(resolution):
    with torch.device("meta"):
        network = StyleGAN3(512, 0, 512, resolution, 3)
    assert network.latent_shape == (16, 512)
    if resolution == 1024:  # of the published stylegan3-t-ffhq-1024x1024
        assert network.synthesis.layer_names[::5] == ["L0_36_512", "L5_148_512", "L10_1044_81"]
    sides = [int(name.split("_")[1]) for name in network.synthesis.layer_names]
    assert sides == sorted(sides[:-2]) + [resolution] * 2


@pytest.mark.parametrize("radial", [False, True])
@pytest.mark.parametrize("taps", [23, 24])
def test_a_low_pass_keeps_low_and_removes_high_frequencies(taps, radial):
    rate, cutoff = 64, 12.0
    f = kaiser_low_pass(taps, cutoff, 8.0, rate, radial).double()
    f = f if radial else torch.outer(f, f)
    torch.testing.assert_close(f, f.flip(0, 1))
    torch.testing.assert_close(f, f.t())
    assert abs(f.sum() - 1) < 1e-6

    def response(horizontal, vertical):
        time = torch.arange(taps, dtype=torch.float64) - (taps - 1) / 2
        phase = 2 * torch.pi * (horizontal * time[None, :] + vertical * time[:, None]) / rate
        return (f * phase.cos()).sum()

    assert abs(response(4, 0) - 1) < 0.01 and abs(response(cutoff, 0) - 0.5) < 0.05 and abs(response(20, 0)) < 0.01
    # A square passes the corner of its band, a disc does not.
    assert (response(0.9 * cutoff, 0.9 * cutoff) < 0.1) == radial


def test_interpolation_and_decimation_keep_a_smooth_signal():
    """25 taps at four times the rate delay by 3 pixels, twice; their ripple adds up to less than a tenth."""
    f = kaiser_low_pass(25, 6.0, 6.0, 64).double()
    wave = (2 * torch.pi * 2 / 16 * torch.arange(48, dtype=torch.float64)).cos()
    x = torch.outer(wave, wave)[None, None]
    back = decimate(interpolate(x, f, 4, (0, 0)), f, 4)
    torch.testing.assert_close(back[..., 6:30, 6:30], x[..., 12:36, 12:36], atol=0.1, rtol=0)


def test_padding_may_cut_or_extend():
    x, f = torch.randn(1, 2, 9, 9), kaiser_low_pass(12, 4.0, 4.0, 32)
    whole = interpolate(x, f, 2, (20, 20))
    for before, after in ((3, 5), (-4, 2), (11, -7)):
        cut = interpolate(x, f, 2, (before, after))
        stop = whole.shape[-1] - (20 - after)
        torch.testing.assert_close(cut, whole[..., 20 - before : stop, 20 - before : stop])


@pytest.mark.parametrize("radial", [False, True])
def test_double_precision_gradient_is_that_of_the_function(radial):
    network = tiny(use_radial_filters=radial, conv_kernel=1 if radial else 3, img_resolution=8, channel_max=4).double()
    ws = network.sample_latents(1, torch.Generator().manual_seed(0))
    directions = torch.randn(3, *network.latent_shape, generator=torch.Generator().manual_seed(1)).double()
    amounts = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    along = lambda t: network.synthesize(ws + (t[:, None, None] * directions).sum(0)).square().mean()  # noqa: E731
    assert torch.autograd.gradcheck(along, amounts)


def test_half_precision_stays_close():
    network = tiny()
    ws = network.sample_latents(4, torch.Generator().manual_seed(0))
    full = network.synthesize(ws)
    for dtype in (torch.bfloat16, torch.float16):
        name = str(dtype).removeprefix("torch.")
        top = tiny(half_dtype=name).synthesize(ws)
        assert top.dtype == torch.float32 and not top.equal(full)
        assert (top - full).std() < 0.03 * full.std()
        whole = tiny().to(dtype).synthesize(ws.to(dtype))
        assert whole.dtype == dtype and (whole.float() - full).std() < 0.1 * full.std()


def test_arguments_build_the_same_architecture():
    network = tiny(conv_clamp=None, c_dim=2, space="w3", mapping_kwargs={"num_layers": 3, "freeze_layers": 0})
    again = type(network)(**json.loads(json.dumps(network.init_args)))
    again.load_state_dict(network.state_dict())
    ws = network.sample_latents(2, torch.Generator().manual_seed(0))
    assert again.eval().synthesize(ws).equal(network.synthesize(ws)) and again.groups == network.groups


def test_wrong_arguments_and_weights_are_named():
    state = tiny().state_dict()
    with pytest.raises(ValueError, match=r"mis-shaped keys .*synthesis\.input\.freqs \[8, 2\] instead of \[4, 2\]"):
        from_official(state, **{**TINY, "channel_max": 4, "num_layers": 6})
    with pytest.raises(ValueError, match=r"missing keys .*mapping\.fc2\.bias"):
        from_official(state, **TINY, mapping_kwargs={"num_layers": 3})
    with pytest.raises(ValueError, match="img_resolution"):
        tiny(img_resolution=48)
    with pytest.raises(ValueError, match="num_critical"):
        tiny(num_critical=6)
    with pytest.raises(ValueError, match="half_dtype"):
        tiny(half_dtype="float8")
