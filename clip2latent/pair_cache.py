"""Shards decoded once and kept: arrays on disk that are used again while the shards are the same ones."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import warnings
import zlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from clip2latent.downloads import cached_file, file_sha256, is_remote
from clip2latent.pair_reading import processors, read_shards
from clip2latent.pair_shards import Table
from clip2latent.pair_sources import PIPE, Shard

FOLDER = ".decoded-pairs"
_FORMAT = 1
_RECORD, _VALUES = "record.json", "values"
_CHUNK = 1 << 26


class Loaded(NamedTuple):
    """The pairs of some shards.

    Attributes:
        table: all of them, in order; None where they were only gone through.
        shards: those that could be used, with their counts and hashes.
        skipped: why others could not be.
        statistics: latent_mean [K, D], latent_std [K, D], embedding_mean [E] as lists; {} where not asked for.
    """

    table: Table | None
    shards: list[Shard]
    skipped: list[str]
    statistics: dict[str, list]


class Wanted(NamedTuple):
    """How shards are to be read: as in `pair_reading.read_shards`."""

    shape: tuple[int, int, int] | None
    storage: str = "float32"
    skip_damaged: bool = False
    keep: bool = True
    statistics: bool = False
    hashed: bool = False
    threads: int = 0


def load(shards: Sequence[Shard], wanted: Wanted, folder: Path | None = None) -> Loaded:
    """Reads shards, or what an earlier reading left in the folder.

    What is kept holds while every shard has the size and hash it had; a hash is taken for unchanged while a file's time
    of change is. Arrays are checked against a checksum. Processes that share the folder wait for each other, so that
    one of them decodes.

    Args:
        shards: in order.
        wanted: how to read them.
        folder: for decoded arrays; None keeps none. Where it cannot be written, a warning is given.

    Raises:
        ValueError: for a shard that cannot be used, unless such are skipped.
    """
    if folder is None or any(shard.location.startswith(PIPE) for shard in shards):
        return _read(shards, wanted)
    from filelock import FileLock

    names = json.dumps([_FORMAT, wanted._replace(threads=0, hashed=True), [shard.name for shard in shards]])
    entry = folder / hashlib.sha256(names.encode()).hexdigest()[:20]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(f"{entry}.lock")
        lock.acquire()
    except OSError as error:
        _warn_unkept(folder, error)
        return _read(shards, wanted)
    try:
        found = _kept(entry, shards, wanted)
        if found is None:
            stamps = _stamps(shards)
            found = _read(shards, wanted._replace(hashed=True))
            try:
                if not found.skipped:  # damage is told of each time
                    _keep(entry, found, stamps)
            except OSError as error:
                _warn_unkept(folder, error)
    finally:
        lock.release()
    return found


def _read(shards: Sequence[Shard], wanted: Wanted) -> Loaded:
    reading = read_shards(shards, **wanted._asdict())
    usable = [
        shard._replace(count=report.count, sha256=report.sha256)
        for shard, report in zip(shards, reading.reports, strict=True)
        if not report.reason
    ]
    statistics: dict[str, list] = {}
    if reading.moments:
        latents, embeddings = reading.moments
        statistics = {
            "latent_mean": latents.mean.tolist(),
            "latent_std": latents.std.tolist(),
            "embedding_mean": embeddings.mean.tolist(),
        }
    return Loaded(reading.table, usable, [report.reason for report in reading.reports if report.reason], statistics)


def _stamps(shards: Sequence[Shard]) -> list[dict[str, Any]]:
    """What tells without reading whether a file is still the same."""
    stamps = []
    for shard in shards:
        path = cached_file(shard.location) if is_remote(shard.location) else Path(shard.location)
        found = path.stat() if path.is_file() else None
        stamps.append({"path": str(path), "size": found and found.st_size, "changed": found and found.st_mtime_ns})
    return stamps


def _keep(entry: Path, loaded: Loaded, stamps: list[dict[str, Any]]) -> None:
    """Writes an entry beside its place and renames it."""
    partial = entry.with_name(f"{entry.name}.{os.getpid()}.partial")
    stored = None
    try:
        partial.mkdir()
        if loaded.table:
            values, tokens, width = loaded.table
            content = memoryview(values).cast("B")
            with open(partial / _VALUES, "wb") as file:
                for start in range(0, len(content), _CHUNK):
                    file.write(content[start : start + _CHUNK])
            stored = {"shape": values.shape, "dtype": values.dtype.name, "crc32": zlib.crc32(content)}
            stored |= {"tokens": tokens, "width": width}
        record = {
            "stamps": [{**stamp, "sha256": shard.sha256} for stamp, shard in zip(stamps, loaded.shards, strict=True)],
            "table": stored,
            "shards": loaded.shards,
            "statistics": loaded.statistics,
        }
        (partial / _RECORD).write_text(json.dumps(record), encoding="utf-8")
        shutil.rmtree(entry, ignore_errors=True)
        partial.rename(entry)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _kept(entry: Path, shards: Sequence[Shard], wanted: Wanted) -> Loaded | None:
    """Returns an entry's content where it is whole and of these very shards."""
    try:
        record = json.loads((entry / _RECORD).read_text(encoding="utf-8"))
        kept = [Shard(*shard) for shard in record["shards"]]
        if not _same(record["stamps"], shards):
            return None
        table = _table(entry / _VALUES, **record["table"]) if wanted.keep else None
        return Loaded(table, kept, [], record["statistics"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _same(before: list[dict[str, Any]], shards: Sequence[Shard]) -> bool:
    """Tells whether the shards are those of the record: by size and time, or else by size and hash."""
    now = _stamps(shards)
    unsure = []
    for old, new, shard in zip(before, now, shards, strict=True):
        if old["path"] != new["path"] or old["size"] != new["size"] or new["size"] is None:
            return False
        if shard.sha256 and shard.sha256 != old["sha256"]:
            return False
        if old["changed"] != new["changed"]:
            unsure.append((Path(new["path"]), old["sha256"]))
    with ThreadPoolExecutor(processors()) as pool:
        return all(pool.map(lambda pair: file_sha256(pair[0]) == pair[1], unsure))


def _table(path: Path, shape: list[int], dtype: str, crc32: int, tokens: int, width: int) -> Table:
    table = Table(np.empty(shape, dtype), tokens, width)
    content, filled, crc = memoryview(table.values).cast("B"), 0, 0
    with open(path, "rb", buffering=0) as file:
        while filled < len(content):
            read = file.readinto(content[filled : filled + _CHUNK])
            if not read:
                break
            crc = zlib.crc32(content[filled : filled + read], crc)
            filled += read
    if filled < len(content) or crc != crc32:
        raise ValueError(f"{path} is damaged")
    return table


def _warn_unkept(folder: Path, error: OSError) -> None:
    warnings.warn(f"decoded pairs are not kept in {folder}: {error.strerror or error}", stacklevel=3)
