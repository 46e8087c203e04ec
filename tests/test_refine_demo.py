"""Refinement on real generators: a StyleGAN2 in w and w+, a BigGAN's z and class embedding together."""

import pytest
import torch

from clip2latent.embedders import load_embedder
from clip2latent.generators import load_generator
from clip2latent.objectives import augclip_objective
from clip2latent.refine import Refining, refine


@pytest.fixture(scope="module")
def embedder():
    return load_embedder("demo")


def go(name, embedder, text, **options):
    generator = load_generator(name)
    start = generator.sample_latents(4, torch.Generator().manual_seed(0)).unflatten(0, (2, 2))
    target, rng = embedder.embed_text([text])[0], torch.Generator()
    common = {"embedder": embedder, "targets": target, "views": 4}
    held_out = augclip_objective(**common, rng=torch.Generator().manual_seed(5), fixed=True)
    settings = Refining(12, lr=0.05, check=12, weights="each")
    looks = []
    objective = augclip_objective(**common, rng=rng)
    refined = refine(generator, objective, start, settings, held_out, looks.append, rng=rng, **options)
    assert (looks[-1].last < looks[0].last).all()  # the mixture after, and before
    return generator, start, refined


@pytest.mark.parametrize("groups", [None, (1,) * 10])
def test_a_stylegan_in_w_and_w_plus(groups, embedder):
    _, start, refined = go("demo-avatars", embedder, "a man with a red hat", groups=groups)
    assert refined.latents.shape == start[:, 0].shape and (refined.losses < refined.state.start).all()
    rows_equal = refined.latents.eq(refined.latents[:, :1]).all()
    assert rows_equal == (groups is None)


def test_a_biggan_s_z_and_class_embedding(embedder):
    generator, start, refined = go("demo-objects", embedder, "a red fish")
    z, vectors = refined.state.basis.members.split([generator.z_width, generator.class_width], dim=-1)
    z_before, before = start.split([generator.z_width, generator.class_width], dim=-1)
    assert z.abs().max() <= 2 and not z.equal(z_before) and not vectors.equal(before)
    assert generator.project(refined.latents).equal(refined.latents)
