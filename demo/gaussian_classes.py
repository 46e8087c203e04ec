"""A generator of classes whose class vectors are drawn from a Gaussian, for a study of where a search should begin.

Liu et al. 2021 (arXiv:2112.01573), section 3.2 and appendix C, warn of a standard Gaussian; this one has the mean and
the deviation of the classes' own vectors, so that it differs from them in nothing that two moments tell.
"""

from __future__ import annotations

import torch
from torch import Tensor

from clip2latent.generators.class_latents import ClassLatents


class GaussianClasses:
    """Draws images as `generator` does, and latents whose class vectors are of no class."""

    def __init__(self, generator: ClassLatents) -> None:
        """Takes a generator, such as BigGAN.

        Raises:
            ValueError: where its latents are not z and a class vector.
        """
        if not isinstance(generator, ClassLatents):
            raise ValueError(
                f"generator: expected latents of z and a class vector, as BigGAN's, got {type(generator).__name__}"
            )
        self.generator, self.latent_shape, self.resolution = generator, generator.latent_shape, generator.resolution
        with torch.no_grad():
            vectors = generator.class_vectors(torch.arange(generator.num_classes))
        self.mean, self.std = vectors.mean(0), vectors.std(0)  # [V]

    def sample_latents(self, num: int, rng: torch.Generator) -> Tensor:
        """Draws latents [num, 1, D]: z as the generator's, class vectors from a Gaussian of all classes' moments."""
        latents = self.generator.sample_latents(num, rng).clone()
        noise = torch.randn(num, len(self.mean), generator=rng, device=rng.device).to(self.mean)
        latents[:, 0, self.generator.z_width :] = self.mean + self.std * noise
        return latents

    def synthesize(self, latents: Tensor) -> Tensor:
        """latents [B, 1, D] -> images [B, 3, R, R] in [-1, 1]."""
        return self.generator.synthesize(latents)

    def project(self, latents: Tensor) -> Tensor:
        """Returns the generator's nearest valid latents [B, 1, D]."""
        return self.generator.project(latents)
