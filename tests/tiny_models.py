"""A generator and an embedder of a few hundred weights, for tests that need any: built from a seed, no files."""

import time
from collections.abc import Sequence

import torch
from torch import Tensor, nn


class TinyGenerator(nn.Module):
    """latents [B, 3, 4] -> images [B, 3, 8, 8], through one linear map."""

    latent_shape = (3, 4)
    resolution = 8

    def __init__(self, seed: int = 0, delay: float = 0.0, broken_after: float = float("inf")) -> None:
        """Waits `delay` seconds in each call; latents greater than `broken_after` make NaN."""
        super().__init__()
        weight = torch.randn(3 * 8 * 8, 12, generator=torch.Generator().manual_seed(seed))
        self.register_buffer("weight", weight)
        self.delay, self.broken_after = delay, broken_after

    def sample_latents(self, num: int, rng: torch.Generator) -> Tensor:
        return torch.randn(num, 1, 4, generator=rng).repeat(1, 3, 1)

    def synthesize(self, latents: Tensor) -> Tensor:
        time.sleep(self.delay)
        images = torch.tanh(latents.flatten(1) @ self.weight.T).view(-1, 3, 8, 8)
        broken = (latents > self.broken_after).flatten(1).any(dim=1)
        return torch.where(broken[:, None, None, None], torch.nan, images)

    def project(self, latents: Tensor) -> Tensor:
        return latents


class TinyEmbedder(nn.Module):
    """images [B, 3, R, R] -> [B, 5]: pooled colours through one linear map; a text is its letters' sum."""

    dim = 5

    def __init__(self, seed: int = 1) -> None:
        super().__init__()
        self.register_buffer("weight", torch.randn(5, 12, generator=torch.Generator().manual_seed(seed)))

    def embed_text(self, prompts: Sequence[str]) -> Tensor:
        sums = torch.tensor([[sum(map(ord, prompt)) % (k + 7) for k in range(5)] for prompt in prompts])
        return nn.functional.normalize(sums + 1.0, dim=-1)

    def embed_images(self, images: Tensor) -> Tensor:
        pooled = nn.functional.adaptive_avg_pool2d(images, 2).flatten(1)
        return nn.functional.normalize(pooled @ self.weight.T, dim=-1)
