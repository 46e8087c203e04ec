"""BigGAN-deep against the package's recorded outputs, and the laws of its own."""

import pytest
import torch
from golden_cases import as_recorded, golden, normalised_in_each_pass, recorded_outputs

from clip2latent.generators.biggan_deep import PRESETS, BigGANDeep, from_official, statistics_row

TINY = {
    "z_dim": 8,
    "channel_width": 4,
    "num_classes": 5,
    "layers": [[False, 16, 16], [True, 16, 8], [True, 8, 4], [True, 4, 2], [False, 2, 1]],
    "attention_layer_position": 3,
}


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def unbaked(args, seed=0):
    """Our network with torch's own spectral norm in each layer that the package normalises, and random statistics."""
    torch.manual_seed(seed)
    model = BigGANDeep(**args)
    for layer in model.modules():
        if hasattr(layer, "running_means"):
            layer.running_means.normal_()
            layer.running_vars.uniform_(0.5, 2)
    model.generator.layers[args["attention_layer_position"]].gamma.data.fill_(0.7)
    kinds = (torch.nn.Linear, torch.nn.Conv2d)
    return normalised_in_each_pass(model, [m for m in model.generator.modules() if isinstance(m, kinds)], eps=1e-4)


@torch.no_grad()
def test_agrees_with_the_package():
    case, checked = golden("biggan_deep_32"), 0
    io = case.io
    for key, expected in io.items():
        if key.startswith("inter_trunc_0.4."):
            truncation, vectors = 0.4, io["y_onehot"]
        elif key.startswith("img_"):
            truncation, vectors = float(key.rpartition("_")[2]), io["y_soft" if "soft" in key else "y_onehot"]
        else:
            continue
        generator = from_official(case.weights, **case.config, truncation=truncation)
        inner = recorded_outputs(generator.generator, "inter_trunc_0.4.", [key] * key.startswith("inter"))
        images = generator.synthesize(torch.cat([io["z"], generator.embeddings(vectors)], dim=1)[:, None])
        found = as_recorded(inner[key], expected) if inner else images[: len(expected)]
        torch.testing.assert_close(found, expected, atol=5e-5, rtol=1e-5, msg=lambda m, k=key: f"{k}: {m}")
        checked += 1
    assert checked == 13
    one_hot = generator.class_vectors(io["y_index"].long())
    torch.testing.assert_close(one_hot, io["embed_onehot"], atol=0, rtol=0)


def test_gradients_agree_with_the_package():
    case = golden("biggan_deep_32")
    generator, io = from_official(case.weights, **case.config, truncation=1.0), case.io
    z, y = (io[key].clone().requires_grad_() for key in ("z", "y_soft"))
    (generator(z, generator.embeddings(y)) * io["grad_r"]).sum().backward()
    torch.testing.assert_close(z.grad, io["grad_z"], atol=5e-6, rtol=0)
    torch.testing.assert_close(y.grad, io["grad_y_soft"], atol=5e-6, rtol=0)


def test_statistics_follow_the_package_even_where_it_errs():
    for truncation, index, share in ((0.4, 20, 0), (1.0, 50, 0), (0.02, 1, 0), (0.435, 21, 0.75)):
        assert statistics_row(truncation, 51) == pytest.approx((index, share))
    assert statistics_row(0.14, 51).index == 7 and 0 < statistics_row(0.14, 51).share < 1e-12
    assert statistics_row(0.58, 51).index == 28 and statistics_row(0.58, 51).share > 1 - 1e-12


@pytest.mark.parametrize("truncation", [1.0, 0.5])
def test_baking_changes_no_bit(truncation):
    args = {**TINY, "truncation": truncation}
    reference = unbaked(args)
    baked = from_official(reference.state_dict(), **args)
    latents = baked.sample_latents(2, rng())
    assert baked.synthesize(latents).equal(reference.synthesize(latents))


def test_truncation_selects_statistics_and_scales_z():
    state = unbaked(TINY).state_dict()
    full, half = (from_official(state, **TINY, truncation=t) for t in (1.0, 0.5))
    latents = full.sample_latents(2, rng())
    torch.testing.assert_close(half.sample_latents(2, rng())[..., :8], 0.5 * latents[..., :8])
    assert not full.synthesize(latents).equal(half.synthesize(latents))


def test_own_state_and_arguments_make_it_again():
    generator = from_official(unbaked(TINY).state_dict(), **TINY, truncation=0.4)
    again = BigGANDeep(**generator.init_args).eval()
    again.load_state_dict(generator.state_dict(), strict=True)
    latents = generator.sample_latents(2, rng())
    assert again.synthesize(latents).equal(generator.synthesize(latents))
    assert generator.resolution == 32 and generator.class_names[4] == "class 4"


def test_states_that_do_not_fit_are_named():
    state = unbaked(TINY).state_dict()
    state["extra"] = state.pop("generator.gen_z.weight_u")
    with pytest.raises(ValueError, match=r"missing.*generator\.gen_z\.weight_u.*unexpected.*extra"):
        from_official(state, **TINY)


@pytest.mark.parametrize("side, millions", [(128, 50.4), (256, 55.9), (512, 56.2)])
def test_presets_are_the_published_networks(side, millions):
    with torch.device("meta"):
        generator = BigGANDeep(**PRESETS[f"biggan-deep-{side}"])
    assert generator.resolution == side and generator.latent_shape == (1, 256) and generator.num_classes == 1000
    attention = [n for n, m in generator.generator.named_modules() if type(m).__name__ == "Attention"]
    assert attention == ["layers.8"]
    before = PRESETS[f"biggan-deep-{side}"]["layers"][:8]
    assert 4 << sum(up for up, _, _ in before) == 64  # all three attend at 64 px
    assert round(sum(p.numel() for p in generator.parameters()) / 1e6, 1) == millions  # as the package's README says


@pytest.mark.parametrize("layers", [[[True, 16, 8]], [[True, 16, 8], [True, 4, 1]], [[True, 16, 4], [True, 4, 1]]])
def test_layers_that_do_not_follow_are_named(layers):
    with pytest.raises(ValueError, match="layers"):
        BigGANDeep(**{**TINY, "layers": layers})


def test_truncation_beyond_the_table_is_named():
    for truncation in (0, 1.5):
        with pytest.raises(ValueError, match="truncation"):
            BigGANDeep(**{**TINY, "truncation": truncation})
