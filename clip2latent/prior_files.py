"""Where a trained prior's files are: the embedded one, a path, an address or a folder on the Hub."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

from clip2latent.assets import asset
from clip2latent.downloads import cached_file, is_remote, shown

DEMO = "demo"
CONFIG, WEIGHTS = "config.json", "model.safetensors"
_HUB_FOLDER = re.compile(r"(?:hf://)?([\w-][\w.-]*)/([\w-][\w.-]*?)(?:@([\w./-]+))?", re.IGNORECASE)
_COMMIT = re.compile(r"[0-9a-f]{40}")
EXPECTED = "a .ckpt file, an exported folder, owner/name on the Hugging Face Hub, an address of a .ckpt file, or 'demo'"


class PriorFiles(NamedTuple):
    """A prior's files on this machine.

    Attributes:
        path: a checkpoint file, or a folder with config.json and model.safetensors.
        name: the source as it may stand in messages.
        remote: came from the network, and may therefore name this package's classes only.
    """

    path: Path
    name: str
    remote: bool


def find_prior(source: str | Path) -> PriorFiles:
    """Finds a prior's files, and downloads what is not here yet.

    Args:
        source: "demo" for the embedded one; a path of a file or folder; owner/name[@revision] of a folder that `push`
            put on the Hub, with or without hf:// before it; http(s)://... or hf://owner/name/file of a .ckpt file. A
            path that exists is never looked for elsewhere.

    Raises:
        FileNotFoundError: there is no such path, and nothing of that name on the Hub either; or it must not be
            downloaded.
        OSError: the download failed.
    """
    text, path = str(source), Path(source)
    if text == DEMO:
        return PriorFiles(asset("demo-prior"), text, False)
    if not is_remote(text) and path.exists():
        return PriorFiles(path, text, False)
    hub = _HUB_FOLDER.fullmatch(text)
    if hub and not text.endswith((".ckpt", ".pt", ".pth", ".safetensors")):
        return PriorFiles(_hub_folder(*hub.groups(), text), text, True)
    if is_remote(text):
        return PriorFiles(cached_file(text), shown(text), True)
    raise FileNotFoundError(f"checkpoint {path} does not exist: name {EXPECTED}")


def _hub_folder(owner: str, name: str, revision: str | None, source: str) -> Path:
    """Fetches both files of one commit: the weights are asked for at the commit that config.json came from."""
    folder = f"hf://{owner}/{name}"
    try:
        config = cached_file(f"{folder}/{CONFIG}" + (f"@{revision}" if revision else ""))
        commit = config.parent.name
        at = commit if _COMMIT.fullmatch(commit) else revision
        weights = cached_file(f"{folder}/{WEIGHTS}" + (f"@{at}" if at else ""))
    except OSError as error:
        if is_remote(source):
            raise
        raise FileNotFoundError(f"checkpoint {source} does not exist here; on the Hub: {error}") from None
    if weights.parent != config.parent:
        raise ValueError(f"checkpoint {source}: {config} and {weights} are not of one revision: name a revision, @...")
    return config.parent
