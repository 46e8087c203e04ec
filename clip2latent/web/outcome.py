"""What comes of a request: pictures as files' bytes, the same files that the command line writes."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Shot:
    """A picture of a gallery.

    Attributes:
        png: the file's bytes.
        caption: what stands beneath it.
        score: what it is ranked by; None where nothing ranks it.
        name: of the file to download; "" where it is only to be looked at.
        heading: what stands above it and the following ones of the same heading; "" for nothing.
    """

    png: bytes = field(repr=False)
    caption: str = ""
    score: float | None = None
    name: str = ""
    heading: str = ""


@dataclass(frozen=True)
class Outcome:
    """What a request came to.

    Attributes:
        shots: the gallery, best first.
        note: what was done, and what to know of it.
        sheet: a labelled grid, where that shows more than the gallery; None for none.
        archive: all files of the command line's folder as a zip.
        name: of the archive, without its ending.
    """

    shots: tuple[Shot, ...]
    note: str
    sheet: bytes | None = field(default=None, repr=False)
    archive: bytes = field(default=b"", repr=False)
    name: str = "clip2latent"


@dataclass(frozen=True)
class Progress:
    """How far a request is: a stage, steps done and to do, and what there is to see of it, if anything."""

    stage: str
    done: int
    total: int
    shots: tuple[Shot, ...] = field(default=(), repr=False)


class Stopped(Exception):
    """The visitor no longer wants the result."""


@dataclass(frozen=True)
class Watch:
    """What the work tells of itself, and asks.

    Attributes:
        tell: takes progress.
        stopped: whether the visitor has stopped the work.
    """

    tell: Callable[[Progress], None] = lambda progress: None
    stopped: Callable[[], bool] = lambda: False

    def check(self) -> None:
        """Raises Stopped where the visitor has stopped the work."""
        if self.stopped():
            raise Stopped


def read_shots(folder: Path, caption: Callable[[dict[str, Any]], str], headed: bool = False) -> tuple[Shot, ...]:
    """Returns the pictures of a folder of results, in its record's order.

    Args:
        folder: as the command line writes it.
        caption: what stands beneath a picture, from its entry in results.json.
        headed: whether the prompts stand above their pictures.
    """
    entries = json.loads((folder / "results.json").read_text(encoding="utf-8"))["images"]
    return tuple(
        Shot(
            (folder / entry["file"]).read_bytes(),
            caption(entry),
            entry.get("score"),
            entry["file"],
            entry["prompt"] if headed else "",
        )
        for entry in entries
    )


def pack(folder: Path) -> bytes:
    """Returns a folder's files as a zip; pictures are compressed already."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for path in sorted(folder.iterdir()):
            archive.write(path, path.name)
    return buffer.getvalue()
