"""What every Generator and every Embedder must do, as laws that anyone's implementation can be tried on.

A test of a new implementation calls each law by name; with pytest:

    @pytest.mark.parametrize("law", laws(GeneratorContract))
    def test_my_generator(law):
        getattr(GeneratorContract(my_generator), law)()

A law raises AssertionError where it is broken, and unittest.SkipTest (which pytest reports as skipped) where this
machine or the implementation has nothing to try it on.
"""

from __future__ import annotations

import copy
from typing import Any
from unittest import SkipTest

import torch
from torch import Tensor, nn

from clip2latent.interfaces import ClassConditional, Embedder, Generator

CLOSE = {"rtol": 1e-3, "atol": 1e-4}


def rng(seed: int = 0) -> torch.Generator:
    """Returns a random stream on the CPU, where pipelines keep theirs whatever the models' device."""
    return torch.Generator().manual_seed(seed)


class GeneratorContract:
    """Laws of a generator."""

    def __init__(self, generator: Generator, overshoot: float = 0.0) -> None:
        """Takes a generator, and how far its images may leave [-1, 1] (untrained weights know no range)."""
        self.generator, self.overshoot = generator, overshoot

    def shapes(self) -> None:
        """Latents are [B, L, D] and images [B, 3, R, R], as the attributes say."""
        g = self.generator
        assert isinstance(g, Generator)
        latents = g.sample_latents(3, rng())
        assert latents.shape == (3, *g.latent_shape) and latents.is_floating_point()
        images = g.synthesize(latents)
        assert images.shape == (3, 3, g.resolution, g.resolution)
        assert isinstance(g.latent_shape, tuple) and all(isinstance(n, int) for n in (*g.latent_shape, g.resolution))

    def values_are_images(self) -> None:
        """Images are finite, not constant, and in [-1, 1] up to the overshoot."""
        images = self.generator.synthesize(self.generator.sample_latents(4, rng(1)))
        assert images.isfinite().all() and images.std() > 1e-3
        assert images.abs().max() <= 1 + self.overshoot

    def a_seed_fixes_the_latents(self) -> None:
        """The same stream gives the same latents, another one others, and rows differ."""
        g = self.generator
        one, two, other = (g.sample_latents(2, rng(seed)) for seed in (3, 3, 4))
        assert one.equal(two) and not one.equal(other) and not one[0].equal(one[1])

    def the_global_seed_changes_nothing(self) -> None:
        """Latents and images do not depend on torch's global random state."""
        g, latents, images = self.generator, [], []
        for seed in (0, 1):
            torch.manual_seed(seed)
            latents.append(g.sample_latents(2, rng(5)))
            images.append(g.synthesize(latents[0]))
        assert latents[0].equal(latents[1]) and images[0].equal(images[1])

    def an_image_does_not_depend_on_its_batch(self) -> None:
        """Four images made together are those made one by one."""
        latents = self.generator.sample_latents(4, rng(6))
        together = self.generator.synthesize(latents)
        alone = torch.cat([self.generator.synthesize(latents[index : index + 1]) for index in range(4)])
        torch.testing.assert_close(together, alone, **CLOSE)

    def the_gradient_reaches_every_latent_row(self) -> None:
        """Each latent row has a finite gradient that is not zero."""
        latents = self.generator.sample_latents(2, rng(7)).requires_grad_()
        self.generator.synthesize(latents).square().mean().backward()
        assert latents.grad is not None and latents.grad.isfinite().all()
        assert (latents.grad.abs().sum(-1) > 0).all()

    def arguments_stay_as_they_are(self) -> None:
        """Neither synthesize nor project writes into its argument."""
        latents = self.generator.sample_latents(2, rng(8))
        before = latents.clone()
        self.generator.synthesize(latents)
        self.generator.project(latents)
        assert latents.equal(before)

    def projection_is_idempotent_and_keeps_valid_latents(self) -> None:
        """Sampled latents stay, others become valid once and for all."""
        g = self.generator
        valid = g.sample_latents(3, rng(9))
        torch.testing.assert_close(g.project(valid), valid)
        once = g.project(valid + 3 * torch.randn(valid.shape, generator=rng(10)))
        torch.testing.assert_close(g.project(once), once)
        assert g.synthesize(once).isfinite().all()

    def weights_are_frozen_where_there_are_any(self) -> None:
        """A module is in eval mode and its parameters take no gradients."""
        _check_frozen(self.generator)

    def classes_are_kept(self) -> None:
        """A class-conditional generator draws latents of chosen classes."""
        g = self.generator
        if isinstance(g, ClassConditional):
            classes = torch.tensor([0, len(g.class_names) - 1])
            chosen = g.sample_latents(2, rng(11), classes=classes)
            assert chosen.shape == (2, *g.latent_shape) and chosen.equal(g.sample_latents(2, rng(11), classes=classes))

    def float64_makes_the_same_images(self) -> None:
        """Moved to float64, the generator makes the same images."""
        self._check_move({"dtype": torch.float64}, tolerance=1e-3)

    def bfloat16_makes_nearly_the_same_images(self) -> None:
        """Moved to bfloat16, the generator's images are finite and near to the original ones."""
        self._check_move({"dtype": torch.bfloat16}, tolerance=0.2)

    def cuda_makes_the_same_images(self) -> None:
        """Moved to a GPU, the generator makes the same images; streams stay on the CPU."""
        _check_cuda()
        self._check_move({"device": torch.device("cuda")}, tolerance=1e-2)

    def _check_move(self, target: dict[str, Any], tolerance: float) -> None:
        """Compares a moved copy's images: root mean square difference over root mean square."""
        g = self.generator
        moved = _moved(g, target)
        latents = g.sample_latents(2, rng(12))
        images = g.synthesize(latents)
        there = moved.synthesize(latents.to(**target))
        assert there.shape == images.shape and there.is_floating_point() and there.isfinite().all()
        difference = (there.to(images) - images).square().mean().sqrt() / images.square().mean().sqrt()
        assert difference <= tolerance, f"images differ by {difference:.2g} of their size, expected {tolerance:.2g}"
        drawn = moved.sample_latents(2, rng(12))
        assert drawn.shape == latents.shape and drawn.isfinite().all()
        assert (drawn.to(latents) - latents).norm() <= tolerance * latents.norm(), "the latents differ"
        assert moved.project(latents.to(**target)).shape == latents.shape


class EmbedderContract:
    """Laws of an embedder."""

    PROMPTS = ("a man with a red hat", "a woman at night", "a smiling old man with glasses")

    def __init__(self, embedder: Embedder, resolution: int = 64) -> None:
        """Takes an embedder and the side of the images to try it on."""
        self.embedder, self.resolution = embedder, resolution

    def images(self, num: int, resolution: int | None = None, seed: int = 0) -> Tensor:
        """Smooth random images [num, 3, R, R] in [-1, 1]."""
        coarse = torch.rand(num, 3, 4, 4, generator=rng(seed)) * 2 - 1
        side = resolution or self.resolution
        return torch.nn.functional.interpolate(coarse, (side, side), mode="bilinear", align_corners=False)

    def shapes_and_norms(self) -> None:
        """Embeddings are float32 [B, E] of unit norm."""
        e = self.embedder
        assert isinstance(e, Embedder) and isinstance(e.dim, int)
        for embeddings, rows in ((e.embed_text(self.PROMPTS), len(self.PROMPTS)), (e.embed_images(self.images(2)), 2)):
            assert embeddings.shape == (rows, e.dim) and embeddings.dtype == torch.float32
            torch.testing.assert_close(embeddings.norm(dim=-1), torch.ones(rows))

    def images_of_any_side(self) -> None:
        """The same picture at another size is nearer to itself than to another picture."""
        whole, half = (
            self.embedder.embed_images(self.images(2, side)) for side in (self.resolution, 2 * self.resolution)
        )
        assert whole.shape == half.shape
        assert ((whole * half).sum(-1) > (whole * half.flip(0)).sum(-1)).all()

    def an_embedding_does_not_depend_on_its_batch(self) -> None:
        """Images and texts embedded together are those embedded one by one."""
        images = self.images(4)
        together = self.embedder.embed_images(images)
        alone = torch.cat([self.embedder.embed_images(images[index : index + 1]) for index in range(4)])
        torch.testing.assert_close(together, alone, **CLOSE)
        texts = torch.cat([self.embedder.embed_text([prompt]) for prompt in self.PROMPTS])
        torch.testing.assert_close(self.embedder.embed_text(self.PROMPTS), texts, **CLOSE)

    def the_gradient_reaches_the_images(self) -> None:
        """Each image has a finite gradient that is not zero."""
        images = self.images(2).requires_grad_()
        self.embedder.embed_images(images)[:, 0].sum().backward()
        assert images.grad is not None and images.grad.isfinite().all()
        assert (images.grad.flatten(1).abs().sum(1) > 0).all()

    def the_same_input_gives_equal_bits(self) -> None:
        """Nothing is random."""
        assert self.embedder.embed_images(self.images(2)).equal(self.embedder.embed_images(self.images(2)))
        assert self.embedder.embed_text(self.PROMPTS).equal(self.embedder.embed_text(self.PROMPTS))

    def different_inputs_differ(self) -> None:
        """No two inputs share an embedding."""
        texts, images = self.embedder.embed_text(self.PROMPTS), self.embedder.embed_images(self.images(3))
        for rows in (texts, images):
            assert (rows @ rows.T - torch.eye(3)).max() < 1 - 1e-5

    def arguments_stay_as_they_are(self) -> None:
        """embed_images does not write into its argument."""
        images = self.images(2)
        before = images.clone()
        self.embedder.embed_images(images)
        assert images.equal(before)

    def weights_are_frozen_where_there_are_any(self) -> None:
        """A module is in eval mode and its parameters take no gradients."""
        _check_frozen(self.embedder)

    def float64_gives_the_same_embeddings(self) -> None:
        """Moved to float64, the embedder gives the same embeddings."""
        self._check_move({"dtype": torch.float64}, least=0.9999)

    def bfloat16_gives_nearly_the_same_embeddings(self) -> None:
        """Moved to bfloat16, the embedder gives nearly the same embeddings."""
        self._check_move({"dtype": torch.bfloat16}, least=0.99)

    def cuda_gives_the_same_embeddings(self) -> None:
        """Moved to a GPU, the embedder gives the same embeddings, of texts too."""
        _check_cuda()
        self._check_move({"device": torch.device("cuda")}, least=0.9999)

    def _check_move(self, target: dict[str, Any], least: float) -> None:
        """Compares a moved copy's embeddings: the cosine is at least `least`."""
        e, moved, images = self.embedder, _moved(self.embedder, target), self.images(2)
        pairs = (
            (e.embed_images(images), moved.embed_images(images.to(**target))),
            (e.embed_text(self.PROMPTS), moved.embed_text(self.PROMPTS)),
        )
        for here, there in pairs:
            assert there.shape == here.shape and there.isfinite().all()
            cosines = nn.functional.cosine_similarity(here, there.to(here), dim=-1)
            assert (cosines >= least).all(), f"cosine {cosines.min():.5f}, expected at least {least}"


def laws(contract: type) -> list[str]:
    """Names of a contract's laws."""
    helpers = {"images"}
    return [name for name in vars(contract) if not name.startswith("_") and name not in helpers and name.islower()]


def _moved(model: object, target: dict[str, Any]) -> Any:
    if not isinstance(model, nn.Module):
        raise SkipTest(f"{type(model).__name__} is no nn.Module: nothing to move")
    return copy.deepcopy(model).to(**target)


def _check_cuda() -> None:
    if not torch.cuda.is_available():
        raise SkipTest("no CUDA device on this machine")


def _check_frozen(model: object) -> None:
    if isinstance(model, nn.Module):
        assert not model.training
        assert not any(weight.requires_grad for weight in model.parameters())
