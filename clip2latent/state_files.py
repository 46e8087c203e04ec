"""States of long runs on disk: a json file that people can read, and the tensors that the run goes on from."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import safetensors
import safetensors.torch
from torch import Tensor

from clip2latent.outputs import whole_file, write_json


class Kept(NamedTuple):
    """What `write_state` wrote: plain types, and tensors by name."""

    record: dict[str, Any]
    tensors: dict[str, Tensor]


def files_of(name: str) -> tuple[str, str]:
    """Returns the names of a run's two files: NAME.json, NAME.safetensors."""
    return f"{name}.json", f"{name}.safetensors"


def write_state(folder: Path, name: str, record: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
    """Writes a run's two files into a folder, which is made; each file is whole at any time.

    Args:
        folder: where its results go.
        name: of the files, see `files_of`.
        record: plain types; the files' names join it.
        tensors: on any device, none of which share memory.
    """
    folder.mkdir(parents=True, exist_ok=True)
    readable, state = files_of(name)
    held = {key: tensor.detach().cpu().contiguous() for key, tensor in tensors.items()}
    for file, write in (
        (state, lambda path: safetensors.torch.save_file(held, path)),
        (readable, lambda path: write_json(path, {**record, "files": [readable, state]})),
    ):
        with whole_file(folder / file) as partial:
            write(partial)


def read_state(folder: Path | str, name: str, what: str) -> Kept:
    """Reads what `write_state` wrote.

    Args:
        folder: where it wrote.
        name: of the files.
        what: the kind of run, for messages, such as "refinement".

    Raises:
        FileNotFoundError: where a file is missing.
        ValueError: for damaged files.
    """
    folder = Path(folder)
    for file in files_of(name):
        if not (folder / file).is_file():
            raise FileNotFoundError(f"no {what} to go on with in {folder}: it has no {file}")
    readable, state = files_of(name)
    try:
        record = json.loads((folder / readable).read_text(encoding="utf-8"))
        if not isinstance(record, dict):
            raise ValueError(f"{readable} holds no record")
        return Kept(record, safetensors.torch.load_file(folder / state))
    except (ValueError, safetensors.SafetensorError) as error:
        raise ValueError(f"the {what} in {folder} cannot be read: {str(error) or type(error).__name__}") from error


def check_models(
    recorded: Mapping[str, Any], found: Mapping[str, Any], folder: Path | str, what: str, remedy: str
) -> None:
    """Raises ValueError where a model is not the one that a run began with.

    Args:
        recorded: descriptions of models by name, as the run's record has them.
        found: those that are loaded now.
        folder: of the run.
        what: the kind of run.
        remedy: what the message says to do.
    """
    for name in recorded.keys() & found.keys():
        hashes = [(record.get(name) or {}).get("sha256") for record in (recorded, found)]
        if all(hashes) and hashes[0] != hashes[1]:
            raise ValueError(
                f"the {what} in {folder} began with another {name} (sha256 {hashes[0][:12]}, here {hashes[1][:12]}):"
                f" {remedy}"
            )


def clear_state(folder: Path, name: str) -> None:
    """Removes a run's two files, where they are."""
    for file in files_of(name):
        (folder / file).unlink(missing_ok=True)
