"""Output folders: chosen before the work, filled after it, complete or not there; and what results rest on."""

from __future__ import annotations

import functools
import importlib.metadata
import json
import os
import platform
import re
import shutil
import subprocess
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import clip2latent

PACKAGES = ("torch", "open-clip-torch", "dalle2-pytorch", "pytorch-lightning", "numpy", "pillow", "safetensors")


def slug(text: str, limit: int = 48) -> str:
    """Returns a file name part for any text: lower-case ASCII letters, digits and hyphens, 1 to `limit` characters."""
    plain = unicodedata.normalize("NFKD", text[:1000]).encode("ascii", "ignore").decode().lower()
    return re.sub(r"[^a-z0-9]+", "-", plain)[:limit].strip("-") or "prompt"


def choose_folder(out: Path | str | None, name: str, overwrite: bool = False) -> Path:
    """Returns the folder that results will go to, without making it.

    Args:
        out: the folder the user named; None for the first free outputs/<name>-<number>.
        name: a safe name part.
        overwrite: accept a folder that holds files.

    Raises:
        ValueError: where the folder holds files and must not be overwritten, or cannot be written.
    """
    if out is None:
        taken = (Path("outputs") / f"{name}-{number}" for number in range(1, 10**9))
        folder = next(path for path in taken if not path.exists())
    else:
        folder = Path(out)
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"output folder {folder} is a file: give another name")
    if folder.is_dir() and any(folder.iterdir()) and not overwrite:
        raise ValueError(f"output folder {folder} exists and is not empty: give another name or --overwrite")
    parent = next(path for path in [folder, *folder.absolute().parents] if path.exists())
    if not parent.is_dir() or not os.access(parent, os.W_OK | os.X_OK):
        raise ValueError(f"output folder {folder} cannot be made: {parent} is not a folder one may write to")
    return folder


@contextmanager
def filled(folder: Path, record: str) -> Iterator[Path]:
    """Gives a temporary folder beside `folder` and renames it to `folder` when the block ends well.

    Where `folder` already holds files, the new ones are moved in; of the old ones only those go that an earlier record
    lists under "files".

    Args:
        folder: an output folder from `choose_folder`.
        record: name of the json file, written by the block, that lists the folder's files.
    """
    folder = folder.absolute()
    folder.parent.mkdir(parents=True, exist_ok=True)
    staging = folder.with_name(f".{folder.name[:80]}.{os.getpid()}.partial")
    staging.mkdir()
    try:
        yield staging
        if folder.is_dir() and any(folder.iterdir()):
            _replace_files(staging, folder, record)
        else:
            if folder.is_dir():
                folder.rmdir()
            staging.rename(folder)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Gives a path beside a file's, which becomes the file when the block ends: whole at any time, or not there."""
    partial = path.with_name(f".{path.name}.partial")
    try:
        yield partial
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def write_json(path: Path, record: dict[str, Any]) -> None:
    """Writes plain types as readable json (no NaN: a number that does not exist is null)."""
    path.write_text(json.dumps(record, indent=2, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")


def provenance() -> dict[str, Any]:
    """Returns what made a result: versions of the program, of Python and of the packages, and the commit, if known."""
    versions = {"clip2latent": clip2latent.__version__, "python": platform.python_version()}
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return {"versions": versions, "commit": _commit()}


def device_name(device: Any) -> str:
    """Names a `torch.device` as results record it: the GPU's own name, or cpu."""
    import torch

    return torch.cuda.get_device_name(device) if device.type == "cuda" else str(device.type)


@functools.cache
def _commit() -> str | None:
    """The commit of the checkout that tracks this package, "+changes" if files differed when first asked, or None."""
    package = Path(__file__).parent

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(package), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()

    try:
        git("ls-files", "--error-unmatch", Path(__file__).name)
        return git("rev-parse", "HEAD") + ("+changes" if git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.SubprocessError):
        return None


def _replace_files(staging: Path, folder: Path, record: str) -> None:
    try:
        old = json.loads((folder / record).read_text(encoding="utf-8"))["files"]
    except (OSError, ValueError, KeyError, TypeError):
        old = []
    new = {path.name for path in staging.iterdir()}
    # The record moves last: a folder whose record is new is complete.
    for path in sorted(staging.iterdir(), key=lambda path: path.name == record):
        os.replace(path, folder / path.name)
    for name in old:
        if isinstance(name, str) and name not in new and Path(name).name == name:
            (folder / name).unlink(missing_ok=True)
