"""Archives of samples that repeat at one stride: what walking thousands of headers finds, by comparing them at once."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import NamedTuple

import numpy as np

from clip2latent.tar_members import BLOCK, Member, tar_members

_NAME, _SIZE, _KIND, _MAGIC = slice(0, 100), slice(124, 136), 156, slice(257, 262)
_PREFIX = slice(345, 500)
_RECORD = 40  # bytes that hold a record of a time
_MOST_MEMBERS = 8  # of a sample


class Strided(NamedTuple):
    """Samples of an archive that all look like its first one.

    Attributes:
        count: samples.
        stride: bytes from one to the next.
        members: the first sample's.
    """

    count: int
    stride: int
    members: list[Member]

    def column(self, content: memoryview, offset: int, size: int) -> np.ndarray:
        """Returns the bytes [count, size] that lie at the first sample's `offset`, and there in each further one."""
        return np.ndarray((self.count, size), np.uint8, content, offset, strides=(self.stride, 1))


def strided_samples(content: memoryview) -> Strided | None:
    """Finds that an archive is one sample after the other, with equal names (but for the key) and equal sizes.

    Args:
        content: the whole archive.

    Returns:
        None where it is anything else, or is damaged: walk it then.
    """
    try:
        first = list(islice(tar_members(content), _MOST_MEMBERS + 1))
    except ValueError:
        return None
    key = _key(first[0].name) if first else b""
    members = [member for member in first if _key(member.name) == key]
    if not members or members == first or members != first[: len(members)]:
        return None
    begin, stride = members[0].header, first[len(members)].header - members[0].header
    count = (len(content) - begin) // stride
    magic = Strided(count, stride, members).column(content, begin + _MAGIC.start, 5)
    same = (magic == np.frombuffer(b"ustar", np.uint8)).all(axis=1)
    count = count if same.all() else int(np.argmin(same))
    found, end = Strided(count, stride, members), begin + count * stride
    if count < 2 or end + BLOCK > len(content) or any(content[end : end + BLOCK]):
        return None
    return found if all(_alike(content, found, len(key))) else None


def _alike(content: memoryview, found: Strided, key: int) -> Iterator[bool]:
    """Tells of each header of the first sample whether the other samples have its like."""
    keys = None
    for member in found.members:
        name_block = member.start - BLOCK
        for offset in range(member.header, name_block, 2 * BLOCK):  # PAX headers, each with a block of records
            header, records = (found.column(content, at, BLOCK) for at in (offset, offset + BLOCK))
            yield bool((header[:, _KIND] == ord("x")).all() and (header[:, _SIZE][:, :8] == ord("0")).all())
            yield bool((header[:, _MAGIC] == header[0, _MAGIC]).all())
            # A single record, the time: nothing that could rename or resize the file.
            yield bool((records[:, 3:9] == np.frombuffer(b"mtime=", np.uint8)).all())
            yield not records[:, _RECORD:].any()
            yield bool(((records[:, :_RECORD] == ord("\n")).sum(axis=1) == 1).all())
        header = found.column(content, name_block, BLOCK)
        for field in (slice(key, _NAME.stop), _SIZE, slice(_KIND, _KIND + 1), _MAGIC, _PREFIX):
            yield bool((header[:, field] == header[0, field]).all())
        own = header[:, :key]
        yield keys is None or bool((own == keys).all())
        keys = own
    yield keys is not None and bool(keys.all())


def _key(name: bytes) -> bytes:
    """A name without its field and extension: a/b.c.latent.npy is of a/b.c."""
    return name.rpartition(b".")[0].rpartition(b".")[0]
