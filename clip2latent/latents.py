"""LatentSpace: the generator's L x D latents as K standardised tokens, and back."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class LatentSpace(nn.Module):
    """Latents whose rows repeat in groups, standardised per token with the data's statistics.

    The K groups partition the L rows in order: (18,) is one w for all layers, (4, 4, 10) is w3, (1,) * 18 is w+,
    and (1,) a generator with a single latent row.

    Attributes:
        groups: rows in each group, K numbers that sum to L.
        mean: the data's mean [K, D].
        std: the data's standard deviation [K, D]; a constant dimension has 0 and encodes to 0.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, groups: Sequence[int], mean: Tensor, std: Tensor) -> None:
        """Builds the space from groups (K numbers), mean [K, D] and std [K, D].

        Raises:
            ValueError: where shapes do not agree, or where std is negative or anything is not finite.
        """
        super().__init__()
        groups = tuple(int(size) for size in groups)
        if not groups or min(groups) < 1:
            raise ValueError(f"groups must be one or more positive row counts, got {groups}")
        if mean.ndim != 2 or mean.shape != std.shape or len(mean) != len(groups):
            raise ValueError(
                f"mean and std must be [K, D] with K = {len(groups)} groups,"
                f" got {tuple(mean.shape)} and {tuple(std.shape)}"
            )
        if not (mean.isfinite().all() and std.isfinite().all() and (std >= 0).all()):
            raise ValueError("mean and std must be finite and std not negative")
        self.groups = groups
        self.register_buffer("mean", mean.detach().clone().float())
        self.register_buffer("std", std.detach().clone().float())

    @property
    def num_rows(self) -> int:
        """L"""
        return sum(self.groups)

    @property
    def num_tokens(self) -> int:
        """K"""
        return len(self.groups)

    @property
    def width(self) -> int:
        """D"""
        return self.mean.shape[1]

    def expand(self, tokens: Tensor) -> Tensor:
        """Repeats each token over the rows of its group: [B, K, D] -> [B, L, D]."""
        return expand(tokens, self.groups)

    def reduce(self, latents: Tensor) -> Tensor:
        """Keeps the first row of each group: [B, L, D] -> [B, K, D]."""
        return reduce(latents, self.groups)

    def standardise(self, tokens: Tensor) -> Tensor:
        """Maps the data's tokens [B, K, D] to zero mean and unit deviation."""
        return (tokens - self.mean) / torch.where(self.std > 0, self.std, torch.ones_like(self.std))

    def encode(self, latents: Tensor) -> Tensor:
        """Maps latents [B, L, D] to standardised tokens [B, K, D]."""
        return self.standardise(self.reduce(latents))

    def decode(self, tokens: Tensor, truncation: float = 1.0) -> Tensor:
        """Maps standardised tokens [B, K, D] to latents [B, L, D], drawn towards the mean for truncation < 1."""
        if tokens.shape[1:] != self.mean.shape:
            expected = ", ".join(str(size) for size in self.mean.shape)
            raise ValueError(f"tokens must be [B, {expected}], got {tuple(tokens.shape)}")
        return self.expand(self.mean + truncation * self.std * tokens)


def expand(tokens: Tensor, groups: Sequence[int]) -> Tensor:
    """Repeats each token over the rows of its group: [B, K, D] -> [B, L, D]."""
    if tokens.ndim != 3 or tokens.shape[1] != len(groups):
        raise ValueError(f"tokens must be [B, {len(groups)}, D] for groups {tuple(groups)}, got {tuple(tokens.shape)}")
    return tokens.repeat_interleave(torch.tensor(groups, device=tokens.device), dim=1, output_size=sum(groups))


def reduce(latents: Tensor, groups: Sequence[int]) -> Tensor:
    """Keeps the first row of each group: [B, L, D] -> [B, K, D].

    The first rows of groups (4, 4, 10) are 0, 4 and 8; the original clip2latent took the sizes for the indices.
    """
    if latents.ndim != 3 or latents.shape[1] != sum(groups):
        raise ValueError(
            f"latents must be [B, {sum(groups)}, D] for groups {tuple(groups)}, got {tuple(latents.shape)}"
        )
    first_rows = [sum(groups[:index]) for index in range(len(groups))]
    return latents[:, first_rows]
