"""A generator and an embedder without a prior, with what edits and refinements ask of a `TextToImage`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from clip2latent.interfaces import Embedder, Generator
from clip2latent.latents import LatentSpace, reduce

SAMPLES = 4096
"""Latents that their mean and deviation are taken of."""


@dataclass(frozen=True)
class Priorless:
    """The models of results that no prior drew, such as a search's.

    Attributes:
        generator: on `device`.
        embedder: on `device`.
        space: of the generator's own distribution.
        device: where the models are.
        config: {"generator", "embedder"}, what they are, plain types.
    """

    generator: Generator
    embedder: Embedder
    space: LatentSpace
    device: torch.device | str
    config: dict[str, Any]

    @torch.no_grad()
    def draw(self, latents: Tensor) -> Tensor:
        """Maps latents [B, L, D] to images [B, 3, R, R] in [-1, 1], clamped: what is scored is what a file holds."""
        return self.generator.synthesize(latents.to(self.device)).clamp(-1, 1)

    def identities(self) -> dict[str, Any]:
        """Returns which models draw."""
        return dict(self.config)


@torch.no_grad()
def sampled_space(generator: Generator, seed: int = 0) -> LatentSpace:
    """Returns the space of a generator's own latents, standardised by a sample of them."""
    latents = generator.sample_latents(SAMPLES, torch.Generator().manual_seed(seed))
    groups = getattr(generator, "groups", (1,) * latents.shape[1])
    tokens = reduce(latents, groups)
    return LatentSpace(groups, tokens.mean(0), tokens.std(0)).to(latents.device)
