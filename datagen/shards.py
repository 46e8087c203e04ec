"""One shard: a WebDataset tar of two batched arrays, with the same bytes for the same rows.

`shard-000123.tar` holds `shard-000123.latent.npy` [n, K, D] and `shard-000123.embedding.npy` [n, E], both float32.
A file appears under its final name only when it is complete.
"""

from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path
from typing import NamedTuple

import numpy as np

PARTIAL = ".partial"
RECORD = 10_240  # tar pads a file to whole records of 20 blocks
BLOCK = 512


class Pairs(NamedTuple):
    """The rows of one shard.

    Attributes:
        latents: float32 [n, K, D], the generator's latents reduced to one row per group.
        embeddings: float32 [n, E], of the images these latents make.
    """

    latents: np.ndarray
    embeddings: np.ndarray


class PairShape(NamedTuple):
    """The shape of one row: latents [tokens, width], embedding [dim]."""

    tokens: int
    width: int
    dim: int


def shard_name(index: int) -> str:
    """Returns the file name of shard `index`."""
    return f"shard-{index:06d}.tar"


def write_shard(path: Path, pairs: Pairs, owner: str = "") -> None:
    """Writes a shard under a temporary name, then renames it; the temporary file goes if anything fails.

    Args:
        path: The final name; its stem is the key of the members.
        pairs: The rows.
        owner: Part of the temporary name, different for processes that share the folder.
    """
    chunks: list[bytes | memoryview] = []
    for name, array in zip(_member_names(path), pairs, strict=True):
        array = np.ascontiguousarray(array, dtype="<f4")
        chunks += [_header(name, array.shape), memoryview(array).cast("B"), bytes(-_npy_size(array.shape) % BLOCK)]
    size = sum(len(chunk) for chunk in chunks)
    write_atomically(path, [*chunks, bytes(_padded(size) - size)], owner)


def write_atomically(path: Path, chunks: list[bytes | memoryview], owner: str = "") -> None:
    """Writes the chunks to `path`, which exists afterwards with all of them or, if anything fails, as before."""
    partial = path.with_name(f"{path.name}.{owner}{PARTIAL}" if owner else f"{path.name}{PARTIAL}")
    try:
        with open(partial, "wb") as file:
            for chunk in chunks:
                file.write(chunk)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


def is_complete(path: Path, num: int, shape: PairShape) -> bool:
    """Tells, from a file's size and headers alone, whether it is the whole shard of `num` rows.

    Returns:
        False where the file is missing or is the beginning of such a shard.

    Raises:
        ValueError: where there is a file of this name that is something else.
    """
    if not path.exists():
        return False
    latents, embeddings = (num, shape.tokens, shape.width), (num, shape.dim)
    first, second = (_header(*member) for member in zip(_member_names(path), (latents, embeddings), strict=True))
    middle = BLOCK + _npy_size(latents) + -_npy_size(latents) % BLOCK
    size = _padded(middle + BLOCK + _npy_size(embeddings) + -_npy_size(embeddings) % BLOCK)
    with open(path, "rb") as file:
        begin = file.read(len(first))
        file.seek(middle)
        between = file.read(len(second))
    found = path.stat().st_size
    if not first.startswith(begin) or not second.startswith(between) or found > size:
        raise ValueError(
            f"{path} is not the shard of {num} latents [{shape.tokens}, {shape.width}] and embeddings [{shape.dim}]"
            " that this command would make: move it away, or give another --out"
        )
    return found == size


def read_shard(path: Path) -> Pairs:
    """Reads a shard's rows.

    Raises:
        ValueError: where the file is not such a shard.
    """
    try:
        with tarfile.open(path) as tar:
            return Pairs(*(np.load(io.BytesIO(tar.extractfile(name).read())) for name in _member_names(path)))
    except (tarfile.TarError, KeyError, EOFError) as error:
        raise ValueError(f"{path} is not a shard of latents and embeddings: {error}") from error


def remove_partials(folder: Path, owner: str = "") -> None:
    """Removes temporary files that a killed process left: those of one owner, or all of them."""
    for partial in folder.glob(f"*.{owner}{PARTIAL}" if owner else f"*{PARTIAL}"):
        partial.unlink(missing_ok=True)


def _member_names(path: Path) -> tuple[str, str]:
    return f"{path.stem}.latent.npy", f"{path.stem}.embedding.npy"


def _npy_header(shape: tuple[int, ...]) -> bytes:
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"descr": "<f4", "fortran_order": False, "shape": shape})
    return buffer.getvalue()


def _npy_size(shape: tuple[int, ...]) -> int:
    return len(_npy_header(shape)) + 4 * int(np.prod(shape))


def _header(name: str, shape: tuple[int, ...]) -> bytes:
    """The tar block and the npy header that precede an array's values; no time, no user, no host."""
    member = tarfile.TarInfo(name)
    member.size = _npy_size(shape)
    return member.tobuf(tarfile.USTAR_FORMAT) + _npy_header(shape)


def _padded(size: int) -> int:
    return -(-(size + 2 * BLOCK) // RECORD) * RECORD


def _sync_folder(folder: Path) -> None:
    """Makes the rename itself durable, where the system can."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
