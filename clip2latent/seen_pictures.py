"""What models see in many pictures: rows of numbers, kept part by part, so that a killed run goes on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from clip2latent.evaluate import Bar
from clip2latent.extractors import Extractor
from clip2latent.interfaces import Embedder
from clip2latent.outputs import whole_file
from clip2latent.picture_stream import Reading, sha256_of

PART = 1024
"""Pictures whose numbers are kept together."""
PLACES, FEATURES, EMBEDDING, PROBABILITIES = "places", "features", "embedding", "probabilities"


class SeenPictures(NamedTuple):
    """What was seen of the n pictures that could be read, in their order.

    Attributes:
        kept: places [n] in the list of files.
        embeddings: of each embedder, [n, E].
        features: the extractor's [n, F].
        probabilities: name of a classification -> [n, its number of classes].
        record: counts, hash, and what was damaged; plain types.
    """

    kept: Tensor
    embeddings: list[Tensor]
    features: Tensor
    probabilities: dict[str, Tensor]
    record: dict[str, Any]


class _Part(NamedTuple):
    """Some pictures' numbers by column, the lines of their hash, and (file, why) of what was damaged."""

    columns: dict[str, Tensor]
    lines: list[str]
    damaged: list[list[str]]


def see(
    paths: Sequence[Path],
    embedders: Sequence[Embedder],
    extractor: Extractor,
    chunk: int,
    device: torch.device | str,
    bar: Bar,
    name: str,
    folder: Path | None = None,
) -> SeenPictures:
    """Looks at pictures; memory is that of two chunks, and of a row of numbers for each picture.

    Args:
        paths: files.
        embedders: CLIPs.
        extractor: what sets of pictures are compared by.
        chunk: pictures held at once.
        device: where the models are.
        bar: makes progress bars.
        name: of what the pictures are; a part of file names.
        folder: of parts that were seen by the same models; a part is taken from there unless one of its files is
            another, or of another time or size. None keeps none.

    Raises:
        ValueError: where no picture can be read.
    """
    parts: list[_Part] = []
    with bar(name, len(paths)) as progress:
        for start in range(0, len(paths), PART):
            files = paths[start : start + PART]
            path = None if folder is None else folder / f"{name}-{start:08d}.safetensors"
            part = None if path is None else _load(path, _stamp(files))
            if part is None:
                part = _look(files, embedders, extractor, chunk, device, progress)
                if path is not None:
                    _save(path, part, _stamp(files))
            else:
                progress.update(len(files))
            parts.append(part._replace(columns={**part.columns, PLACES: part.columns[PLACES] + start}))
    damaged = [broken for part in parts for broken in part.damaged]
    if len(damaged) == len(paths):
        file, why = damaged[0]
        raise ValueError(f"none of the {len(paths)} pictures can be read; {Path(file).name}: {why}")
    read = [part.columns for part in parts if len(part.columns) > 1]
    made = {key: torch.cat([columns.pop(key) for columns in read]) for key in list(read[0])}
    record = {
        "count": len(paths),
        "used": len(made[PLACES]),
        "damaged": [{"file": file, "why": why} for file, why in damaged],
        "sha256": sha256_of(line for part in parts for line in part.lines),
    }
    features = made[FEATURES]
    own = [features if embedder is extractor.embedder else None for embedder in embedders]
    embeddings = [made[f"{EMBEDDING}/{n}"] if one is None else one for n, one in enumerate(own)]
    probabilities = {key.partition("/")[2]: value for key, value in made.items() if key.startswith(f"{PROBABILITIES}/")}
    return SeenPictures(made[PLACES], embeddings, features, probabilities, record)


@torch.no_grad()
def _look(
    files: Sequence[Path],
    embedders: Sequence[Embedder],
    extractor: Extractor,
    chunk: int,
    device: torch.device | str,
    progress: Any,
) -> _Part:
    reading = Reading(files, chunk)
    columns: dict[str, list[Tensor]] = {}
    for index, pictures in reading:
        images = pictures.to(device)
        found = extractor.see(images)
        values = {FEATURES: found.features}
        values |= {f"{PROBABILITIES}/{key}": value for key, value in found.probabilities.items()}
        for number, embedder in enumerate(embedders):
            if embedder is not extractor.embedder:
                values[f"{EMBEDDING}/{number}"] = embedder.embed_images(images)
        columns.setdefault(PLACES, []).append(index)
        for key, value in values.items():
            columns.setdefault(key, []).append(value.float().cpu())
        progress.update(len(index))
    places = torch.cat(columns.pop(PLACES)) if columns else torch.zeros(0, dtype=torch.int64)
    order = places.argsort()
    made = {key: torch.cat(value)[order] for key, value in columns.items()}
    damaged = [[str(path), why] for path, why in reading.damaged]
    return _Part({PLACES: places[order], **made}, reading.lines, damaged)


def _stamp(files: Sequence[Path]) -> str:
    """Tells files, as they are now, from others: names, sizes and times of the last change."""
    digest = hashlib.sha256()
    for path in files:
        try:
            found = path.stat()
            digest.update(f"{path.name} {found.st_size} {found.st_mtime_ns}\n".encode())
        except OSError:
            digest.update(f"{path.name}\n".encode())
    return digest.hexdigest()


def _save(path: Path, part: _Part, stamp: str) -> None:
    """Writes a part whole or not at all."""
    about = {"stamp": stamp, "lines": json.dumps(part.lines), "damaged": json.dumps(part.damaged)}
    columns = {key: value.contiguous() for key, value in part.columns.items()}
    with whole_file(path) as partial:
        partial.write_bytes(safetensors.torch.save(columns, about))


def _load(path: Path, stamp: str) -> _Part | None:
    """Reads a kept part; None where there is none of these files."""
    if not path.is_file():
        return None
    with safetensors.safe_open(path, "pt") as file:
        about = file.metadata()
        if about["stamp"] != stamp:
            return None
        columns = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - no mapping
    return _Part(columns, json.loads(about["lines"]), json.loads(about["damaged"]))
