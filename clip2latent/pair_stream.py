"""Pairs that do not fit into memory: shards in a random order, rows shuffled in pools, split between processes."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import count as count_from
from typing import NamedTuple

import numpy as np
import torch

from clip2latent.pair_order import permutation
from clip2latent.pair_reading import Reader, processors
from clip2latent.pair_shards import Pairs, Rows
from clip2latent.pair_sources import Shard

LANES = 8


class Segment(NamedTuple):
    """Rows of one shard: from `start` to before `stop`."""

    shard: int
    start: int
    stop: int

    def __len__(self) -> int:
        return self.stop - self.start


class PairStream:
    """An endless order of batches, as `PairBatches`, that reads shards as it goes.

    In each pass the shards are shuffled and their rows, one after the other, cut into V equal lanes; a global batch
    takes equally many rows from each lane. A process reads the lanes of its own only, V / W each, so that processes
    share out the reading; the lanes do not depend on W, so the union over processes does not either, for every W that
    divides V (8, or less where it must divide the global batch). Every lane is as long as every other: all processes
    have the same number of batches, whatever the number of shards. Rows are shuffled in pools, runs of whole shards.
    """

    def __init__(
        self,
        shards: Sequence[Shard],
        count: int,
        batch_size: int,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        length: int | None = None,
        position: Callable[[], int] = lambda: 0,
        pool: int = 1 << 18,
        skip_damaged: bool = False,
    ) -> None:
        """Builds the order; nothing is read yet.

        Args:
            shards: with their counts.
            count: rows to stream, the first of the shards'.
            batch_size: rows in a batch, on each rank.
            seed: of the orders.
            rank: this process among `world_size`.
            world_size: number of processes.
            length: batches in one iteration; None is one pass over the data.
            position: called at the start of an iteration, the index of its first batch.
            pool: rows shuffled together, of all lanes and processes in sum; twice as many are held.
            skip_damaged: whether other rows take the places of those in a shard that cannot be used.

        Raises:
            ValueError: where the pairs do not fill a batch.
        """
        global_batch = batch_size * world_size
        lanes = math.gcd(global_batch, LANES)
        self.lanes = lanes if lanes % world_size == 0 else world_size
        self.take = global_batch // self.lanes
        self.lane_rows = count // self.lanes
        self.per_pass = self.lane_rows // self.take
        if not self.per_pass:
            raise ValueError(
                f"batch_size {batch_size} on {world_size} process(es) needs {global_batch} pairs, the dataset has"
                f" {count} to train on: lower data.batch_size or make more pairs"
            )
        self.shards, self.seed = list(shards), seed
        ends = np.minimum(np.cumsum([shard.count for shard in shards]), count)
        self._usable = np.diff(ends, prepend=0).tolist()  # rows of each shard that are among the first `count`
        own = self.lanes // world_size
        self.own = range(rank * own, (rank + 1) * own)
        self.length, self.position = length or self.per_pass, position
        self.pool = max(self.take, pool // self.lanes)
        self.skipped: dict[str, str] = {}
        self._reader = Reader(skip_damaged)

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[Pairs]:
        start = self.position()
        with ThreadPoolExecutor(processors()) as threads:
            try:
                lanes = [self._lane(lane, start, threads) for lane in self.own]
                for _ in range(self.length):
                    parts = [next(lane) for lane in lanes]
                    yield Pairs(*(torch.from_numpy(np.concatenate(field)) for field in zip(*parts, strict=True)))
            finally:
                threads.shutdown(wait=True, cancel_futures=True)

    def pools(self, number: int, lane: int) -> list[list[Segment]]:
        """Returns which rows a lane shuffles together, pool after pool, in a pass."""
        first, last = lane * self.lane_rows, (lane + 1) * self.lane_rows
        pools: list[list[Segment]] = [[]]
        begin = 0
        for place in permutation(len(self.shards), self.seed, number).tolist():
            rows = self._usable[place]
            start, stop = max(first - begin, 0), min(last - begin, rows)
            if start < stop:
                if sum(map(len, pools[-1])) >= self.pool:
                    pools.append([])
                pools[-1].append(Segment(place, start, stop))
            begin += rows
        return pools

    def _lane(self, lane: int, index: int, threads: ThreadPoolExecutor) -> Iterator[Rows]:
        """Yields the lane's part of global batch `index` and those after it; the next pool is read meanwhile."""
        steps = self._steps(lane, index)
        ahead = threads.submit(self._load, *next(steps))
        parts: list[Rows] = []
        while True:
            rows = ahead.result()
            ahead = threads.submit(self._load, *next(steps))
            offset = 0
            while offset < len(rows.embeddings):
                missing = self.take - sum(len(part.embeddings) for part in parts)
                parts.append(Rows(*(array[offset : offset + missing] for array in rows)))
                offset += missing
                if sum(len(part.embeddings) for part in parts) == self.take:
                    yield Rows(*(np.concatenate(field) for field in zip(*parts, strict=True)))
                    parts = []

    def _steps(self, lane: int, index: int) -> Iterator[tuple[list[Segment], tuple[int, ...], int, int]]:
        """What to load, from batch `index` on: segments, the entropy of their order, and which of their rows."""
        number, offset = divmod(index, self.per_pass)
        begin = offset * self.take
        for passes in count_from(number):
            start, end = 0, self.per_pass * self.take
            for place, segments in enumerate(self.pools(passes, lane)):
                stop = start + sum(map(len, segments))
                if stop > begin and start < end:
                    yield segments, (self.seed, passes, lane, place), max(begin - start, 0), min(stop, end) - start
                start = stop
            begin = 0

    def _load(self, segments: list[Segment], entropy: tuple[int, ...], first: int, last: int) -> Rows:
        """Reads a pool and returns its rows from `first` to before `last`, in their random order."""
        parts = [rows for rows in map(self._rows, segments) if rows is not None]
        others = (segments[0].shard + step for step in range(1, len(self.shards)))
        while not parts:
            other = next(others, None)
            if other is None:
                raise ValueError(f"none of the {len(self.shards)} shards can be used")
            other %= len(self.shards)
            rows = self._rows(Segment(other, 0, self._usable[other])) if self._usable[other] else None
            parts = [] if rows is None else [rows]
        joined = [np.concatenate(field) for field in zip(*parts, strict=True)]
        order = permutation(sum(map(len, segments)), *entropy)[first:last].numpy() % len(joined[1])
        return Rows(*(field[order] for field in joined))

    def _rows(self, segment: Segment) -> Rows | None:
        """Reads rows of a shard; None where it is skipped."""
        shard = self.shards[segment.shard]
        rows, report = self._reader.read(shard)
        if rows is None:
            if shard.name not in self.skipped:
                self.skipped[shard.name] = report.reason
                warnings.warn(
                    f"skipped {len(self.skipped)} of {len(self.shards)} shards so far: {report.reason}", stacklevel=2
                )
            return None
        if len(rows.embeddings) != shard.count:
            raise ValueError(f"shard {shard.name} holds {len(rows.embeddings)} pairs, {shard.count} were expected")
        return Rows(*(array[segment.start : segment.stop] for array in rows))
