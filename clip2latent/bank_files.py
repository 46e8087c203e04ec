"""The files of banks: a block of latents and embeddings each, whole or not there."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor


def write_block(path: Path, latents: Tensor, embeddings: Tensor) -> None:
    """Writes latents [b, L, D] and embeddings [b, E]; a latent of equal rows, as of w, is kept as one row.

    Where the folder cannot be written, a warning is given.
    """
    equal = bool((latents == latents[:, :1]).all())
    tensors = {"latents": latents[:, :1] if equal else latents, "embeddings": embeddings}
    tensors = {name: tensor.contiguous() for name, tensor in tensors.items()}
    _replaced(path, lambda partial: safetensors.torch.save_file(tensors, partial))


def read_block(path: Path, shape: tuple[int, int, int], width: int) -> tuple[Tensor, Tensor] | None:
    """Returns latents [b, L, D] of the shape given and embeddings [b, E], or None for a file missing or damaged."""
    rows, per_latent, size = shape
    try:
        tensors = safetensors.torch.load_file(path)
        latents, embeddings = tensors["latents"], tensors["embeddings"]
    except (OSError, KeyError, safetensors.SafetensorError):
        return None
    fits = latents.shape in ((rows, per_latent, size), (rows, 1, size)) and embeddings.shape == (rows, width)
    if not fits or any(tensor.dtype != torch.float32 for tensor in (latents, embeddings)):
        return None
    return latents.expand(rows, per_latent, size), embeddings


def write_record(path: Path, record: dict[str, Any]) -> None:
    """Writes plain types as JSON where there is no such file yet."""
    if not path.exists():
        text = json.dumps(record, indent=1, default=str) + "\n"
        _replaced(path, lambda partial: partial.write_text(text, encoding="utf-8"))


def _replaced(path: Path, write: Callable[[Path], Any]) -> None:
    """Writes a file beside its place and renames it."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            write(partial)
            os.replace(partial, path)
        finally:
            partial.unlink(missing_ok=True)
    except (OSError, safetensors.SafetensorError) as error:
        # One text for all files of a folder: Python shows a warning once.
        reason = getattr(error, "strerror", None) or error
        warnings.warn(f"a bank cannot be kept in {path.parent}: {reason}", stacklevel=2)
