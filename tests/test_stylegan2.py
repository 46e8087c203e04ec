"""StyleGAN2 against the official code's recorded outputs, and the laws of its own."""

import json

import pytest
import torch
from golden_cases import golden

from benchmarks import stylegan2 as benchmark
from clip2latent.generators import stylegan2, stylegan2_layers
from clip2latent.generators.stylegan2 import StyleGAN2, from_official
from clip2latent.generators.stylegan2_layers import ACTIVATIONS, demodulation, low_pass, resampling_filter, upsample

CASES = ("stylegan2_uncond32", "stylegan2_cond32", "stylegan2_256")
TINY = dict(z_dim=16, c_dim=0, w_dim=16, img_resolution=32, img_channels=3, channel_base=256, channel_max=16)


def official(case):
    _, config, weights, io = golden(case)
    return from_official(weights, **config["init_kwargs"]), io, config["facts"]["truncation_cutoff_used"]


@torch.no_grad()
@pytest.mark.parametrize("winograd", [False, True])
@pytest.mark.parametrize("case", CASES)
def test_agrees_with_the_official_code(case, winograd, monkeypatch):
    monkeypatch.setattr(stylegan2_layers, "WINOGRAD_CHANNELS", 1 if winograd else 10**6)
    network, io, cutoff = official(case)
    z, c = io["z"], io.get("c")
    ws = {
        "psi1": network.mapping(z, c),
        "psi07": network.mapping(z, c, psi=0.7),
        "psi05_cut": network.mapping(z, c, psi=0.5, cutoff=cutoff),
        "mixed": io["ws_mixed"],
    }
    blocks = {}

    def keep(name):
        return lambda _block, _inputs, outputs: blocks.update(
            {f"inter.{name}.{o}": x for o, x in zip(("x", "img"), outputs, strict=True)}
        )

    handles = [block.register_forward_hook(keep(name)) for name, block in network.synthesis.named_children()]
    network(z, c)
    for handle in handles:
        handle.remove()
    checked = 0
    for name, expected in io.items():
        if name.startswith("ws_"):
            found = ws[name[3:]]
        elif name.startswith("img_") and "random" not in name:
            mode, which = name.split("_")[1:3]
            found = network.synthesis(ws["psi05_cut" if which == "psi05" else which], noise_mode=mode)
            if "stride" in name:
                stride = int(name[-1])
                found = found[: expected.shape[0], :, ::stride, ::stride]
        elif name.startswith("inter."):
            found = blocks[name][: expected.shape[0], : expected.shape[1]]
        else:
            continue
        torch.testing.assert_close(found, expected, atol=2e-5, rtol=0, msg=lambda text, name=name: f"{name}: {text}")
        checked += 1
    assert checked >= 7


@torch.no_grad()
def test_random_noise_is_one_draw_a_layer(monkeypatch):
    network, io, _ = official("stylegan2_uncond32")
    draws = iter([io[f"random_noise_{i:02}"] for i in range(7)])
    monkeypatch.setattr(torch, "randn", lambda *args, **kwargs: next(draws))
    images = network.synthesis(io["ws_psi1"], noise_mode="random")
    torch.testing.assert_close(images, io["img_random_psi1"], atol=2e-5, rtol=0)


@pytest.mark.parametrize("architecture", ["skip", "resnet", "orig"])
def test_double_precision_gradient_is_that_of_the_function(architecture):
    torch.manual_seed(0)
    network = StyleGAN2(**dict(TINY, img_resolution=8), architecture=architecture).double().eval()
    ws = network.sample_latents(1, torch.Generator().manual_seed(0)).requires_grad_()
    assert torch.autograd.gradcheck(lambda w: network.synthesize(w).square().mean(), ws)


def test_half_precision_stays_close():
    torch.manual_seed(0)
    network = StyleGAN2(**TINY).eval()
    ws = network.sample_latents(4, torch.Generator().manual_seed(0))
    with torch.no_grad():
        full = network.synthesize(ws)
        for dtype in (torch.bfloat16, torch.float16):
            half = network.synthesis(ws, half_dtype=dtype)
            assert half.dtype == torch.float32
            assert (half - full).std() < 0.03 * full.std()
            torch.manual_seed(0)
            by_argument = StyleGAN2(**TINY, half_dtype=str(dtype).removeprefix("torch.")).eval()
            assert by_argument.synthesize(ws).equal(half)


def test_only_the_top_resolutions_run_in_half_precision():
    network = StyleGAN2(**TINY, num_fp16_res=2).eval()
    found = {}
    for name, block in network.synthesis.named_children():
        block.register_forward_hook(lambda _b, _i, outputs, name=name: found.update({name: outputs[0].dtype}))
    network.synthesis(torch.randn(1, *network.latent_shape), half_dtype=torch.float16)
    half, full = torch.float16, torch.float32
    assert found == {"b4": full, "b8": full, "b16": half, "b32": half}


@torch.no_grad()
@pytest.mark.parametrize("architecture", ["skip", "resnet", "orig"])
def test_one_dense_convolution_equals_one_weight_for_each_image(architecture):
    """Against the benchmark's straightforward form, which also is a second implementation of the layers."""
    torch.manual_seed(0)
    network = StyleGAN2(**TINY, architecture=architecture, space="w+").eval()
    for parameter in network.parameters():
        parameter.add_(0.1 * torch.randn_like(parameter))
    ws = network.sample_latents(3, torch.Generator().manual_seed(0))
    with benchmark.form("straightforward"):
        expected = network.synthesize(ws)
    torch.testing.assert_close(network.synthesize(ws), expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))


@torch.no_grad()
@pytest.mark.parametrize("architecture", ["skip", "orig"])
def test_one_image_at_a_time_is_the_same_batch(architecture, monkeypatch):
    torch.manual_seed(0)
    network = StyleGAN2(**TINY, architecture=architecture, space="w+").eval()
    ws = network.sample_latents(3, torch.Generator().manual_seed(0))
    together = network.synthesize(ws)
    for values in (0, 16 * 16**2):
        monkeypatch.setattr(stylegan2, "APART_FROM", values)
        torch.testing.assert_close(network.synthesize(ws), together, rtol=1e-4, atol=1e-5)


def test_clamps_hold_but_not_in_the_shortcut():
    """The official shortcut is built without a clamp."""
    network = StyleGAN2(**TINY, architecture="resnet", conv_clamp=1e-3).eval()
    sizes = {}
    for name, layer in network.synthesis.b32.named_children():
        layer.register_forward_hook(lambda _l, _i, output, name=name: sizes.update({name: output.abs().max()}))
    network.synthesize(1e3 * torch.randn(1, *network.latent_shape))
    assert max(sizes[name] for name in ("conv0", "torgb")) <= 1e-3 and sizes["conv1"] <= 1e-3 * 0.5**0.5 + 1e-9
    x = torch.ones(1, 16, 4, 4)
    assert network.synthesis.b8.skip(x).abs().max() > 1e-3


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_every_activation_has_the_gradient_of_its_function(activation):
    torch.manual_seed(0)
    sizes = dict(TINY, img_resolution=8, w_dim=4, z_dim=4, channel_max=2)
    network = StyleGAN2(**sizes, activation=activation, mapping_kwargs={"num_layers": 2, "activation": activation})
    network = network.double().eval()
    along = torch.randn(2, *network.latent_shape, dtype=torch.float64)
    amount = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda t: network.synthesize(along[:1] + t * along[1:]).square().mean(), amount)


def test_random_noise_follows_its_stream():
    network = StyleGAN2(**TINY).eval()
    for name, parameter in network.named_parameters():
        if name.endswith("noise_strength"):
            parameter.data.fill_(0.5)
    ws = network.sample_latents(2, torch.Generator().manual_seed(0))
    draws = [network.synthesis(ws, "random", torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)]
    assert draws[0].equal(draws[1]) and not draws[0].equal(draws[2])


@pytest.mark.parametrize("taps", [(1, 1), (1, 2, 1), (1, 3, 3, 1), (1, 2, 3, 3, 2, 1), (1, 2, 3, 4, 4, 3, 2, 1)])
def test_filters_of_any_length_keep_a_constant(taps):
    f, x = resampling_filter(taps), torch.ones(1, 2, 8, 8)
    assert f.ndim == (1 if len(taps) >= 8 else 2)  # as the official code stores it
    assert upsample(x, f).shape[-1] == 16
    torch.testing.assert_close(upsample(x, f)[..., 4:12, 4:12], x)
    inner = low_pass(x.repeat(1, 1, 3, 3), f, (len(taps) // 2, (len(taps) - 1) // 2))[..., 8:16, 8:16]
    torch.testing.assert_close(inner, 4 * x)


def test_demodulation_is_the_norm_of_the_modulated_weight():
    weight, styles = torch.randn(3, 4, 3, 3), torch.randn(2, 4)
    norms = (weight[None] * styles[:, None, :, None, None]).flatten(2).norm(dim=2)
    torch.testing.assert_close(demodulation(weight, styles), 1 / norms)


def test_arguments_build_the_same_architecture():
    arguments = dict(TINY, c_dim=2, conv_clamp=None, architecture="resnet", resample_filter=(1, 2, 1), space="w3")
    network = StyleGAN2(**arguments, mapping_kwargs={"num_layers": 2, "w_avg_beta": None}).eval()
    again = StyleGAN2(**json.loads(json.dumps(network.init_args))).eval()
    again.load_state_dict(network.state_dict())
    ws = network.sample_latents(2, torch.Generator().manual_seed(0))
    assert again.synthesize(ws).equal(network.synthesize(ws)) and again.groups == network.groups
    with pytest.raises(ValueError, match="psi"):
        network.mapping(torch.zeros(1, 16), torch.zeros(1, 2), psi=0.5)


def test_files_of_stylegan2_ada_keep_their_defaults():
    sizes = {name: value for name, value in TINY.items() if not name.startswith("channel_")}
    synthesis = {"channel_base": 256, "channel_max": 16, "num_fp16_res": 2}
    network = StyleGAN2(**sizes, synthesis_kwargs=synthesis)
    assert network.init_args["conv_clamp"] is None and network.synthesis.b32.conv1.conv_clamp is None
    assert StyleGAN2(**TINY).synthesis.b32.conv1.conv_clamp == 256


def test_weights_load_strictly():
    state = StyleGAN2(**TINY).state_dict()
    loaded = from_official(state, **TINY)
    assert not loaded.training and not any(parameter.requires_grad for parameter in loaded.parameters())
    assert all(loaded.state_dict()[name].equal(tensor) for name, tensor in state.items())
    state["more"] = state.pop("mapping.w_avg")
    state["synthesis.b4.const"] = torch.zeros(3, 4, 4)
    with pytest.raises(ValueError) as error:
        from_official(state, **TINY)
    for words in (
        "missing keys mapping.w_avg",
        "unexpected keys more",
        "mis-shaped keys synthesis.b4.const [3, 4, 4] instead of [16, 4, 4]",
    ):
        assert words in str(error.value)


def test_labels_hold_one_value_of_each_group_as_often_as_asked():
    shares = [[0.25, 0.75], [0.2, 0.5, 0.3]]
    network = StyleGAN2(**dict(TINY, c_dim=5), label_shares=shares)
    labels = network.sample_labels(4000, torch.Generator().manual_seed(0)).float()
    assert (labels[:, :2].sum(dim=1) == 1).all() and (labels[:, 2:].sum(dim=1) == 1).all()
    torch.testing.assert_close(labels.mean(dim=0), torch.tensor([*shares[0], *shares[1]]), atol=0.03, rtol=0)
    assert network.sample_latents(3, torch.Generator().manual_seed(0)).shape == (3, *network.latent_shape)


def test_wrong_arguments_are_named():
    network = StyleGAN2(**TINY)
    with pytest.raises(ValueError, match="latents"):
        network.synthesize(torch.zeros(1, 3, 16))
    with pytest.raises(ValueError, match="noise_mode"):
        network.synthesis(torch.zeros(1, *network.latent_shape), noise_mode="loud")
    with pytest.raises(ValueError, match="label_shares"):
        StyleGAN2(**dict(TINY, c_dim=5), label_shares=[[0.5, 0.5]])
    with pytest.raises(ValueError, match="img_resolution"):
        StyleGAN2(**dict(TINY, img_resolution=48))
    with pytest.raises(ValueError, match="architecture"):
        StyleGAN2(**TINY, architecture="unet")
    with pytest.raises(ValueError, match="activation"):
        StyleGAN2(**TINY, activation="gelu")
