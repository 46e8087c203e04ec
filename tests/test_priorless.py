"""Models without a prior: their space is that of the generator's own latents."""

import torch
from tiny_models import TinyEmbedder, TinyGenerator

from clip2latent.generators import load_generator
from clip2latent.priorless import Priorless, sampled_space


def test_the_space_standardises_the_generator_s_own_latents():
    generator = TinyGenerator()
    space = sampled_space(generator)
    assert space.groups == (1, 1, 1)
    tokens = space.encode(generator.sample_latents(2000, torch.Generator().manual_seed(7)))
    torch.testing.assert_close(tokens.mean((0, 1)), torch.zeros(4), rtol=0, atol=0.1)
    torch.testing.assert_close(tokens.std((0, 1)), torch.ones(4), rtol=0, atol=0.1)


def test_latents_of_w_have_one_token_and_a_class_embedding_its_own_deviations():
    assert sampled_space(load_generator("demo-avatars")).groups == (10,)
    objects = load_generator("demo-objects")
    std = sampled_space(objects).std[0]
    z, vectors = std.split([objects.z_width, objects.class_width])
    torch.testing.assert_close(z, torch.full_like(z, 0.88), rtol=0, atol=0.05)  # a normal cut off at 2
    classes = objects.class_vectors(torch.arange(objects.num_classes)).std(0, correction=0)
    torch.testing.assert_close(vectors, classes, rtol=0.1, atol=1e-3)


def test_images_are_clamped_and_models_told():
    models = Priorless(TinyGenerator(), TinyEmbedder(), sampled_space(TinyGenerator()), "cpu", {"generator": {"a": 1}})
    images = models.draw(torch.full((1, 3, 4), 9.0))
    assert images.shape == (1, 3, 8, 8) and images.abs().max() <= 1
    assert models.identities() == {"generator": {"a": 1}}
