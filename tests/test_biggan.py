"""BigGAN against the official code's recorded outputs and against the straightforward form, and the laws of its own."""

import pytest
import torch
import torch.nn.functional as F
from golden_cases import as_recorded, golden, recorded_outputs

from benchmarks.biggan import random_state, straightforward
from clip2latent.generators import biggan_layers
from clip2latent.generators.biggan import PRESETS, BigGAN, from_official

TINY = {"resolution": 32, "G_ch": 4, "G_attn": "16", "dim_z": 16, "shared_dim": 8, "n_classes": 5, "hier": True}
VARIANTS = {
    "hierarchical": {},
    "z as a whole": {"hier": False},
    "shared width of z": {"hier": False, "shared_dim": 0},
    "no shared embedding": {"hier": False, "G_shared": False},
    "without spectral norm": {"G_param": "P"},
    "two attentions": {"resolution": 64, "G_attn": "16_32", "dim_z": 21},
    "no attention": {"G_attn": "0"},
    "128 px": {"resolution": 128, "G_ch": 2, "G_attn": "32", "dim_z": 128},
    "other eps": {"BN_eps": 1e-2, "SN_eps": 1e-4},
    "wide bottom": {"bottom_width": 6},
}


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("name", ["biggan_64", "biggan_256"])
def test_agrees_with_the_official_code(name):
    case = golden(name)
    generator, io = from_official(case.weights, **case.config["init_kwargs"]), case.io
    torch.testing.assert_close(generator.class_vectors(io["y"].long()), io["shared_y"], atol=0, rtol=0)
    inner = recorded_outputs(generator, "inter.", [key for key in io if key.startswith("inter.")])
    with torch.no_grad():
        images = {
            "img": generator.synthesize(torch.cat([io["z"], io["shared_y"]], dim=1)[:, None]),
            "inner": dict(inner),
            "img_mixed": generator.synthesize(torch.cat([io["z"], io["shared_y_mixed"]], dim=1)[:, None]),
        }
    checked = 0
    for key, expected in io.items():
        if key.startswith("inter."):
            found = as_recorded(images["inner"][key], expected)
        elif key.startswith("img"):
            found = images["img_mixed" if "mixed" in key else "img"][: len(expected)]
            found = found[:, :, ::4, ::4] if "stride4" in key else found
            found = found[:, :, 96:160, 96:160] if "crop_96_64" in key else found
        else:
            continue
        scale = max(1, expected.abs().max())
        torch.testing.assert_close(found / scale, expected / scale, atol=4e-5, rtol=0, msg=lambda m, k=key: f"{k}: {m}")
        checked += 1
    assert checked >= 7


def test_gradients_agree_with_the_official_code():
    case = golden("biggan_64")
    generator, io = from_official(case.weights, **case.config["init_kwargs"]), case.io
    z, y = (io[key].clone().requires_grad_() for key in ("z", "shared_y"))
    (generator(z, y) * io["grad_r"]).sum().backward()
    torch.testing.assert_close(z.grad, io["grad_z"], atol=3e-6, rtol=0)
    torch.testing.assert_close(y.grad, io["grad_shared_y"], atol=3e-6, rtol=0)


@pytest.mark.parametrize("variant", VARIANTS)
def test_agrees_with_the_straightforward_form(variant):
    args = {**TINY, **VARIANTS[variant]}
    state = random_state(args)
    generator = from_official(state, **args)
    plain = straightforward(state, generator.init_args)
    latents = generator.sample_latents(2, rng()).requires_grad_()
    images = generator.synthesize(latents)
    expected = plain(*latents[:, 0].split([generator.z_width, generator.class_width], dim=1))
    torch.testing.assert_close(images, expected, atol=2e-5, rtol=0)
    direction = torch.randn(images.shape, generator=rng(1))
    gradients = [torch.autograd.grad((image * direction).sum(), latents)[0] for image in (images, expected)]
    assert (gradients[0] - gradients[1]).norm() < 1e-4 * gradients[1].norm()


def test_winograd_form_agrees_with_the_straightforward_form(monkeypatch):
    monkeypatch.setattr(biggan_layers, "WINOGRAD_CHANNELS", 4)
    state = random_state(TINY)
    generator = from_official(state, **TINY)
    plain = straightforward(state, generator.init_args)
    latents = generator.sample_latents(2, rng()).requires_grad_()
    images = generator.synthesize(latents)
    expected = plain(*latents[:, 0].split([generator.z_width, generator.class_width], dim=1))
    convs = [module for module in generator.modules() if isinstance(module, biggan_layers.Conv3x3)]
    # The first convolution of a block follows upsampling; none of these images is large enough for its other form.
    assert [conv.frozen.holds for conv in convs] == [True] * len(convs)
    torch.testing.assert_close(images, expected, atol=2e-5, rtol=0)
    direction = torch.randn(images.shape, generator=rng(1))
    gradients = [torch.autograd.grad((image * direction).sum(), latents)[0] for image in (images, expected)]
    assert (gradients[0] - gradients[1]).norm() < 1e-4 * gradients[1].norm()
    with torch.no_grad():
        assert generator.synthesize(latents).equal(images)
    trained = from_official(state, **TINY).requires_grad_(True)
    trained.synthesize(latents).sum().backward()
    assert not any(
        conv.frozen.holds or conv.weight.grad is None for conv in trained.modules() if hasattr(conv, "frozen")
    )


class OneStep(torch.nn.Module):
    """The published layers' weight in eval mode: one power iteration from u0 in every forward pass."""

    def __init__(self, u, eps):
        super().__init__()
        self.u, self.eps = u, eps

    def forward(self, weight):
        matrix = weight.view(len(weight), -1)
        v = F.normalize(torch.matmul(self.u, matrix), eps=self.eps)
        u = F.normalize(torch.matmul(v, matrix.t()), eps=self.eps)
        return weight / torch.squeeze(torch.matmul(torch.matmul(v, matrix.t()), u.t()))


def test_baking_changes_no_bit():
    state = random_state(TINY)
    baked = from_official(state, **TINY)
    unbaked = BigGAN(**TINY).eval().requires_grad_(False)
    unbaked.load_state_dict({name: state[name] for name in unbaked.state_dict()})
    for name, layer in list(unbaked.named_modules()):
        if f"{name}.u0" in state:
            step = OneStep(state[f"{name}.u0"], baked.init_args["SN_eps"])
            torch.nn.utils.parametrize.register_parametrization(layer, "weight", step)
    latents = baked.sample_latents(2, rng())
    assert baked.synthesize(latents).equal(unbaked.synthesize(latents))
    raw = BigGAN(**TINY).eval().requires_grad_(False)
    raw.load_state_dict({name: state[name] for name in raw.state_dict()})
    assert not baked.synthesize(latents).equal(raw.synthesize(latents))


def test_own_state_and_arguments_make_it_again():
    generator = from_official(random_state(TINY), **TINY, class_names=list("abcde"), truncation=0.5)
    again = BigGAN(**generator.init_args).eval()
    again.load_state_dict(generator.state_dict(), strict=True)
    latents = generator.sample_latents(2, rng())
    assert again.sample_latents(2, rng()).equal(latents) and again.synthesize(latents).equal(
        generator.synthesize(latents)
    )
    assert list(again.class_names) == list("abcde")
    assert not any(name.rpartition(".")[2] in ("u0", "sv0") for name in generator.state_dict())


def test_files_of_every_batch_norm_load():
    state = random_state(TINY)
    images = [from_official(state, **TINY).synthesize(from_official(state, **TINY).sample_latents(1, rng()))]
    logged = {f"{name[:-2]}sv0": torch.ones(1) for name in state if name.endswith("u0")}
    manual = {name.replace(".stored_", ".bn.stored_"): tensor for name, tensor in state.items()}
    manual |= {"blocks.0.0.bn1.bn.accumulation_counter": torch.zeros(1)}
    synchronised = {name.replace(".stored_", ".bn.running_"): tensor for name, tensor in state.items()}
    synchronised["output_layer.0.bn.weight"] = synchronised.pop("output_layer.0.gain")
    synchronised["output_layer.0.bn.bias"] = synchronised.pop("output_layer.0.bias")
    for other, option in ((state | logged, {}), (manual, {"mybn": True}), (synchronised, {"cross_replica": True})):
        generator = from_official(other, **TINY, **option)
        images.append(generator.synthesize(generator.sample_latents(1, rng())))
    assert all(image.equal(images[0]) for image in images)


def test_states_that_do_not_fit_are_named():
    state = random_state(TINY)
    without = {name: tensor for name, tensor in state.items() if name not in ("linear.u0", "shared.weight")}
    with pytest.raises(ValueError, match=r"missing.*linear\.u0.*shared\.weight"):
        from_official(without, **TINY)
    with pytest.raises(ValueError, match=r"unexpected.*shared\.u0"):
        from_official(state | {"shared.u0": torch.ones(1, 5)}, **TINY)
    with pytest.raises(ValueError, match=r"linear\.u0"):
        from_official(state | {"linear.u0": torch.ones(1, 3)}, **TINY)
    with pytest.raises(ValueError, match=r"missing keys .*linear\.u0"):  # baked once, never twice
        from_official(from_official(state, **TINY).state_dict(), **TINY)


@torch.no_grad()
@pytest.mark.parametrize(
    "preset, chunks, attention, parameters", [("biggan-256", 7, "blocks.4.1", 82), ("biggan-512", 8, "blocks.3.1", 82)]
)
def test_presets_are_the_published_networks(preset, chunks, attention, parameters):
    with torch.device("meta"):
        generator = BigGAN(**PRESETS[preset])
    width = {"biggan-256": 140, "biggan-512": 128}[preset]
    assert generator.latent_shape == (1, width + 128) and generator.chunk == width // chunks
    assert [n for n, m in generator.named_modules() if type(m).__name__ == "Attention"] == [attention]
    assert generator.resolution == int(preset[-3:])
    assert round(sum(p.numel() for p in generator.parameters()) / 1e6) == parameters
    names = generator.class_names
    assert len(names) == 1000 and (names[0], names[207], names[999]) == ("tench", "Golden Retriever", "toilet paper")


def test_drawn_latents_are_truncated_normal_and_of_the_class():
    generator = from_official(random_state(TINY), **TINY, truncation=0.5)
    classes = torch.tensor([3, 0] * 2000)
    z, vectors = generator.sample_latents(4000, rng(), classes)[:, 0].split([16, 8], dim=1)
    assert z.abs().max() <= 1 and abs(float(z.std()) - 0.5 * 0.8796) < 0.005 and abs(float(z.mean())) < 0.01
    assert vectors.equal(generator.shared.weight[classes])
    free = generator.sample_latents(4000, rng())[:, 0]
    assert free[:, :16].equal(z)  # the classes do not shift the draws of z
    assert len(free[:, 16:].unique(dim=0)) == 5


def test_project_clamps_z_and_leaves_the_class():
    generator = from_official(random_state(TINY), **TINY)
    latents = 5 * torch.randn(3, 1, 24, generator=rng())
    projected = generator.project(latents)
    assert projected[..., :16].equal(latents[..., :16].clamp(-2, 2)) and projected[..., 16:].equal(latents[..., 16:])


def test_training_uses_the_batch_and_moves_the_stored_statistics():
    generator = BigGAN(**TINY).train()
    before = generator.blocks[0][0].bn1.stored_mean.clone()
    images = generator(torch.randn(4, 16), generator.class_vectors(torch.arange(4)))
    images.square().mean().backward()
    assert not generator.blocks[0][0].bn1.stored_mean.equal(before)
    assert all(p.grad is not None for name, p in generator.named_parameters())


@pytest.mark.parametrize(
    "name, value",
    [
        ("resolution", 48),
        ("G_shared", False),
        ("norm_style", "in"),
        ("G_activation", "leaky_relu"),
        ("channels", 3),
        ("class_names", ["one"]),
        ("truncation", 0),
    ],
)
def test_wrong_arguments_are_named(name, value):
    with pytest.raises(ValueError, match=name):
        BigGAN(**{**TINY, name: value})


def test_wrong_latents_and_classes_are_named():
    generator = BigGAN(**TINY).eval()
    for classes in (torch.tensor([5]), torch.tensor([0.0]), torch.tensor([0, 1])):
        with pytest.raises(ValueError, match="classes"):
            generator.sample_latents(1, rng(), classes)
    with pytest.raises(ValueError, match="latents"):
        generator.synthesize(torch.zeros(1, 24))
