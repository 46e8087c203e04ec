"""Where shards of pairs are: folders, files, brace patterns, and addresses and commands where they are allowed."""

from __future__ import annotations

import glob
import re
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from clip2latent.downloads import cached_file, is_remote, shown

MANIFEST = "dataset.json"
PIPE = "pipe:"
_MOST = 1_000_000  # shards that a pattern may name


class Shard(NamedTuple):
    """One shard that is known of.

    Attributes:
        name: for messages and keys.
        location: a path, an address, or "pipe:" and a command.
        count: its rows; None where that is not known before it is read.
        sha256: its recorded hash; "" where there is none.
    """

    name: str
    location: str
    count: int | None = None
    sha256: str = ""


class Access(NamedTuple):
    """What reading may reach beyond local files.

    Attributes:
        urls: whether addresses may be fetched (http, https and hf).
        pipes: whether "pipe:" commands may be run, by a shell.
    """

    urls: bool = False
    pipes: bool = False

    def check(self, location: str) -> None:
        """Raises ValueError where a location is not allowed, with the option that would allow it."""
        if location.startswith(PIPE) and not self.pipes:
            raise ValueError(
                f"path {location!r} runs a command in a shell: where you trust it, allow that with --data.allow_pipes"
                " true"
            )
        if is_remote(location) and not self.urls:
            raise ValueError(
                f"path {shown(location)!r} is an address: allow it to be fetched with --data.allow_urls true"
            )


def expand_braces(pattern: str) -> list[str]:
    """Expands {a,b} and {000..099}, in the order of a shell; numbers keep the width of the wider end's zeros.

    Raises:
        ValueError: for a pattern that names nothing, or millions of files.
    """
    found = re.search(r"\{([^{}]*)\}", pattern)
    if not found:
        return [pattern]
    before, after = pattern[: found.start()], pattern[found.end() :]
    numbers = re.fullmatch(r"(\d+)\.\.(\d+)", found[1])
    if numbers:
        first, last = int(numbers[1]), int(numbers[2])
        padded = any(len(end) > 1 and end[0] == "0" for end in numbers.groups())
        width = max(map(len, numbers.groups())) if padded else 0
        if abs(last - first) >= _MOST:
            raise ValueError(f"path {pattern!r} names {abs(last - first) + 1} files")
        step = 1 if first <= last else -1
        middles = [f"{number:0{width}d}" for number in range(first, last + step, step)]
    elif "," in found[1]:
        middles = found[1].split(",")
    else:
        raise ValueError(f"path {pattern!r}: expected {{first..last}} or {{one,other}}, got {found[0]!r}")
    return [path for middle in middles for path in expand_braces(before + middle + after)]


def find_shards(path: str, access: Access) -> list[Shard]:
    """Names the shards of a path that has no dataset.json: a folder of tar files, one file, a pattern, a command.

    Raises:
        ValueError: where there are none, one is missing, or a location is not allowed.
    """
    access.check(path)
    if path.startswith(PIPE):
        return [Shard(location, location) for location in expand_braces(path)]
    if is_remote(path):
        return [Shard(shown(location), location) for location in expand_braces(path)]
    if Path(path).is_dir():
        names = sorted(glob.glob("**/*.tar", root_dir=path, recursive=True))
        if not names:
            raise ValueError(f"no {MANIFEST} and no .tar files in {path}: make a dataset with python -m datagen")
        return [Shard(name, str(Path(path, name))) for name in names]
    files = expand_braces(path)
    missing = [file for file in files if not Path(file).is_file()]
    if missing:
        raise ValueError(
            f"no dataset in {path}: {len(missing)} of {len(files)} file(s) are missing, the first is {missing[0]}"
        )
    return [
        Shard(Path(file).name if len({Path(f).name for f in files}) == len(files) else file, file) for file in files
    ]


def fetch(shard: Shard, buffer: Callable[[int], memoryview]) -> memoryview:
    """Returns a shard's whole content.

    Addresses are fetched once and kept with all downloads ($CLIP2LATENT_CACHE); commands run anew each time.

    Args:
        shard: whose location is allowed.
        buffer: gives memory of a size; the content may lie there.

    Raises:
        ValueError: where it is missing, or its command fails.
    """
    if shard.location.startswith(PIPE):
        return _run(shard)
    path = cached_file(shard.location, shard.sha256 or None) if is_remote(shard.location) else Path(shard.location)
    try:
        with open(path, "rb", buffering=0) as file:
            content = buffer(path.stat().st_size)
            filled = 0
            while filled < len(content):
                read = file.readinto(content[filled:])
                if not read:
                    break
                filled += read
            return content[:filled]
    except FileNotFoundError:
        raise ValueError(f"shard {path} is missing") from None


def _run(shard: Shard) -> memoryview:
    from webdataset import gopen

    try:
        with gopen(shard.location, "rb") as stream:
            return memoryview(stream.read())
    except (OSError, ValueError, AssertionError) as error:
        raise ValueError(f"shard {shard.location!r} cannot be read: its command failed ({error})") from error
