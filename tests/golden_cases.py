"""Recorded outputs of the official code: found beside the repository, or the small ones that travel with the tests."""

import json
from pathlib import Path
from typing import NamedTuple

import pytest
from safetensors.torch import load_file
from torch import Tensor, nn

FOLDERS = (Path(__file__).parents[2] / "shared" / "golden", Path(__file__).parent / "golden")


class Case(NamedTuple):
    folder: Path
    config: dict
    weights: dict[str, Tensor]
    io: dict[str, Tensor]


def golden(name: str) -> Case:
    """Reads a case, or skips the test where it is not on this machine."""
    folder = next((root / name for root in FOLDERS if (root / name).is_dir()), None)
    if folder is None:
        pytest.skip(f"reference data {name} is not on this machine")
    config = json.loads((folder / "config.json").read_text())
    return Case(folder, config, *(load_file(folder / f"{file}.safetensors") for file in ("weights", "io")))


def recorded_outputs(module: nn.Module, prefix: str, names: list[str]) -> dict[str, Tensor]:
    """Keeps what the named submodules give: the dict is filled by each forward pass."""
    found: dict[str, Tensor] = {}
    for name in names:
        layer = module.get_submodule(name.removeprefix(prefix))
        layer.register_forward_hook(lambda _, __, output, name=name: found.__setitem__(name, output))
    return found


def as_recorded(output: Tensor, expected: Tensor) -> Tensor:
    """The recorded part of an inner output: first sample, first 4 channels, every n-th pixel."""
    stride = output.shape[-1] // expected.shape[-1]
    return output[:1, :4, ::stride, ::stride]


def normalised_in_each_pass(model: nn.Module, layers: list[nn.Module], eps: float) -> nn.Module:
    """Puts torch's own spectral norm on layers, partly converged; also where a forward pass reads the bare weight."""
    for layer in layers:
        nn.utils.spectral_norm(layer, eps=eps)

    def normalise(*_) -> None:
        for layer in layers:
            for hook in layer._forward_pre_hooks.values():
                hook(layer, None)

    model.train()
    for _ in range(2):
        normalise()
    model.register_forward_pre_hook(normalise)
    return model.eval().requires_grad_(False)
