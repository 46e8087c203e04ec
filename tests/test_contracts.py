"""Every generator and embedder against its contract."""

import functools

import pytest
import torch
from tiny_models import TinyEmbedder, TinyGenerator

from clip2latent.contracts import EmbedderContract, GeneratorContract, laws


def tiny_stylegan2():
    from clip2latent.generators.stylegan2 import StyleGAN2

    torch.manual_seed(0)
    sizes = {"z_dim": 16, "c_dim": 0, "w_dim": 16, "img_resolution": 32, "img_channels": 3}
    model = StyleGAN2(**sizes, mapping_kwargs={"num_layers": 2}, channel_base=256, channel_max=16)
    return model.eval().requires_grad_(False)


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
