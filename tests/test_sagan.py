"""SAGAN against StudioGAN's recorded outputs, and the laws of its own."""

import pytest
import torch
from golden_cases import as_recorded, golden, normalised_in_each_pass, recorded_outputs

from clip2latent.generators.sagan import PRESETS, SAGAN, from_official

TINY = {"img_size": 32, "g_conv_dim": 4, "z_dim": 8, "num_classes": 5, "attention_after_nth_gen_block": 2}


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def unbaked(args, seed=0):
    """Our network with torch's own spectral norm in every layer, and random statistics."""
    torch.manual_seed(seed)
    model = SAGAN(**args)
    for layer in model.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.running_mean.normal_()
            layer.running_var.uniform_(0.5, 2)
        elif type(layer).__name__ == "Attention":
            layer.sigma.data.fill_(0.7)
    kinds = (torch.nn.Linear, torch.nn.Conv2d, torch.nn.Embedding)
    return normalised_in_each_pass(model, [layer for layer in model.modules() if isinstance(layer, kinds)], eps=1e-6)


def linear_layout(state):
    """The later versions' names and shapes of the same network."""
    other = {}
    for name, tensor in state.items():
        for old, new in (("embed0.", "gain."), ("embed1.", "bias.")):
            if old in name:
                tensor = tensor.t().contiguous() if tensor.ndim == 2 else tensor
                last = {"weight_u": "weight_v", "weight_v": "weight_u"}.get(name.rpartition(".")[2])
                name = name.replace(old, new) if last is None else f"{name.replace(old, new).rpartition('.')[0]}.{last}"
        other[name] = tensor
    return other


@pytest.mark.parametrize("file", ["weights.safetensors", "checkpoint_style.pth", "linear layout"])
def test_agrees_with_the_official_code(file):
    case = golden("sagan_64")
    io, state = case.io, case.weights
    if file.endswith(".pth"):
        if not (case.folder / file).exists():
            pytest.skip(f"reference data sagan_64/{file} is not on this machine")
        state = torch.load(case.folder / file, weights_only=True)
    generator = from_official(linear_layout(state) if file == "linear layout" else state, **case.config["init_kwargs"])
    inner = recorded_outputs(generator, "inter.", [key for key in io if key.startswith("inter.")])
    z, vectors = io["z"].clone().requires_grad_(), generator.class_vectors(io["label"].long())
    images = generator.synthesize(torch.cat([z, vectors], dim=1)[:, None])
    torch.testing.assert_close(images, io["img"], atol=2e-5, rtol=0)
    for key, output in inner.items():
        torch.testing.assert_close(as_recorded(output, io[key]), io[key], atol=3e-5, rtol=1e-5)
    (images * io["grad_r"]).sum().backward()
    torch.testing.assert_close(z.grad, io["grad_z"], atol=3e-6, rtol=0)


@pytest.mark.parametrize("layout", ["embedding", "linear"])
@pytest.mark.parametrize("options", [{}, {"attention_after_nth_gen_block": [1, 2], "activation_fn": "Leaky_ReLU"}])
def test_baking_changes_no_bit(layout, options):
    args = {**TINY, **options, "layout": layout}
    reference = unbaked(args)
    baked = from_official(reference.state_dict(), **{**TINY, **options})
    latents = baked.sample_latents(2, rng())
    assert baked.init_args["layout"] == layout
    assert baked.synthesize(latents).equal(reference.synthesize(latents))


def test_without_spectral_norm():
    torch.manual_seed(0)
    plain = SAGAN(**TINY, g_spectral_norm=False).eval()
    loaded = from_official(plain.state_dict(), **TINY, g_spectral_norm=False)
    latents = loaded.sample_latents(2, rng())
    assert loaded.synthesize(latents).equal(plain.synthesize(latents))


def test_classes_mix_and_take_a_gradient():
    generator = from_official(unbaked(TINY).state_dict(), **TINY)
    latents = generator.sample_latents(1, rng(), torch.tensor([1]))
    assert latents[0, 0, 8:].tolist() == [0, 1, 0, 0, 0]
    latents[0, 0, 8:] = torch.tensor([0.25, 0.75, 0, 0, 0])
    latents.requires_grad_()
    generator.synthesize(latents).square().mean().backward()
    assert (latents.grad[0, 0, 8:] != 0).all()


def test_own_state_and_arguments_make_it_again():
    generator = from_official(linear_layout(unbaked(TINY).state_dict()), **TINY)
    again = SAGAN(**generator.init_args).eval()
    again.load_state_dict(generator.state_dict(), strict=True)
    latents = generator.sample_latents(2, rng())
    assert again.synthesize(latents).equal(generator.synthesize(latents))


def test_states_that_do_not_fit_are_named():
    state = unbaked(TINY).state_dict()
    state["extra"] = state.pop("linear0.weight_v")
    with pytest.raises(ValueError, match=r"missing.*linear0\.weight_v.*unexpected.*extra"):
        from_official({"state_dict": state}, **TINY)


def test_preset_is_the_published_network():
    with torch.device("meta"):
        generator = SAGAN(**PRESETS["sagan-128"])
    assert generator.resolution == 128 and generator.latent_shape == (1, 128 + 1000)
    attention = [name for name, module in generator.named_modules() if type(module).__name__ == "Attention"]
    assert attention == ["blocks.4.0"]


@pytest.mark.parametrize(
    "name, value",
    [("img_size", 48), ("activation_fn", "tanh"), ("layout", "other"), ("conditional_strategy", "no")],
)
def test_wrong_arguments_are_named(name, value):
    with pytest.raises(ValueError, match=name):
        SAGAN(**{**TINY, name: value})
