"""Contracts between the parts, and the shape legend that every docstring uses.

| letter | meaning                                   |
|--------|-------------------------------------------|
| P      | prompts                                   |
| N      | images per prompt                         |
| B      | batch, P * N when images belong to prompts |
| L      | latent rows a generator takes             |
| K      | prior tokens, K <= L                      |
| D      | latent width                              |
| E      | embedding width                           |
| T      | training timesteps                        |
| S      | sampling steps                            |
| M      | basis size                                |
| R      | image side in pixels                      |

Images are float [B, 3, R, R] in [-1, 1] everywhere in memory; uint8 exists only in files and feature extractors.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

Denoiser = Callable[[Tensor, Tensor], Tensor]
"""x [B, K, D], t [B] -> x0 [B, K, D]: the clean tokens expected behind the noised ones."""

Objective = Callable[[Tensor], Tensor]
"""images [B, 3, R, R] in [-1, 1] -> loss [B]; lower is better; differentiable."""


@runtime_checkable
class Generator(Protocol):
    """A frozen image generator."""

    latent_shape: tuple[int, int]
    """(L, D)"""
    resolution: int
    """R"""

    def sample_latents(self, num: int, rng: torch.Generator) -> Tensor:
        """Draws latents [num, L, D] from the generator's own distribution, a function of `rng` alone."""
        ...

    def synthesize(self, latents: Tensor) -> Tensor:
        """Maps latents [B, L, D] to images [B, 3, R, R] in [-1, 1]; differentiable, independent of the batch."""
        ...

    def project(self, latents: Tensor) -> Tensor:
        """Returns the nearest valid latents [B, L, D]; idempotent, the identity where every latent is valid."""
        ...


@runtime_checkable
class ClassConditional(Generator, Protocol):
    """A generator whose latents can be drawn for chosen classes."""

    class_names: Sequence[str]

    def sample_latents(self, num: int, rng: torch.Generator, classes: Tensor | None = None) -> Tensor:
        """Draws latents [num, L, D], of classes [num] (int64 indices into `class_names`) or of random ones."""
        ...


@runtime_checkable
class Embedder(Protocol):
    """A frozen encoder of texts and images into one space."""

    dim: int
    """E"""

    def embed_text(self, prompts: Sequence[str]) -> Tensor:
        """Embeds P prompts into [P, E], unit norm."""
        ...

    def embed_images(self, images: Tensor) -> Tensor:
        """Embeds images [B, 3, R, R] in [-1, 1] into [B, E], unit norm; any R; differentiable."""
        ...
