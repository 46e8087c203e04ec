"""What every stage's training shares: a state that survives a kill, a learning-rate schedule, a log."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors.torch import save_file
from torch import Tensor, nn


class Stateful(Protocol):
    """A module, an optimiser, an average: anything with a state."""

    def state_dict(self) -> dict[str, Any]:
        """Returns the state."""
        ...

    def load_state_dict(self, state_dict: dict[str, Any]) -> Any:
        """Restores the state."""
        ...


class State:
    """The parts of a training in one file, replaced as a whole: a kill at any moment loses only the last steps."""

    def __init__(self, path: Path, settings: Mapping[str, Any], **parts: Stateful) -> None:
        """Names the file and the parts.

        Args:
            path: the file.
            settings: plain values that a resumed training must share.
            parts: by name.
        """
        self.path, self.settings, self.parts = path, dict(settings), parts

    def load(self) -> int:
        """Restores the parts and returns the number of steps they have behind them: 0 where there is no file.

        Raises:
            ValueError: where the file is of a training with other settings.
        """
        if not self.path.exists():
            return 0
        record = torch.load(self.path, map_location="cpu", weights_only=True)
        if record["settings"] != self.settings:
            raise ValueError(
                f"{self.path} is of a training with settings {record['settings']}, this one has {self.settings}:"
                " give another work folder, or remove the file"
            )
        for name, part in self.parts.items():
            part.load_state_dict(record["parts"][name])
        return record["step"]

    def save(self, step: int) -> None:
        """Writes the parts after `step` steps."""
        parts = {name: part.state_dict() for name, part in self.parts.items()}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        temporary = self.path.with_suffix(".tmp")
        torch.save({"step": step, "settings": self.settings, "parts": parts}, temporary)
        os.replace(temporary, self.path)


class Log:
    """Prints numbers and appends them to a file of JSON lines."""

    def __init__(self, path: Path) -> None:
        """Names the file, whose folder is made."""
        self.path = path
        self.begun = time.monotonic()
        path.parent.mkdir(parents=True, exist_ok=True)

    def write(self, step: int, **numbers: Any) -> None:
        """Writes one line, with the seconds since the log was opened."""
        record = {"step": step, "seconds": round(time.monotonic() - self.begun, 1)}
        record |= {name: round(value, 4) if isinstance(value, float) else value for name, value in numbers.items()}
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")
        print("  ".join(f"{name} {value}" for name, value in record.items()), flush=True)


def cosine(step: int, steps: int, warmup: int) -> float:
    """Returns the factor of the learning rate: a linear rise over `warmup` steps, then half a cosine down to 0.01."""
    if step < warmup:
        return (step + 1) / warmup
    progress = (step - warmup) / max(steps - warmup, 1)
    return 0.01 + 0.99 * (1 + math.cos(math.pi * min(progress, 1.0))) / 2


def step_rng(seed: int, step: int) -> torch.Generator:
    """Returns the generator of one step, so that a resumed training draws what an uninterrupted one would."""
    return torch.Generator().manual_seed((seed * 1_000_003 + step) % 2**63)


@torch.no_grad()
def follow(average: nn.Module, module: nn.Module, decay: float) -> None:
    """Moves an average's weights and batch statistics towards a module's by 1 - decay of the way."""
    newest = module.state_dict()
    for name, value in average.state_dict().items():
        if value.is_floating_point():
            value.lerp_(newest[name], 1 - decay)
        else:
            value.copy_(newest[name])


def save_asset(folder: Path, config: Mapping[str, Any], weights: Mapping[str, Tensor]) -> None:
    """Writes config.json and model.safetensors, floating-point weights in half precision, each file as a whole."""
    folder.mkdir(parents=True, exist_ok=True)
    half = {
        name: (value.half() if value.is_floating_point() else value).detach().cpu().contiguous()
        for name, value in weights.items()
    }
    save_file(half, folder / "model.tmp")
    (folder / "model.tmp").chmod(0o644)
    os.replace(folder / "model.tmp", folder / "model.safetensors")
    (folder / "config.tmp").write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")
    os.replace(folder / "config.tmp", folder / "config.json")
