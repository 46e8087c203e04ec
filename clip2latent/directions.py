"""Edit directions as files: read from what people have, written with a description, and those of the embedded demo."""

from __future__ import annotations

import json
import pickle
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.torch
import torch
from torch import Tensor

from clip2latent.assets import FOLDER

METADATA_KEY = "clip2latent"
BUILT_IN = FOLDER / "demo-directions"


@dataclass(frozen=True)
class Direction:
    """A direction in latent space.

    Attributes:
        vector: [1, D] for all rows alike, or [L, D]; strength 1 adds it once.
        description: what is known of it, plain types: name, prompts, separation, generator.
    """

    vector: Tensor
    description: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.vector.ndim != 2 or not self.vector.is_floating_point() or not self.vector.isfinite().all():
            raise ValueError(f"vector: expected finite numbers [1, D] or [L, D], got {list(self.vector.shape)}")

    def is_of(self, generator: Mapping[str, Any] | None) -> bool:
        """Tells whether a generator's description may be that of the one the direction was found in."""
        hashes = [(spec or {}).get("sha256") for spec in (self.description.get("generator"), generator)]
        return not all(hashes) or hashes[0] == hashes[1]


def built_in_directions() -> list[str]:
    """Returns the names of the embedded demo's directions, each a source of `load_direction`."""
    return sorted(path.stem for path in BUILT_IN.glob("*.safetensors"))


def load_direction(source: str | Path) -> Direction:
    """Reads a direction; nothing in the file is run.

    Args:
        source: a name of `built_in_directions`, or a file of one tensor, [D], [1, D], [L, D] or [1, L, D]:
            .safetensors (with our description or without), .npy, or .pt / .pth.

    Raises:
        ValueError: for another kind of file, a damaged one, and one that holds more than a tensor.
        FileNotFoundError: where there is neither such a name nor such a file.
    """
    path = Path(source)
    if str(source) in built_in_directions():
        path = BUILT_IN / f"{source}.safetensors"
    if not path.is_file():
        known = ", ".join(built_in_directions())
        raise FileNotFoundError(f"no direction {str(source)!r}: give a .safetensors, .npy or .pt file, or of {known}")
    readers = {".safetensors": _read_safetensors, ".npy": _read_npy, ".pt": _read_torch, ".pth": _read_torch}
    if path.suffix not in readers:
        raise ValueError(f"direction {path}: expected a file that ends in {', '.join(readers)}")
    try:
        values, description = readers[path.suffix](path)
    except (*_DAMAGE, safetensors.SafetensorError, pickle.UnpicklingError) as error:
        reason = (str(error).splitlines() or [""])[0] or type(error).__name__
        raise ValueError(f"direction {path} cannot be read: {reason}") from error
    if not isinstance(values, Tensor) or values.layout != torch.strided:
        raise ValueError(f"direction {path}: expected one dense tensor in the file, got {type(values).__name__}")
    vector = values[0] if values.ndim == 3 and len(values) == 1 else values
    vector = vector[None] if vector.ndim == 1 else vector
    if vector.ndim != 2 or not vector.numel() or vector.is_complex() or not vector.float().isfinite().all():
        raise ValueError(f"direction {path}: expected finite numbers [1, D] or [L, D], got {list(values.shape)}")
    return Direction(vector.float().clone(), {"name": path.stem, **description})


def parse_directions(text: str) -> list[tuple[str, float]]:
    """Returns the sources and strengths of a text such as "smile=1.5,my.npy=-2"; a strength left out is 1.

    Raises:
        ValueError: for a strength that is not a number.
    """
    found = []
    for part in filter(None, map(str.strip, text.split(","))):
        source, equals, number = part.rpartition("=")
        try:
            found.append((source.strip(), float(number)) if equals else (part, 1.0))
        except ValueError:
            raise ValueError(f"directions: {part!r}: expected NAME=NUMBER or FILE=NUMBER, such as smile=1.5") from None
    return found


_DAMAGE = (RuntimeError, OSError, EOFError, LookupError, TypeError, ValueError)


def save_direction(direction: Direction, path: Path | str, overwrite: bool = False) -> Path:
    """Writes a direction with its description, whole or not at all, and returns the path.

    Raises:
        ValueError: where the path does not end in .safetensors, or the file is there and must not be overwritten.
    """
    path = check_new_direction(path, overwrite)
    path.parent.mkdir(parents=True, exist_ok=True)
    # One key, so that equal directions are equal bytes: safetensors writes several in any order.
    metadata = {METADATA_KEY: json.dumps(direction.description, ensure_ascii=False, sort_keys=True)}
    content = safetensors.torch.save({"direction": direction.vector.float().contiguous().cpu()}, metadata)
    temporary = path.with_name(f".{path.name}.partial")
    try:
        temporary.write_bytes(content)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return path


def check_new_direction(path: Path | str, overwrite: bool = False) -> Path:
    """Returns the path of a direction to be written.

    Raises:
        ValueError: where it does not end in .safetensors, or is there and must not be overwritten.
    """
    path = Path(path)
    if path.suffix != ".safetensors":
        raise ValueError(f"out: expected a name that ends in .safetensors, got {str(path)!r}")
    if path.exists() and not overwrite:
        raise ValueError(f"{path} exists: give another name or --overwrite")
    return path


def _read_safetensors(path: Path) -> tuple[Any, dict[str, Any]]:
    with safetensors.safe_open(path, framework="pt") as file:
        keys, metadata = list(file.keys()), file.metadata() or {}
        if len(keys) != 1:
            raise ValueError(f"expected one tensor, got {len(keys)}")
        description = json.loads(metadata.get(METADATA_KEY, "{}"))
        if not isinstance(description, dict):
            raise ValueError("its description is not a mapping")
        return file.get_tensor(keys[0]), description


def _read_npy(path: Path) -> tuple[Any, dict[str, Any]]:
    return torch.from_numpy(np.load(path, allow_pickle=False)), {}


def _read_torch(path: Path) -> tuple[Any, dict[str, Any]]:
    content = torch.load(path, map_location="cpu", weights_only=True)
    if isinstance(content, dict) and len(content) == 1:
        content = next(iter(content.values()))
    return content, {}
