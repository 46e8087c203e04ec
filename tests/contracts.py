"""What every Generator and every Embedder must do. A new implementation joins with one line in test_contracts.py."""

import torch
from torch import Tensor

from clip2latent.interfaces import ClassConditional, Embedder, Generator

CLOSE = {"rtol": 1e-3, "atol": 1e-4}


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class GeneratorContract:
    """Laws of a generator; a test calls each of them through `laws()`."""

    def __init__(self, generator: Generator, overshoot: float = 0.0) -> None:
        """Takes a generator, and how far its images may leave [-1, 1] (untrained weights know no range)."""
        self.generator, self.overshoot = generator, overshoot

    def shapes(self) -> None:
        g = self.generator
        assert isinstance(g, Generator)
        latents = g.sample_latents(3, rng())
        assert latents.shape == (3, *g.latent_shape) and latents.is_floating_point()
        images = g.synthesize(latents)
        assert images.shape == (3, 3, g.resolution, g.resolution)
        assert isinstance(g.latent_shape, tuple) and all(isinstance(n, int) for n in (*g.latent_shape, g.resolution))

    def values_are_images(self) -> None:
        images = self.generator.synthesize(self.generator.sample_latents(4, rng(1)))
        assert images.isfinite().all() and images.std() > 1e-3
        assert images.abs().max() <= 1 + self.overshoot

    def a_seed_fixes_the_latents(self) -> None:
        g = self.generator
        one, two, other = (g.sample_latents(2, rng(seed)) for seed in (3, 3, 4))
        assert one.equal(two) and not one.equal(other) and not one[0].equal(one[1])

    def the_global_seed_changes_nothing(self) -> None:
        g, latents, images = self.generator, [], []
        for seed in (0, 1):
            torch.manual_seed(seed)
            latents.append(g.sample_latents(2, rng(5)))
            images.append(g.synthesize(latents[0]))
        assert latents[0].equal(latents[1]) and images[0].equal(images[1])

    def an_image_does_not_depend_on_its_batch(self) -> None:
        latents = self.generator.sample_latents(4, rng(6))
        together = self.generator.synthesize(latents)
        alone = torch.cat([self.generator.synthesize(latents[index : index + 1]) for index in range(4)])
        torch.testing.assert_close(together, alone, **CLOSE)

    def the_gradient_reaches_every_latent_row(self) -> None:
        latents = self.generator.sample_latents(2, rng(7)).requires_grad_()
        self.generator.synthesize(latents).square().mean().backward()
        assert latents.grad is not None and latents.grad.isfinite().all()
        assert (latents.grad.abs().sum(-1) > 0).all()

    def arguments_stay_as_they_are(self) -> None:
        latents = self.generator.sample_latents(2, rng(8))
        before = latents.clone()
        self.generator.synthesize(latents)
        self.generator.project(latents)
        assert latents.equal(before)

    def projection_is_idempotent_and_keeps_valid_latents(self) -> None:
        g = self.generator
        valid = g.sample_latents(3, rng(9))
        torch.testing.assert_close(g.project(valid), valid)
        once = g.project(valid + 3 * torch.randn(valid.shape, generator=rng(10)))
        torch.testing.assert_close(g.project(once), once)
        assert g.synthesize(once).isfinite().all()

    def weights_are_frozen_where_there_are_any(self) -> None:
        if isinstance(self.generator, torch.nn.Module):
            assert not self.generator.training
            assert not any(weight.requires_grad for weight in self.generator.parameters())

    def classes_are_kept(self) -> None:
        g = self.generator
        if isinstance(g, ClassConditional):
            classes = torch.tensor([0, len(g.class_names) - 1])
            chosen = g.sample_latents(2, rng(11), classes=classes)
            assert chosen.shape == (2, *g.latent_shape) and chosen.equal(g.sample_latents(2, rng(11), classes=classes))


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
        e = self.embedder
        assert isinstance(e, Embedder) and isinstance(e.dim, int)
        for embeddings, rows in ((e.embed_text(self.PROMPTS), len(self.PROMPTS)), (e.embed_images(self.images(2)), 2)):
            assert embeddings.shape == (rows, e.dim) and embeddings.dtype == torch.float32
            torch.testing.assert_close(embeddings.norm(dim=-1), torch.ones(rows))

    def images_of_any_side(self) -> None:
        whole, half = (
            self.embedder.embed_images(self.images(2, side)) for side in (self.resolution, 2 * self.resolution)
        )
        assert whole.shape == half.shape
        # The same picture at another size is nearer to itself than to the other picture.
        assert ((whole * half).sum(-1) > (whole * half.flip(0)).sum(-1)).all()

    def an_embedding_does_not_depend_on_its_batch(self) -> None:
        images = self.images(4)
        together = self.embedder.embed_images(images)
        alone = torch.cat([self.embedder.embed_images(images[index : index + 1]) for index in range(4)])
        torch.testing.assert_close(together, alone, **CLOSE)
        texts = torch.cat([self.embedder.embed_text([prompt]) for prompt in self.PROMPTS])
        torch.testing.assert_close(self.embedder.embed_text(self.PROMPTS), texts, **CLOSE)

    def the_gradient_reaches_the_images(self) -> None:
        images = self.images(2).requires_grad_()
        self.embedder.embed_images(images)[:, 0].sum().backward()
        assert images.grad is not None and images.grad.isfinite().all()
        assert (images.grad.flatten(1).abs().sum(1) > 0).all()

    def the_same_input_gives_equal_bits(self) -> None:
        assert self.embedder.embed_images(self.images(2)).equal(self.embedder.embed_images(self.images(2)))
        assert self.embedder.embed_text(self.PROMPTS).equal(self.embedder.embed_text(self.PROMPTS))

    def different_inputs_differ(self) -> None:
        texts, images = self.embedder.embed_text(self.PROMPTS), self.embedder.embed_images(self.images(3))
        for rows in (texts, images):
            assert (rows @ rows.T - torch.eye(3)).max() < 1 - 1e-5

    def arguments_stay_as_they_are(self) -> None:
        images = self.images(2)
        before = images.clone()
        self.embedder.embed_images(images)
        assert images.equal(before)

    def weights_are_frozen_where_there_are_any(self) -> None:
        if isinstance(self.embedder, torch.nn.Module):
            assert not self.embedder.training
            assert not any(weight.requires_grad for weight in self.embedder.parameters())


def laws(contract: type) -> list[str]:
    """Names of a contract's laws."""
    helpers = {"images"}
    return [name for name in vars(contract) if not name.startswith("_") and name not in helpers and name.islower()]
