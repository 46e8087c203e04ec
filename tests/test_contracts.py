"""Every generator and embedder against its contract."""

import functools

import pytest
import torch
from tiny_models import TinyEmbedder, TinyGenerator

from clip2latent.contracts import EmbedderContract, GeneratorContract, laws


def tiny_stylegan2(**arguments):
    from clip2latent.generators.stylegan2 import StyleGAN2

    torch.manual_seed(0)
    sizes = {"z_dim": 16, "c_dim": 0, "w_dim": 16, "img_resolution": 32, "img_channels": 3}
    sizes |= {"mapping_kwargs": {"num_layers": 2}, "channel_base": 256, "channel_max": 16}
    return StyleGAN2(**{**sizes, **arguments}).eval().requires_grad_(False)


def tiny_stylegan3(**arguments):
    from clip2latent.generators.stylegan3 import StyleGAN3

    torch.manual_seed(0)
    sizes = {"z_dim": 16, "w_dim": 16, "img_resolution": 16, "img_channels": 3, "num_layers": 6, "margin_size": 4}
    model = StyleGAN3(**sizes, channel_base=64, channel_max=8, **arguments).eval().requires_grad_(False)
    torch.nn.init.normal_(model.synthesis.input.affine.weight, std=0.3)  # zero in a new network: no gradient to row 0
    return model


def tiny_class_conditional(family, **arguments):
    """BigGAN, BigGAN-deep or SAGAN with 5 classes; gains of attention are 0 until trained, and so set."""
    import importlib

    torch.manual_seed(0)
    model = getattr(importlib.import_module(f"clip2latent.generators.{family[0]}"), family[1])(**arguments)
    for name, parameter in model.named_parameters():
        if name.endswith((".gamma", ".sigma")):
            parameter.data.fill_(0.5)
    return model.eval().requires_grad_(False)


def tiny_biggan(**arguments):
    sizes = {"resolution": 32, "G_ch": 8, "G_attn": "16", "dim_z": 16, "shared_dim": 8, "n_classes": 5}
    return tiny_class_conditional(("biggan", "BigGAN"), **{**sizes, **arguments})


def tiny_biggan_deep():
    layers = [[True, 16, 8], [False, 8, 8], [True, 8, 4], [True, 4, 2], [False, 2, 1]]
    sizes = {"z_dim": 8, "channel_width": 8, "num_classes": 5, "layers": layers, "attention_layer_position": 3}
    return tiny_class_conditional(("biggan_deep", "BigGANDeep"), **sizes)


def tiny_sagan():
    sizes = {"img_size": 32, "g_conv_dim": 8, "z_dim": 16, "num_classes": 5, "attention_after_nth_gen_block": 2}
    return tiny_class_conditional(("sagan", "SAGAN"), **sizes)


def asset_generator(name):
    from clip2latent.generators import load_generator

    return load_generator(name)


def demo_embedder():
    from clip2latent.embedders import load_embedder

    return load_embedder("demo")


# One line for each implementation; untrained weights may leave the range of images.
GENERATORS = {
    "tiny": lambda: GeneratorContract(TinyGenerator().eval()),
    "stylegan2 untrained": lambda: GeneratorContract(tiny_stylegan2(), overshoot=100),
    "stylegan2 classes": lambda: GeneratorContract(tiny_stylegan2(c_dim=3, space="z"), overshoot=100),
    "stylegan2 resnet": lambda: GeneratorContract(tiny_stylegan2(architecture="resnet", space="w+"), overshoot=100),
    "stylegan3 t": lambda: GeneratorContract(tiny_stylegan3(c_dim=0), overshoot=100),
    "stylegan3 r": lambda: GeneratorContract(
        tiny_stylegan3(c_dim=3, space="w3", conv_kernel=1, use_radial_filters=True), overshoot=100
    ),
    "biggan hierarchical": lambda: GeneratorContract(tiny_biggan(hier=True)),
    "biggan without shared embedding": lambda: GeneratorContract(tiny_biggan(G_shared=False)),
    "biggan_deep": lambda: GeneratorContract(tiny_biggan_deep()),
    "sagan": lambda: GeneratorContract(tiny_sagan()),
    "biggan demo-objects": lambda: GeneratorContract(asset_generator("demo-objects")),
    "stylegan2 demo-avatars": lambda: GeneratorContract(asset_generator("demo-avatars"), overshoot=1.0),
}
EMBEDDERS = {
    "tiny": lambda: EmbedderContract(TinyEmbedder().eval()),
    "open_clip demo-clip": lambda: EmbedderContract(demo_embedder()),
}


@functools.cache
def build(kind, name):
    return {"generator": GENERATORS, "embedder": EMBEDDERS}[kind][name]()


@pytest.mark.parametrize("law", laws(GeneratorContract))
@pytest.mark.parametrize("name", GENERATORS)
def test_generator(name, law):
    getattr(build("generator", name), law)()


@pytest.mark.parametrize("law", laws(EmbedderContract))
@pytest.mark.parametrize("name", EMBEDDERS)
def test_embedder(name, law):
    getattr(build("embedder", name), law)()
