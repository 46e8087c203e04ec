"""Where a model comes from and what its licence is, or where to look that up, as far as its specification tells."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from clip2latent.assets import names
from clip2latent.downloads import is_remote, shown
from clip2latent.spec import ModelSpec

OWN = "Apache-2.0, trained on pictures that clip2latent draws itself"
NVIDIA = (
    "NVIDIA's own licence, for non-commercial use: see the LICENSE of https://github.com/NVlabs/stylegan2-ada-pytorch"
    " or https://github.com/NVlabs/stylegan3, and the page the file was published on"
)
_NVIDIA_HOSTS = ("api.ngc.nvidia.com", "nvlabs-fi-cdn.nvidia.com")
_UNKNOWN = "not recorded: look it up where the weights were published"


class Origin(NamedTuple):
    """What may be said in public about a model.

    Attributes:
        name: how it is called, without folders of this machine.
        licence: its licence, or where to look it up.
        local: it is named by a path, so that others must put the same files there.
    """

    name: str
    licence: str
    local: bool = False


def origin_of(spec: ModelSpec) -> Origin:
    """Tells where a generator or an embedder comes from; touches no network."""
    arguments = spec.init_args
    for key in ("weights", "pretrained", "model", "source"):
        value = arguments.get(key)
        if isinstance(value, str) and Path(value).exists() and value not in (*names(), "demo"):
            return _of_path(Path(value))
    source = arguments.get("source")
    if isinstance(source, str):
        return _of_source(source)
    if isinstance(arguments.get("model"), str):
        return _of_open_clip(arguments)
    return Origin(spec.class_path, _UNKNOWN)


def _of_source(source: str) -> Origin:
    if source in (*names(), "demo"):
        return Origin(f"{source}, embedded in clip2latent", OWN)
    if not is_remote(source):
        return _of_path(Path(source))
    name = shown(source)
    if source.lower().startswith("hf://"):
        owner, repository = source[5:].split("/")[:2]
        return Origin(name, f"see https://huggingface.co/{owner}/{repository.partition('@')[0]}")
    host = urlsplit(name).hostname or ""
    return Origin(name, NVIDIA if host in _NVIDIA_HOSTS else f"{_UNKNOWN} ({host})")


def _of_path(path: Path) -> Origin:
    """A file or a folder, which may say where it was converted from."""
    record: Any = {}
    if (path / "config.json").is_file():
        try:
            record = json.loads((path / "config.json").read_text(encoding="utf-8")).get("source")
        except (ValueError, AttributeError):
            record = {}
    if not isinstance(record, dict) or not record.get("name"):
        return Origin(path.name, _UNKNOWN, local=True)
    before = str(record["name"])
    if before in names() or is_remote(before):
        name, licence, _ = _of_source(before)
        return Origin(f"{path.name}, converted from {name}", licence, local=True)
    known = f"{Path(before).name} (sha256 {record.get('sha256') or 'unknown'})"
    return Origin(f"{path.name}, converted from {known}", str(record.get("licence") or _UNKNOWN), local=True)


def _of_open_clip(arguments: dict[str, Any]) -> Origin:
    model, tag = arguments["model"], arguments.get("pretrained")
    if model.startswith("hf-hub:"):
        return Origin(model, f"see https://huggingface.co/{model.removeprefix('hf-hub:')}")
    name = f"open_clip {model}" + (f", {tag}" if tag else "")
    if tag == "openai":
        return Origin(name, "see https://github.com/openai/CLIP, which publishes the weights")
    return Origin(name, "see https://github.com/mlfoundations/open_clip, whose list of weights links their pages")
