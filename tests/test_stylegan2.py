"""StyleGAN2 against the official code's recorded outputs, and the laws of its own."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from clip2latent.generators.stylegan2 import StyleGAN2

GOLDEN = Path(__file__).parents[2] / "shared" / "golden"
SHIPPED = Path(__file__).parent / "golden"
CASES = ("stylegan2_uncond32", "stylegan2_cond32", "stylegan2_256")
TINY = dict(z_dim=16, c_dim=0, w_dim=16, img_resolution=32, img_channels=3, channel_base=256, channel_max=16)


def official(case):
    folder = next((root / case for root in (GOLDEN, SHIPPED) if (root / case).is_dir()), None)
    if folder is None:
        pytest.skip(f"reference data {case} is not on this machine")
    config = json.loads((folder / "config.json").read_text())
    network = StyleGAN2(**config["init_kwargs"]).eval()
    network.load_state_dict(load_file(folder / "weights.safetensors"), strict=True)
    return network, load_file(folder / "io.safetensors"), config["facts"]["truncation_cutoff_used"]


@torch.no_grad()
@pytest.mark.parametrize("case", CASES)
def test_agrees_with_the_official_code(case):
    network, io, cutoff = official(case)
    z, c = io["z"], io.get("c")
    ws = {
        "psi1": network.mapping(z, c),
        "psi07": network.mapping(z, c, psi=0.7),
        "psi05_cut": network.mapping(z, c, psi=0.5, cutoff=cutoff),
        "mixed": io["ws_mixed"],
    }
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
