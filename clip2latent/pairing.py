"""Which picture of a folder belongs to which caption."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from clip2latent.captions import Caption, plain_name, stem

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")


class Pairing(NamedTuple):
    """Pictures and their texts.

    Attributes:
        pictures: n files in the order of their texts.
        texts: P different texts, each with pictures.
        own: for each picture the index of its text.
        attributes: for each text what it asks for, {} where that is not known.
        captions: captions read, with those that have no picture and those that say the same.
    """

    pictures: list[Path]
    texts: list[str]
    own: list[int]
    attributes: list[Mapping[str, str]]
    captions: int


def list_pictures(folder: Path) -> list[Path]:
    """Returns the pictures in a folder and its folders, numbers in names in the order of numbers.

    Of a folder that generate wrote, only the images of its results.json: no grid.

    Raises:
        ValueError: where there is none.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"no folder of pictures {folder}")
    written = [name for name, _ in _written(folder)]
    if written:
        return [folder / name for name in written]
    found = [path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and not path.name.startswith(".")]
    if not found:
        raise ValueError(f"{folder} holds no pictures: expected files that end in {', '.join(SUFFIXES)}")
    return sorted(found, key=lambda path: _natural(path.relative_to(folder).as_posix()))


def pair(folder: Path, captions: Iterable[Caption] | None) -> Pairing:
    """Finds each picture's caption: by its name where captions name pictures, otherwise by order.

    By name: a picture is named as its caption says, or so with a number after "-" or "_", as several pictures of a
    caption are. By order: the pictures are shared out evenly, each caption's ones together. Captions that say the same
    are one text with the pictures of all.

    Args:
        folder: of pictures.
        captions: read by `read_captions`; None for the prompts of a folder that generate wrote.

    Raises:
        ValueError: for pictures without a caption, and for a number of pictures that cannot be shared out.
    """
    if captions is None:
        entries = _written(folder)
        if not entries:
            raise ValueError(f"{folder} has no results.json that says its prompts: give --captions")
        pictures = [folder / name for name, _ in entries]
        found = [Caption(prompt) for _, prompt in entries]
        return _grouped(pictures, found, len({caption.text for caption in found}))
    pictures, read = list_pictures(folder), list(captions)
    if not read:
        raise ValueError("the captions file holds no captions")
    chosen = _by_name(folder, pictures, read) if read[0].names else _by_order(pictures, read)
    return _grouped(pictures, chosen, len(read))


def _by_order(pictures: Sequence[Path], captions: Sequence[Caption]) -> list[Caption]:
    each, rest = divmod(len(pictures), len(captions))
    if rest or not each:
        raise ValueError(
            f"{len(pictures)} pictures cannot be shared out evenly to {len(captions)} captions: let the captions name"
            ' their pictures, in a .jsonl file of {"caption": "...", "image": "name.png"} lines'
        )
    return [captions[index // each] for index in range(len(pictures))]


def _by_name(folder: Path, pictures: Sequence[Path], captions: Sequence[Caption]) -> list[Caption]:
    """Takes the way of naming by which most pictures are found, which must be all."""
    names = [stem(path.relative_to(folder).as_posix()) for path in pictures]
    fewest: list[str] = names
    for way in range(max(len(caption.names) for caption in captions)):
        by_name: dict[str, Caption] = {}
        for caption in captions:
            if way < len(caption.names) and caption.names[way]:
                by_name.setdefault(caption.names[way], caption)
        found = [by_name.get(name) or by_name.get(_without_number(name)) for name in names]
        missing = [name for name, caption in zip(names, found, strict=True) if caption is None]
        if not missing:
            return [caption for caption in found if caption is not None]
        fewest = min(fewest, missing, key=len)
    raise ValueError(
        f"{len(fewest)} of {len(pictures)} pictures in {folder} have no caption, such as {fewest[0]!r}: the captions"
        f" name their pictures, such as {captions[0].names[0]!r}"
    )


def _grouped(pictures: Sequence[Path], captions: Sequence[Caption], read: int) -> Pairing:
    texts: dict[str, int] = {}
    attributes: list[Mapping[str, str]] = []
    own = []
    for caption in captions:
        if caption.text not in texts:
            texts[caption.text] = len(texts)
            attributes.append(caption.attributes)
        own.append(texts[caption.text])
    order = sorted(range(len(own)), key=own.__getitem__)  # stable: a text's pictures stay in their order
    return Pairing([pictures[index] for index in order], list(texts), [own[index] for index in order], attributes, read)


def _written(folder: Path) -> list[tuple[str, str]]:
    """The names and prompts of the images that a folder's results.json lists; [] without one."""
    try:
        entries = json.loads((folder / "results.json").read_text(encoding="utf-8"))["images"]
        found = [(str(entry["file"]), str(entry["prompt"])) for entry in entries]
    except (OSError, ValueError, KeyError, TypeError):
        return []
    return [(name, prompt) for name, prompt in found if Path(name).name == name]


def _without_number(name: str) -> str:
    return plain_name(re.sub(r"[-_]\d+$", "", name))


def _natural(name: str) -> list[tuple[bool, int, str]]:
    """Orders names as people do: 2 before 10, digits before letters."""
    parts = [part for part in re.split(r"(\d+)", name.lower()) if part]
    return [(False, int(part), "") if part.isdecimal() else (True, 0, part) for part in parts]
