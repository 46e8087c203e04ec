"""Captions of pictures, in the file formats that data sets and people have, one at a time."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from types import MappingProxyType
from typing import Any, NamedTuple


class Caption(NamedTuple):
    """A text and how the pictures of it may be named.

    Attributes:
        text: the caption.
        names: names of its picture without suffix, one for each of the format's ways to name pictures, "" where a way
            does not apply; none where pictures go by their order.
        attributes: what it asks for, where that is known: attribute -> value.
    """

    text: str
    names: tuple[str, ...] = ()
    attributes: Mapping[str, str] = MappingProxyType({})


def read_captions(source: Path | str) -> Iterator[Caption]:
    """Yields the captions of a file or folder, in its order.

    Args:
        source: one of
            - a text file, a caption a line, whose pictures go by order;
            - .jsonl, lines of {"caption" or "prompt": text, "image": name of its picture, "attributes": {...}}, of
              which only the text is required; either all lines have an image or none;
            - .json as COCO's captions: {"images": [{"id", "file_name"}], "annotations": [{"id", "image_id",
              "caption"}]}, whose pictures are named by the image's file name, its id, or the annotation's id;
            - a folder of text files as of CUB, the first line of each being the caption of the picture that is named
              alike, with its folders or without.

    Raises:
        ValueError: for a malformed file, by the line.
        FileNotFoundError: where there is nothing.
    """
    path = Path(source)
    if path.is_dir():
        return _folder(path)
    if not path.is_file():
        raise FileNotFoundError(
            f"captions {path} do not exist: name a .txt, .jsonl or COCO .json file, or a folder of text files"
        )
    return {".jsonl": _json_lines, ".json": _coco}.get(path.suffix.lower(), _lines)(path)


def stem(name: str) -> str:
    """Returns a picture's name without its suffix, as `plain_name` writes it."""
    name = name.replace("\\", "/")
    return plain_name(name.removesuffix(PurePosixPath(name).suffix))


def plain_name(name: str) -> str:
    """Returns a name; of a number without its leading zeros."""
    return str(int(name)) if name.isascii() and name.isdigit() else name


def _lines(path: Path) -> Iterator[Caption]:
    for _, line in _numbered(path):
        yield Caption(line)


def _json_lines(path: Path) -> Iterator[Caption]:
    named: bool | None = None
    expected = 'expected {"caption": "...", "image": "name.png"}, the image in all lines or in none'
    for number, line in _numbered(path):
        try:
            record = json.loads(line)
        except json.JSONDecodeError as error:
            raise ValueError(f"{path}, line {number}: {expected}; not JSON: {error}") from error
        record = record if isinstance(record, dict) else {}
        text, image = record.get("caption", record.get("prompt")), record.get("image")
        attributes = record.get("attributes", {})
        fits = isinstance(text, str) and text.strip() and isinstance(attributes, dict)
        if not fits or not (image is None or (isinstance(image, str) and image)) or named not in (None, bool(image)):
            raise ValueError(f"{path}, line {number}: {expected}, got {line[:200]}")
        named = bool(image)
        kept = {str(name): str(value) for name, value in attributes.items()}
        yield Caption(text.strip(), (stem(image),) if image else (), kept)


def _coco(path: Path) -> Iterator[Caption]:
    expected = 'expected COCO\'s captions, {"images": [{"id", "file_name"}], "annotations": [{"image_id", "caption"}]}'
    try:
        record = json.loads(path.read_text(encoding="utf-8-sig"))
        files = {image["id"]: str(image["file_name"]) for image in record["images"]}
        for annotation in record["annotations"]:
            image, text = annotation["image_id"], str(annotation["caption"]).strip()
            if text:
                number = annotation.get("id")
                yield Caption(text, (stem(files[image]), str(image), "" if number is None else str(number)))
    except (UnicodeDecodeError, json.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path}: {expected}; {type(error).__name__}: {error}") from error


def _folder(folder: Path) -> Iterator[Caption]:
    found = False
    for path in sorted(folder.rglob("*.txt")):
        first: Any = next(_numbered(path), None)
        if first is not None:
            found = True
            yield Caption(first[1], (stem(path.relative_to(folder).as_posix()), stem(path.name)))
    if not found:
        raise ValueError(f"{folder} holds no captions: expected text files, named as the pictures are")


def _numbered(path: Path) -> Iterator[tuple[int, str]]:
    """Yields the lines that are not blank, with their numbers, without reading the whole file."""
    try:
        with open(path, encoding="utf-8-sig") as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    yield number, line.strip()
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not a text file in UTF-8") from error
