"""All shards decoded once, in parallel threads: hashing, copying and checking release Python's lock."""

from __future__ import annotations

import hashlib
import os
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from clip2latent.moments import Moments
from clip2latent.pair_shards import Rows, Table, all_finite, check_sha256, copy, decode
from clip2latent.pair_sources import Shard, fetch

STORAGE = {"float32": np.float32, "float16": np.float16}


class Report(NamedTuple):
    """What became of one shard.

    Attributes:
        count: rows read; 0 where it was skipped.
        sha256: hash of its content; "" where that was not asked for.
        reason: why it was skipped; "" where it was not.
    """

    count: int
    sha256: str = ""
    reason: str = ""


class Reading(NamedTuple):
    """Shards, read.

    Attributes:
        table: all rows in the shards' order, in the storage's type; None where they were only gone through.
        reports: one for each shard.
        moments: of latents and embeddings; None where they were not asked for.
    """

    table: Table | None
    reports: list[Report]
    moments: tuple[Moments, Moments] | None


class Reader:
    """Fetches and decodes shards, whose hashes are compared when they are first read.

    Each thread has a buffer of its own, which files are read into.
    """

    def __init__(self, skip_damaged: bool = False, hashed: bool = False) -> None:
        """Builds the reader.

        Args:
            skip_damaged: whether a shard that cannot be used is reported rather than raised.
            hashed: whether the reports have hashes.
        """
        self.skip_damaged, self.hashed = skip_damaged, hashed
        self._checked: set[str] = set()
        self._own = threading.local()

    def read(self, shard: Shard, into: Rows | None = None) -> tuple[Rows | None, Report]:
        """Reads a shard into arrays, new ones where none are given.

        Raises:
            ValueError: where it cannot be used, naming it, unless such shards are skipped.
        """
        try:
            content = fetch(shard, self._buffer)
            found = hashlib.sha256(content).hexdigest() if self.hashed else shard.sha256
            if shard.location not in self._checked and not (self.hashed and found == shard.sha256):
                check_sha256(content, shard.name, shard.sha256)
            self._checked.add(shard.location)
            rows = decode(content, shard.name, into)
        except (ValueError, OSError) as error:
            if not self.skip_damaged:
                raise
            return None, Report(0, "", str(error))
        return rows, Report(len(rows.embeddings), found)

    def _buffer(self, size: int) -> memoryview:
        memory = getattr(self._own, "memory", None)
        if memory is None or len(memory) < size:
            self._own.memory = memory = np.empty(size, np.uint8)
        return memoryview(memory)[:size]


def read_shards(
    shards: Sequence[Shard],
    shape: tuple[int, int, int] | None,
    storage: str = "float32",
    skip_damaged: bool = False,
    threads: int = 0,
    keep: bool = True,
    statistics: bool = False,
    hashed: bool = False,
) -> Reading:
    """Decodes shards, with a progress bar where it takes longer than a second.

    Args:
        shards: in the order wanted.
        shape: (K, D, E) where the shards' counts are known, and rows go to their places at once.
        storage: "float32" or "float16".
        skip_damaged: pass over shards that cannot be used, with a warning that counts them, instead of raising.
        threads: shards decoded at a time; 0 for one to each processor, at most 8.
        keep: whether rows are kept.
        statistics: whether moments are computed.
        hashed: whether each content's hash is computed.

    Raises:
        ValueError: for a shard that cannot be used, with its name; or where all of them are skipped.
    """
    dtype = STORAGE[storage]
    whole = places = None
    if keep and shape is not None:
        counts = [shard.count or 0 for shard in shards]
        whole = Table.empty(sum(counts), shape, dtype)
        ends = np.cumsum(counts).tolist()
        places = [Rows(*(array[a:b] for array in whole.rows)) for a, b in zip([0, *ends[:-1]], ends, strict=True)]
    reader = Reader(skip_damaged, hashed)

    def work(index: int) -> tuple[Rows | None, Report, tuple[Moments, Moments] | None]:
        rows, report = reader.read(shards[index], places[index] if places else None)
        moments = tuple(Moments.of(array) for array in rows) if statistics and rows else None
        if rows and places is None:
            rows = _stored(rows, dtype, shards[index].name) if keep else Rows(*(array[:0] for array in rows))
        return rows, report, moments

    parts: list[tuple[str, Rows]] = []
    reports: list[Report] = []
    total = (Moments(), Moments()) if statistics else None
    bar = tqdm(total=len(shards), desc="reading shards", unit="shard", leave=False, delay=1)
    with bar:
        for rows, report, moments in _in_order(work, len(shards), threads or processors()):
            if rows:
                parts.append((shards[len(reports)].name, rows))
                _check_alike(parts[0], parts[-1])
            reports.append(report)
            for into, part in zip(total or (), moments or (), strict=False):
                into.add(part)
            bar.update()
    warn_of_skipped(shards, reports)
    if not keep:
        return Reading(None, reports, total)
    if whole is None or any(report.reason for report in reports):
        whole = _joined(parts, dtype)
    return Reading(whole, reports, total)


def processors() -> int:
    """Returns how many threads pay: the processors this process may use, at most 8."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(8, usable)


def warn_of_skipped(shards: Sequence[Shard], reports: Sequence[Report]) -> None:
    """Warns of shards that were skipped, with their number and the first one's reason.

    Raises:
        ValueError: where all were.
    """
    skipped = [report.reason for report in reports if report.reason]
    if len(skipped) == len(shards):
        raise ValueError(f"none of the {len(shards)} shard(s) can be used; the first: {skipped[0]}")
    if skipped:
        warnings.warn(f"skipped {len(skipped)} of {len(shards)} shards; the first: {skipped[0]}", stacklevel=3)


def _stored(rows: Rows, dtype: type, name: str) -> Rows:
    if dtype == np.float32:
        return rows
    stored = Rows(*(np.empty(array.shape, dtype) for array in rows))
    for array, into in zip(rows, stored, strict=True):
        copy(array, into)
    if not all(map(all_finite, stored)):
        raise ValueError(f"shard {name} holds numbers beyond {np.dtype(dtype)}: give --data.storage float32")
    return stored


def _in_order(work: Callable[[int], tuple], count: int, threads: int) -> Iterator[tuple]:
    """Yields work(0), work(1), ..., done by threads that are at most two rounds ahead; stops them at an error."""
    with ThreadPoolExecutor(threads) as pool:
        ahead: list[Future] = []
        try:
            for index in range(count):
                ahead.append(pool.submit(work, index))
                if len(ahead) >= 2 * threads:
                    yield ahead.pop(0).result()
            while ahead:
                yield ahead.pop(0).result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _check_alike(first: tuple[str, Rows], other: tuple[str, Rows]) -> None:
    expected, found = ([array.shape[1:] for array in rows] for _, rows in (first, other))
    if found != expected:
        raise ValueError(
            f"shard {other[0]} holds rows of shapes {found}, {first[0]}'s are {expected}: do they belong together?"
        )


def _joined(parts: list[tuple[str, Rows]], dtype: type) -> Table:
    """One table; each part is let go once it is copied."""
    count, (latents, embeddings) = sum(len(rows.embeddings) for _, rows in parts), parts[0][1]
    table = Table.empty(count, (*latents.shape[1:], embeddings.shape[1]), dtype)
    stop = count
    while parts:
        _, rows = parts.pop()
        start = stop - len(rows.embeddings)
        for into, array in zip(table.rows, rows, strict=True):
            into[start:stop] = array
        stop = start
    return table
