"""Latents as results keep them: read from what `generate` and the edits wrote, and written so that edits go on."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import safetensors
import safetensors.torch
from PIL import Image
from torch import Tensor

from clip2latent.images import save_png, to_pil
from clip2latent.outputs import filled, provenance, slug, write_json

LATENTS, RECORD = "latents.safetensors", "results.json"


class Saved(NamedTuple):
    """Latents and what is known of them.

    Attributes:
        labels: P texts, the prompts or what was made of them.
        latents: [P, N, L, D], best first within each prompt.
        checkpoint: what they were made with, where that is known.
        generator: the description of their generator, where that is known.
    """

    labels: list[str]
    latents: Tensor
    checkpoint: str | None
    generator: dict[str, Any] | None


def is_saved(source: str) -> bool:
    """Tells a folder of results, or a file of latents, from a prompt: by its ending, or by being such a folder."""
    # os.path takes texts of any length.
    return source.endswith(".safetensors") or os.path.isfile(os.path.join(source, LATENTS))


def read_saved(source: Path | str) -> Saved:
    """Reads a folder of results, or a file of latents with or without its results.json beside it.

    Raises:
        FileNotFoundError: where there are no latents.
        ValueError: for files that are damaged or hold something else.
    """
    path = Path(source)
    path = path / LATENTS if path.is_dir() else path
    if not path.is_file():
        raise FileNotFoundError(f"no latents {path}: name a folder that generate wrote, or its {LATENTS}")
    try:
        latents = safetensors.torch.load_file(path).get("latents")
    except (safetensors.SafetensorError, OSError) as error:
        raise ValueError(f"{path} cannot be read: {str(error).splitlines()[0]}") from error
    if latents is None or latents.ndim not in (3, 4) or not latents.numel() or not latents.isfinite().all():
        raise ValueError(f"{path}: expected finite latents [P, N, L, D] or [B, L, D] under the key 'latents'")
    latents = latents.float() if latents.ndim == 4 else latents.float()[:, None]
    record = _record(path.with_name(RECORD))
    labels = record.get("prompts")
    if not isinstance(labels, list) or len(labels) != len(latents):
        labels = [f"{path.stem} {number}" for number in range(len(latents))]
    options, models = (record.get(key) if isinstance(record.get(key), dict) else {} for key in ("options", "models"))
    checkpoint, generator = options.get("checkpoint"), models.get("generator")
    return Saved(
        [str(label) for label in labels],
        latents,
        checkpoint if isinstance(checkpoint, str) else None,
        generator if isinstance(generator, dict) else None,
    )


def save_edited(
    folder: Path,
    labels: Sequence[str],
    latents: Tensor,
    images: Tensor,
    sheet: Image.Image,
    options: dict[str, Any],
    models: dict[str, Any],
    extras: Mapping[str, Callable[[Path], None]] | None = None,
) -> None:
    """Writes edited images to a folder, all files or none: PNGs, grid.png, results.json and latents.safetensors.

    Args:
        folder: from `choose_folder`.
        labels: P texts.
        latents: [P, N, L, D].
        images: theirs, [P, N, 3, R, R] in [-1, 1].
        sheet: what grid.png shows.
        options: what was done, plain types.
        models: the identities of the models, plain types.
        extras: further files, name -> what writes it.
    """
    entries = []
    with filled(folder, RECORD) as staging:
        for row, pictures in enumerate(map(to_pil, images)):
            for column, picture in enumerate(pictures):
                name = f"{row:03d}-{slug(labels[row])}-{column:0{len(str(len(pictures) - 1))}d}.png"
                entries.append({"file": name, "prompt": labels[row], "prompt_index": row, "number": column})
                save_png(picture, staging / name, {**entries[-1], "options": options, "models": models})
        save_png(sheet, staging / "grid.png", {"options": options, "models": models})
        for name, write in (extras or {}).items():
            write(staging / name)
        safetensors.torch.save_file({"latents": latents.contiguous().cpu()}, staging / LATENTS)
        record = {"prompts": list(labels), "options": options, "models": models, **provenance(), "images": entries}
        record["files"] = sorted([*(path.name for path in staging.iterdir()), RECORD])
        write_json(staging / RECORD, record)


def _record(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} beside the latents is not JSON: {error}") from error
    return record if isinstance(record, dict) else {}
