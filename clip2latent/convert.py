"""Writes a generator as a folder of its own: config.json and model.safetensors, which `load_generator` reads."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
from torch import nn

from clip2latent.downloads import file_sha256, shown
from clip2latent.generators import loading
from clip2latent.outputs import choose_folder, filled, write_json

CONFIG = "config.json"
LICENCE = (
    "The weights stay under the licence of their source, which this file does not know: see where they were published"
    " before you use or share them. Weights published by NVIDIA are for non-commercial use under its own licence."
)


def convert(
    source: str,
    out: Path | str,
    family: str | None = None,
    preset: str | None = None,
    sha256: str | None = None,
    arguments: Mapping[str, Any] | None = None,
    overwrite: bool = False,
) -> Path:
    """Loads a generator from any source and writes it as a folder, complete or not at all.

    Args:
        source: as for `load_generator`.
        out: the folder.
        family: as for `load_generator`.
        preset: as for `load_generator`.
        sha256: as for `load_generator`.
        arguments: of the generator's constructor; what the source does not say.
        overwrite: replace the files of a folder that holds some.

    Returns:
        The folder, with config.json ({"class_path", "init_args", "source": {"name", "sha256", "licence"}}).

    Raises:
        FileNotFoundError: as for `load_generator`.
        ValueError: as for `load_generator`; or the folder must not be overwritten, or cannot be written.
        OSError: the download failed, or the disk is full.
    """
    folder = choose_folder(out, "generator", overwrite)
    files = loading.find(source, sha256)
    generator = loading.build(files, family, preset, arguments)
    record = {"name": shown(source), "file": files.weights.name, "sha256": file_sha256(files.weights)}
    with filled(folder, CONFIG) as staging:
        save(generator, staging, {"source": {**record, "licence": LICENCE}})
    return folder


def save(generator: nn.Module, folder: Path, record: Mapping[str, Any]) -> None:
    """Writes a generator's class, arguments and weights into an existing folder.

    Args:
        generator: a module with `init_args`, the plain arguments that build its like.
        folder: gets config.json and model.safetensors.
        record: what else config.json shall say.

    Raises:
        ValueError: where the module has no init_args.
    """
    kind = type(generator)
    init_args = getattr(generator, "init_args", None)
    if init_args is None:
        raise ValueError(f"generator: a {kind.__name__} has no init_args, the arguments that build its like")
    state = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in generator.state_dict().items()}
    safetensors.torch.save_file(state, folder / loading.OWN_WEIGHTS, metadata={"format": "pt"})
    class_path = f"{kind.__module__}.{kind.__qualname__}"
    write_json(folder / CONFIG, {"class_path": class_path, "init_args": dict(init_args), **record})
