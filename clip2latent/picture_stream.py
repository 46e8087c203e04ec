"""Pictures of files as tensors, some at a time, read ahead by threads; damaged ones are named and left out."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from clip2latent.downloads import file_sha256
from clip2latent.images import read_picture

THREADS = min(4, os.cpu_count() or 1)


class Pictures(NamedTuple):
    """Pictures of one size.

    Attributes:
        index: [B], their places in the list that was read.
        images: [B, 3, R, R] in [-1, 1].
    """

    index: Tensor
    images: Tensor


class Reading:
    """A list of picture files being read: what it yields, what was damaged, and the hash of all.

    Attributes:
        damaged: (file, why) of those that could not be read so far.
        lines: name and hash of each file so far, in their order, see `sha256_of`.
    """

    def __init__(self, paths: Sequence[Path], chunk: int) -> None:
        """Takes the files, and how many pictures are held at once (twice, with those read ahead)."""
        if chunk < 1:
            raise ValueError(f"chunk={chunk}: expected at least 1")
        self.paths, self.chunk = list(paths), chunk
        self.damaged: list[tuple[Path, str]] = []
        self.lines: list[str] = []

    def __iter__(self) -> Iterator[Pictures]:
        """Yields each chunk's pictures, those of one size together; once."""
        parts = [
            range(start, min(start + self.chunk, len(self.paths))) for start in range(0, len(self.paths), self.chunk)
        ]
        with ThreadPoolExecutor(THREADS) as pool:
            ahead: list[Future[tuple[str, Tensor | str]]] = []
            for number in range(-1, len(parts)):
                current = ahead
                following = parts[number + 1] if number + 1 < len(parts) else ()
                ahead = [pool.submit(_read, self.paths[index]) for index in following]
                if number >= 0:
                    yield from self._by_size(parts[number], current)

    def sha256(self) -> str:
        """Returns a hash of all files' names and bytes, in order, after they were read."""
        return sha256_of(self.lines)

    def _by_size(self, part: range, read: Sequence[Future[tuple[str, Tensor | str]]]) -> Iterator[Pictures]:
        sizes: dict[int, list[tuple[int, Tensor]]] = {}
        for index, future in zip(part, read, strict=True):
            digest, found = future.result()
            self.lines.append(f"{self.paths[index].name} {digest}")
            if isinstance(found, str):
                self.damaged.append((self.paths[index], found))
            else:
                sizes.setdefault(found.shape[-1], []).append((index, found))
        for pictures in sizes.values():
            yield Pictures(
                torch.tensor([index for index, _ in pictures]), torch.cat([picture for _, picture in pictures])
            )


def sha256_of(lines: Iterable[str]) -> str:
    """Returns a hash of the lines of a `Reading`, or of several that read parts of a list in order."""
    digest = hashlib.sha256()
    for line in lines:
        digest.update(f"{line}\n".encode())
    return digest.hexdigest()


def _read(path: Path) -> tuple[str, Tensor | str]:
    """Returns a file's hash, and its picture or what is wrong with it."""
    try:
        return file_sha256(path), read_picture(path)
    except (OSError, ValueError) as error:
        return "", str(error)
