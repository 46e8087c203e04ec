"""Reads files that hold omegaconf's objects beside tensors, as data: inert records stand for its classes."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import torch
from torch.torch_version import TorchVersion


class Record:
    """What a file says of an object, never the object: its state, as the file gives it."""

    state: Any = None

    def __new__(cls, *_: Any) -> Record:
        """Takes any arguments and forgets them."""
        return super().__new__(cls)

    def __init__(self, *_: Any) -> None:
        """Does nothing."""

    def __setstate__(self, state: Any) -> None:
        """Keeps the state."""
        self.state = state


# What omegaconf 2 writes for a configuration: its nodes, the types they admit and its caches.
NAMES = (
    "omegaconf.dictconfig.DictConfig",
    "omegaconf.listconfig.ListConfig",
    "omegaconf.nodes.AnyNode",
    "omegaconf.base.ContainerMetadata",
    "omegaconf.base.Metadata",
    "collections.defaultdict",
    "typing.Any",
    "builtins.dict",
    "builtins.list",
    "builtins.int",
)


def load_inert(path: Path) -> Any:
    """Returns a file's tensors and plain types, and records in place of omegaconf's objects; nothing else is read.

    Records take PyTorch 2.7 or newer.

    Raises:
        pickle.UnpicklingError: and whatever else torch.load raises for files that are damaged or hold more.
    """
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if "omegaconf" not in str(error) or torch.__version__ < TorchVersion("2.7"):
            raise
    with torch.serialization.safe_globals([(Record, name) for name in NAMES]):
        return torch.load(path, map_location="cpu", weights_only=True)


def plain(value: Any) -> Any:
    """Returns plain types for the record of a configuration: its mappings, lists and values; others stay."""
    state = value.state if isinstance(value, Record) and isinstance(value.state, dict) else {}
    if "_val" in state:
        return state["_val"]
    content = state.get("_content", value)
    if isinstance(content, dict):
        return {key: plain(item) for key, item in content.items()}
    return [plain(item) for item in content] if isinstance(content, list) else content
