"""The data set's folder: the settings it was begun with, which shards are done, and dataset.json at the end.

`datagen.json` is written first and holds the settings; a run with other settings is refused. `dataset.json` is written
last: while it is missing, the data set is not complete.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

import clip2latent
from clip2latent.moments import Moments
from datagen.shards import (
    PARTIAL,
    Pairs,
    PairShape,
    is_complete,
    read_shard,
    remove_partials,
    shard_name,
    write_atomically,
)

MANIFEST, DATASET = "datagen.json", "dataset.json"
PACKAGES = ("numpy", "torch", "open-clip-torch")
DEFAULT_SPACE = "w"


@dataclass(frozen=True)
class Settings:
    """All that decides the bytes of a data set.

    Attributes:
        generator: The generator's specification as plain types, hash of the weights included.
        embedder: The embedder's.
        latent_shape: (L, D) of the generator.
        groups: Latent rows that share a token; K numbers that sum to L.
        embedding_dim: E.
        seed: Of the latents.
        count: Pairs in all.
        rows_per_shard: Pairs in each shard but the last.
        batch_size: Images made at once (how floating point rounds depends on it).
        texts_sha256: Hash of the texts whose mean embedding is recorded; "" where there are none.
        space: Name of the generator's latent space; recorded where it is not `DEFAULT_SPACE`.
    """

    generator: dict[str, Any]
    embedder: dict[str, Any]
    latent_shape: tuple[int, int]
    groups: tuple[int, ...]
    embedding_dim: int
    seed: int
    count: int
    rows_per_shard: int
    batch_size: int
    texts_sha256: str = ""
    space: str = DEFAULT_SPACE

    def __post_init__(self) -> None:
        for name in ("count", "rows_per_shard", "batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.seed < 0:
            raise ValueError(f"seed must be 0 or greater, got {self.seed}")
        if not self.groups or min(self.groups) < 1 or sum(self.groups) != self.latent_shape[0]:
            raise ValueError(
                f"groups must be positive numbers that sum to the generator's {self.latent_shape[0]} latent rows,"
                f" got {list(self.groups)} (leave it out for one token that serves all rows)"
            )

    @property
    def row_counts(self) -> list[int]:
        """Pairs in each shard."""
        starts = range(0, self.count, self.rows_per_shard)
        return [min(self.rows_per_shard, self.count - start) for start in starts]

    @property
    def shape(self) -> PairShape:
        """The shape of one pair."""
        return PairShape(len(self.groups), self.latent_shape[1], self.embedding_dim)


def check_folder(folder: Path) -> bool:
    """Tells whether a data set was begun in the folder.

    Raises:
        ValueError: where it is a file, or holds other files.
    """
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"--out {folder} is a file: give the name of a folder")
    names = {path.name for path in folder.iterdir()} if folder.exists() else set()
    foreign = sorted(name for name in names if not name.endswith(PARTIAL))
    if foreign and MANIFEST not in names:
        raise ValueError(
            f"--out {folder} holds files that are not an unfinished data set ({', '.join(foreign[:3])}"
            f"{', ...' if len(foreign) > 3 else ''}): give a new or empty folder"
        )
    return MANIFEST in names


def open_folder(folder: Path, settings: Settings, rank: int = 0, world_size: int = 1) -> dict[str, str]:
    """Begins a data set in a new or empty folder, or goes on with one that was begun with the same settings.

    Returns:
        The versions it was begun with.

    Raises:
        ValueError: where the folder holds other files, or a data set of other settings.
    """
    if check_folder(folder):
        record = _read_manifest(folder / MANIFEST)
        _compare(folder, record["settings"], _plain(settings))
    else:
        folder.mkdir(parents=True, exist_ok=True)
        record = {"format": 1, "settings": _plain(settings), "versions": versions()}
        write_atomically(folder / MANIFEST, [_to_json(record)], f"rank{rank}")
    remove_partials(folder, "" if world_size == 1 else f"rank{rank}")
    return record["versions"]


def missing_shards(folder: Path, settings: Settings) -> list[int]:
    """Returns the shards that are not there or not whole.

    Raises:
        ValueError: where a shard's name is taken by another file.
    """
    counts = enumerate(settings.row_counts)
    return [index for index, num in counts if not is_complete(folder / shard_name(index), num, settings.shape)]


def finish(
    folder: Path,
    settings: Settings,
    versions: dict[str, str],
    rank: int = 0,
    text_mean: Sequence[float] | None = None,
) -> None:
    """Reads every shard in order and writes dataset.json with exact statistics, and the mean of texts where given.

    Raises:
        ValueError: where a shard does not hold what it should.
    """
    shards, latents, embeddings = [], Moments(), Moments()
    for index, num in enumerate(settings.row_counts):
        path = folder / shard_name(index)
        pairs = read_shard(path)
        check_pairs(pairs, num, settings.shape, str(path))
        latents.add(Moments.of(pairs.latents))
        embeddings.add(Moments.of(pairs.embeddings))
        shards.append({"name": path.name, "count": num, "sha256": _sha256(path)})
    record = {
        "format": 1,
        **_plain(settings),
        "shards": shards,
        "latent_mean": latents.mean.tolist(),
        "latent_std": latents.std.tolist(),
        "embedding_mean": embeddings.mean.tolist(),
        **({} if text_mean is None else {"text_mean": list(text_mean)}),
        "versions": versions,
    }
    write_atomically(folder / DATASET, [_to_json(record)], f"rank{rank}")


def check_pairs(pairs: Pairs, num: int, shape: PairShape, name: str) -> None:
    """Checks shapes and values of a shard's rows.

    Raises:
        ValueError: naming the shard and the first row that is not finite, or the shapes.
    """
    expected = {"latents": (num, shape.tokens, shape.width), "embeddings": (num, shape.dim)}
    for (part, wanted), array in zip(expected.items(), pairs, strict=True):
        if array.shape != wanted:
            raise ValueError(f"{name}: {part} must be {list(wanted)}, got {list(array.shape)}")
        broken = np.flatnonzero(~np.isfinite(array.reshape(num, -1)).all(axis=1))
        if len(broken):
            raise ValueError(
                f"{name}: {part} of row {broken[0]} hold NaN or infinity ({len(broken)} of {num} rows):"
                " the generator or the embedder overflows, or its weights are broken"
            )


def versions() -> dict[str, str]:
    """Returns the versions of what the numbers come from."""
    found = {"clip2latent": clip2latent.__version__, "python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _plain(settings: Settings) -> dict[str, Any]:
    record = json.loads(json.dumps(asdict(settings)))
    for name, usual in (("space", DEFAULT_SPACE), ("texts_sha256", "")):
        if record[name] == usual:
            del record[name]
    return record


def _to_json(record: dict[str, Any]) -> bytes:
    """One line for each key, so that a person can read it; no NaN."""
    lines = (f"  {json.dumps(key)}: {json.dumps(value, allow_nan=False)}" for key, value in record.items())
    return ("{\n" + ",\n".join(lines) + "\n}\n").encode()


def _read_manifest(path: Path) -> dict[str, Any]:
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        if record["format"] == 1 and isinstance(record["settings"], dict) and isinstance(record["versions"], dict):
            return record
        raise KeyError("format")
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is not the record of an unfinished data set ({error}): give another --out") from error


def _compare(folder: Path, begun: dict[str, Any], now: dict[str, Any]) -> None:
    for name in {**now, **begun}:
        before, value = begun.get(name), now.get(name)
        if before != value:
            raise ValueError(
                f"{name}: {folder} was begun with {json.dumps(before)}, this run has {json.dumps(value)};"
                f" go on with the same settings, or give another --out"
            )


def sha256_of(texts: Sequence[str]) -> str:
    """Hashes texts in their order; "" for none."""
    return hashlib.sha256(json.dumps(list(texts)).encode()).hexdigest() if texts else ""


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()
