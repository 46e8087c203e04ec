"""The order that pairs in memory are trained on in: a pure function of (seed, step)."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor

from clip2latent.pair_shards import Pairs


class PairBatches:
    """An endless order of batches cut into lengths that Lightning sees as epochs.

    Batch i is a pure function of (seed, i): rank r of W takes the r-th part of the i-th global batch. Each pass over
    the data has its own permutation; the rows that do not fill a global batch wait for another pass. So every rank has
    the same number of batches, the union over ranks depends on batch_size * W only, and training can go on anywhere.
    """

    def __init__(
        self,
        pairs: Pairs,
        batch_size: int,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        length: int | None = None,
        position: Callable[[], int] = lambda: 0,
    ) -> None:
        """Builds the order.

        Args:
            pairs: all pairs, on any device and of any float type; batches are float32 on the same device.
            batch_size: rows in a batch, on each rank.
            seed: of the permutations.
            rank: this process among `world_size`.
            world_size: number of processes.
            length: batches in one iteration; None is one pass over the data.
            position: called at the start of an iteration, the index of its first batch.
        """
        count = len(pairs.embeddings)
        self.pairs, self.batch_size, self.seed, self.rank = pairs, batch_size, seed, rank
        self.global_batch = batch_size * world_size
        self.per_pass = count // self.global_batch
        if not self.per_pass:
            raise ValueError(
                f"batch_size {batch_size} on {world_size} process(es) needs {self.global_batch} pairs, the dataset has"
                f" {count} to train on: lower data.batch_size or make more pairs"
            )
        self.length = length or self.per_pass
        self.position = position
        self._table = _table(pairs)
        self._shuffled = (-1, torch.empty(0, dtype=torch.int64))

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[Pairs]:
        start = self.position()
        for index in range(start, start + self.length):
            yield self.batch(index)

    def batch(self, index: int) -> Pairs:
        """Returns this rank's part of the global batch `index`."""
        number, offset = divmod(index, self.per_pass)
        if self._shuffled[0] != number:
            # Drawn on the CPU, so that it is the same on every device, and kept where the pairs are.
            order = permutation(len(self.pairs.embeddings), self.seed, number)
            self._shuffled = (number, order.to(self.pairs.embeddings.device))
        first = offset * self.global_batch + self.rank * self.batch_size
        rows = self._shuffled[1][first : first + self.batch_size]
        if self._table is None:
            return Pairs(*(whole.index_select(0, rows).float() for whole in self.pairs))
        values, latents = self._table.index_select(0, rows).float(), self.pairs.latents
        return Pairs(values[:, : latents[0].numel()].unflatten(1, latents.shape[1:]), values[:, latents[0].numel() :])


class InOrder:
    """Batches of all pairs in their own order; every rank has the same ones."""

    def __init__(self, pairs: Pairs, batch_size: int) -> None:
        """Cuts pairs into batches of float32."""
        self.parts = [
            Pairs(*parts) for parts in zip(*(whole.float().split(batch_size) for whole in pairs), strict=True)
        ]

    def __len__(self) -> int:
        return len(self.parts)

    def __iter__(self) -> Iterator[Pairs]:
        return iter(self.parts)


def permutation(count: int, *entropy: int) -> Tensor:
    """Returns the numbers below `count` [count] in an order that depends on `entropy` alone."""
    state = np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0]
    rng = torch.Generator().manual_seed(int(state >> np.uint64(1)))
    return torch.randperm(count, generator=rng)


def _table(pairs: Pairs) -> Tensor | None:
    """The table that latents and embeddings are the columns of, [N, K * D + E], if they are: one gather is faster."""
    latents, embeddings = pairs
    width = latents[0].numel()
    if (
        latents.untyped_storage().data_ptr() != embeddings.untyped_storage().data_ptr()
        or embeddings.storage_offset() != latents.storage_offset() + width
        or embeddings.stride() != (width + embeddings.shape[1], 1)
        or latents.stride() != (embeddings.stride(0), latents.shape[2], 1)
        or latents.dtype != embeddings.dtype
    ):
        return None
    size = (len(latents), embeddings.stride(0))
    return latents.as_strided(size, (size[1], 1), latents.storage_offset())
