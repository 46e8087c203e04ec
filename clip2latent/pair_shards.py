"""One shard of pairs: a WebDataset tar, in our layout or in the original clip2latent's.

Ours has batched rows, {key}.latent.npy [n, K, D] and {key}.embedding.npy [n, E], in one or more pairs of members. The
original's has two members for each row, {key}.latent.npy [K, D] (or [D]) and {key}.img_feat.npy [E], the embedding as
CLIP gave it, brought to unit norm here; rows batched under these names are read too. Other members are passed over.
"""

from __future__ import annotations

import hashlib
import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from clip2latent.tar_members import Member, tar_members
from clip2latent.tar_stride import Strided, strided_samples

ORIGINAL = b"img_feat"
_BLOCK = 128  # rows handled at a time: few enough to stay in the processor's cache


class Pairs(NamedTuple):
    """Generator latents and the embeddings of their images, row by row.

    Attributes:
        latents: [B, K, D], the first row of each group, not standardised.
        embeddings: [B, E], unit norm.
    """

    latents: Tensor
    embeddings: Tensor


class Rows(NamedTuple):
    """The same as arrays: latents [n, K, D] and embeddings [n, E]."""

    latents: np.ndarray
    embeddings: np.ndarray


class Table(NamedTuple):
    """Pairs in one array, so that a batch is gathered at once.

    Attributes:
        values: [N, K * D + E], latents and embedding of a pair one after the other.
        tokens: K.
        width: D.
    """

    values: np.ndarray
    tokens: int
    width: int

    @classmethod
    def empty(cls, count: int, shape: tuple[int, int, int], dtype: type) -> Table:
        """Returns a table for so many pairs of shape (K, D, E)."""
        tokens, width, dim = shape
        return cls(np.empty((count, tokens * width + dim), dtype), tokens, width)

    @property
    def rows(self) -> Rows:
        """Views of the values."""
        latents, embeddings = np.split(self.values, [self.tokens * self.width], axis=1)
        return Rows(latents.reshape(len(latents), self.tokens, self.width), embeddings)


class _Head(NamedTuple):
    """The header of an .npy member.

    Attributes:
        raw: its bytes.
        shape: of the array.
        dtype: of the array.
        fortran: whether the first index runs fastest.
        size: of the whole member in bytes.
    """

    raw: bytes
    shape: tuple[int, ...]
    dtype: np.dtype
    fortran: bool
    size: int


class _Field:
    """The members of latents, or of embeddings, in the order of the archive."""

    def __init__(self) -> None:
        self.keys: list[bytes] = []
        self.offsets: list[int] = []  # of the values
        self.heads: list[_Head] = []

    def add(self, content: memoryview, member: Member, key: bytes) -> None:
        """Takes a member in; its header is parsed where it is not the one before's."""
        head = self.heads[-1] if self.heads else None
        if head is None or content[member.start : member.start + len(head.raw)] != head.raw:
            head = _head(content, member)
        if member.stop - member.start != head.size:
            raise ValueError(f"{_text(member.name)} is not as long as its shape {head.shape} says")
        self.keys.append(key)
        self.offsets.append(member.start + len(head.raw))
        self.heads.append(head)


def read_shard(path: str | Path, sha256: str = "") -> Pairs:
    """Decodes one shard into float32; nothing in a shard is ever unpickled or run.

    Args:
        path: the shard.
        sha256: the file's recorded hash; "" leaves it unchecked.

    Raises:
        ValueError: for a damaged, truncated or foreign shard, named with its path.
    """
    try:
        content = memoryview(Path(path).read_bytes())
    except FileNotFoundError:
        raise ValueError(f"shard {path} is missing") from None
    check_sha256(content, str(path), sha256)
    return Pairs(*(torch.from_numpy(array) for array in decode(content, str(path))))


def check_sha256(content: memoryview, name: str, sha256: str) -> None:
    """Raises ValueError, with the shard's name, where the content has not the recorded hash; "" is not checked."""
    if sha256 and hashlib.sha256(content).hexdigest() != sha256:
        raise ValueError(
            f"shard {name} is damaged: it holds {len(content)} bytes whose hash is not the one in dataset.json;"
            " delete it and run the same datagen command again"
        )


def decode(content: memoryview, name: str, into: Rows | None = None) -> Rows:
    """Decodes a shard's content.

    Args:
        content: the whole file.
        name: the shard's, for errors.
        into: arrays of floats to fill; None for new float32 ones. Nothing returned refers to `content`.

    Raises:
        ValueError: for a truncated or foreign shard or one with rows that are not finite, named.
    """
    try:
        latents, embeddings, raw = _arrays(content)
        count = len(embeddings)
        if latents.ndim != 3 or embeddings.ndim != 2 or len(latents) != count:
            raise ValueError(f"latents {latents.shape} and embeddings {embeddings.shape} are not [n, K, D] and [n, E]")
        if into is None:
            into = Rows(np.empty(latents.shape, np.float32), np.empty(embeddings.shape, np.float32))
        shapes = [array.shape for array in into]
        if shapes != [latents.shape, embeddings.shape]:
            found = [tuple(latents.shape), tuple(embeddings.shape)]
            raise WrongShape(f"shard {name} holds arrays {found}, dataset.json promises {shapes}")
        for start in range(0, count, _BLOCK):
            part = slice(start, start + _BLOCK)
            copy(latents[part], into.latents[part])
            (_to_unit if raw else copy)(embeddings[part], into.embeddings[part])
            for field, array in zip(Rows._fields, into, strict=True):
                _check_finite(array[part], field, start)
    except WrongShape:
        raise
    except (ValueError, EOFError, OverflowError, SyntaxError) as error:
        raise ValueError(f"shard {name} cannot be read: {error}") from error
    return into


class WrongShape(ValueError):
    """A whole shard, but of another dataset."""


def _arrays(content: memoryview) -> tuple[np.ndarray, np.ndarray, bool]:
    """Latents [n, K, D], embeddings [n, E], as stored, and whether the latter have CLIP's own norms."""
    strided = strided_samples(content)
    latents, embeddings = _Field(), _Field()
    fields = {b"latent": latents, b"embedding": embeddings, ORIGINAL: embeddings}
    last, raw = b"", False
    for member in strided.members if strided else tar_members(content):
        key, _, field = member.name[:-4].rpartition(b".")
        if field in fields and member.name.endswith(b".npy"):
            fields[field].add(content, member, key)
            raw = raw or field == ORIGINAL
        else:
            last = member.name
    if not latents.keys or not embeddings.keys:
        found = f" but {_text(last)!r}" if last else ""
        raise ValueError(f"it holds no latent.npy with embedding.npy or img_feat.npy{found}: a shard of something else")
    order = _same_order(latents.keys, embeddings.keys)
    single = len(embeddings.heads[0].shape) == 1
    if strided:
        rows, embedded = (_columns(content, field, strided) for field in (latents, embeddings))
        if not single:
            rows, embedded = rows.reshape(-1, *rows.shape[2:]), embedded.reshape(-1, *embedded.shape[2:])
    else:
        rows = _stack(content, latents, range(len(latents.keys)), single)
        embedded = _stack(content, embeddings, order, single)
    return rows[:, None] if raw and rows.ndim == 2 else rows, embedded, raw


def _columns(content: memoryview, field: _Field, strided: Strided) -> np.ndarray:
    """A view of a field of samples that lie at one stride [samples, ...]."""
    head, offset = field.heads[0], field.offsets[0]
    raws = strided.column(content, offset - len(head.raw), len(head.raw))
    if (raws != raws[0]).any():
        wrong = int((raws != raws[0]).any(axis=1).argmax())
        raise ValueError(f"the .npy header of member {wrong} is not the first one's, {head.dtype} {head.shape}")
    strides = np.ndarray(head.shape, head.dtype, content, offset, order="F" if head.fortran else "C").strides
    return np.ndarray((strided.count, *head.shape), head.dtype, content, offset, (strided.stride, *strides))


def _head(content: memoryview, member: Member) -> _Head:
    stream = io.BytesIO(content[member.start : min(member.stop, member.start + 65536)].tobytes())
    version = np.lib.format.read_magic(stream)
    read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}.get(version)
    if read is None:
        raise ValueError(f"{_text(member.name)} has .npy version {version}")
    shape, fortran, dtype = read(stream)
    if dtype.hasobject:
        raise ValueError(f"{_text(member.name)} holds Python objects, which are never loaded (allow_pickle is off)")
    if dtype.kind != "f" or not shape:
        raise ValueError(f"{_text(member.name)} holds {dtype} {shape}, expected arrays of floats")
    size = stream.tell() + dtype.itemsize * math.prod(shape)
    return _Head(stream.getvalue()[: stream.tell()], shape, dtype, fortran, size)


def _same_order(latents: list[bytes], embeddings: list[bytes]) -> Sequence[int]:
    """Where the embedding of each latent is."""
    if latents == embeddings:
        return range(len(latents))
    places = {key: index for index, key in enumerate(embeddings)}
    alone = places.keys() ^ set(latents)
    if alone or len(latents) != len(embeddings):
        near = f", {_text(min(alone))!r} stands alone" if alone else ""
        raise ValueError(f"its {len(latents)} latents and {len(embeddings)} embeddings are not pairs{near}")
    return [places[key] for key in latents]


def _stack(content: memoryview, field: _Field, order: Sequence[int], single: bool) -> np.ndarray:
    """Joins members, of one row each or of several; a single member of several rows is a view."""
    heads = {head.raw: head for head in field.heads}
    shapes = sorted({head.shape if single else head.shape[1:] for head in heads.values()})
    if len(shapes) > 1:
        raise ValueError(f"its members differ in shape: {shapes[0]} and {shapes[1]}")
    first = field.heads[0]
    if not single or first.fortran or len(heads) > 1:
        views = [_view(content, field.offsets[index], field.heads[index]) for index in order]
        return np.stack(views) if single else views[0] if len(views) == 1 else np.concatenate(views)
    joined = np.empty((len(field.keys), *first.shape), first.dtype)
    rows, size, position = memoryview(joined).cast("B"), first.size - len(first.raw), 0
    for index in order:
        offset = field.offsets[index]
        rows[position : position + size] = content[offset : offset + size]
        position += size
    return joined


def _view(content: memoryview, offset: int, head: _Head) -> np.ndarray:
    return np.ndarray(head.shape, head.dtype, content, offset, order="F" if head.fortran else "C")


def copy(values: np.ndarray, into: np.ndarray) -> None:
    """Copies values into an array of another type or the same; what is beyond the type becomes infinite."""
    if values.dtype == np.float32 and into.dtype == np.float16 and not any(stride % 4 for stride in values.strides):
        torch.from_numpy(into).copy_(torch.from_numpy(values))  # an order of magnitude faster than NumPy's
    else:
        with np.errstate(over="ignore"):
            into[...] = values


def _to_unit(embeddings: np.ndarray, into: np.ndarray) -> None:
    embeddings = embeddings.astype(np.float32, copy=False)
    norms = np.sqrt(np.einsum("ne,ne->n", embeddings, embeddings))
    if not norms.all():
        raise ValueError("an embedding is zero")
    np.divide(embeddings, norms[:, None], out=into, casting="same_kind")


def all_finite(array: np.ndarray) -> bool:
    """Tells whether there is neither NaN nor infinity."""
    if array.dtype == np.float16:  # by the bits of the exponent: NumPy's arithmetic of halves is slow
        return not ((array.view(np.uint16) & 0x7C00) == 0x7C00).any()
    return bool(np.isfinite(array).all())


def _check_finite(array: np.ndarray, field: str, first: int) -> None:
    if not all_finite(array):
        wrong = np.isfinite(array).reshape(len(array), -1).all(axis=1).argmin()
        raise ValueError(
            f"NaN or infinite values in its {field}, as {array.dtype}; the first are in row {first + wrong}"
        )


def _text(name: bytes) -> str:
    return name.decode("utf-8", "replace")
