"""The files in a tar archive that is in memory, found by walking its headers."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

BLOCK = 512
_HEADER = struct.Struct("100s24x11s21xc100x5s83x155s12x")  # ustar (POSIX.1-1988): name, size, type, magic, prefix
_FILE, _PAX, _GNU_NAME = (b"0", b"\0", b"7"), b"x", b"L"


class Member(NamedTuple):
    """A regular file in an archive.

    Attributes:
        name: its path there, as bytes.
        start: where its content begins.
        stop: where its content ends.
        header: where its first header begins.
    """

    name: bytes
    start: int
    stop: int
    header: int


def tar_members(content: memoryview) -> Iterator[Member]:
    """Finds the regular files of an uncompressed archive; long names of PAX and GNU archives are known.

    An order of magnitude faster than tarfile, for archives of many small files. Nothing of a file is looked at.

    Args:
        content: the whole archive.

    Raises:
        ValueError: where it is something else, or ends before its end mark.
    """
    position, end, long_name, header = 0, len(content), b"", -1
    while position + BLOCK <= end:
        name, size_field, kind, magic, prefix = _HEADER.unpack_from(content, position)
        if magic != b"ustar":
            if any(content[position : position + BLOCK]):
                raise ValueError(f"byte {position} begins no tar header: it is damaged, or no uncompressed tar file")
            return
        size = int(size_field.rstrip(b" \0") or b"0", 8)
        header = position if header < 0 else header
        start = position + BLOCK
        stop = start + size
        if size < 0 or stop > end:
            raise ValueError(f"it is truncated: {_until_nul(name)!r} should end at byte {stop}, the file does at {end}")
        position = start + -(-size // BLOCK) * BLOCK
        if kind in _FILE:
            if not long_name:
                long_name = _until_nul(prefix) + b"/" + _until_nul(name) if prefix[0] else _until_nul(name)
            yield Member(long_name, start, stop, header)
            long_name, header = b"", -1
        elif kind == _PAX:
            record = content[start:stop].tobytes()
            if b" path=" in record:
                long_name = _pax_path(record)
        elif kind == _GNU_NAME:
            long_name = _until_nul(content[start:stop].tobytes())
        else:
            long_name, header = b"", -1
    raise ValueError(f"it is truncated: no end mark in its {end} bytes")


def _until_nul(field: bytes) -> bytes:
    return field.partition(b"\0")[0]


def _pax_path(records: bytes) -> bytes:
    """The path among PAX records, each "<its whole length> <key>=<value>" and a line's end."""
    path = b""
    while records:
        digits, _, rest = records.partition(b" ")
        length = int(digits)
        if not len(digits) < length <= len(records):
            raise ValueError(f"a PAX record says it is {length} bytes long")
        key, _, value = rest[: length - len(digits) - 2].partition(b"=")
        path = value if key == b"path" else path
        records = records[length:]
    return path
