"""Strict loading of official weights into a module of the same parameter names."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar

import torch
from torch import Tensor, nn

Module = TypeVar("Module", bound=nn.Module)


def build_loaded(build: Callable[[], Module], state: Mapping[str, Tensor]) -> Module:
    """Returns `build()` with the weights of a state dict, without drawing the initial ones first.

    Args:
        build: makes the module; all its tensors must be in its state dict.
        state: tensors under the module's own names; copied, in the module's precision.

    Returns:
        The module, in eval mode and frozen.

    Raises:
        ValueError: listing missing, unexpected and mis-shaped keys.
    """
    with torch.device("meta"):
        module = build()
    expected = module.state_dict()
    check_state(state, expected, type(module).__name__)
    # A parameter's layout is the module's choice; the copy also keeps the caller's tensors out of it.
    copies = {name: state[name].detach().to(like.dtype, copy=True).contiguous() for name, like in expected.items()}
    module.load_state_dict(copies, assign=True)
    return module.eval().requires_grad_(False)


def check_state(state: Mapping[str, Tensor], expected: Mapping[str, Tensor], name: str) -> None:
    """Compares names and shapes of two state dicts.

    Raises:
        ValueError: listing missing, unexpected and mis-shaped keys.
    """
    problems = {
        "missing keys": sorted(expected.keys() - state.keys()),
        "unexpected keys": sorted(state.keys() - expected.keys()),
        "mis-shaped keys": [
            f"{key} {list(state[key].shape)} instead of {list(expected[key].shape)}"
            for key in sorted(expected.keys() & state.keys())
            if state[key].shape != expected[key].shape
        ],
    }
    if any(problems.values()):
        listed = "; ".join(f"{kind} {', '.join(keys)}" for kind, keys in problems.items() if keys)
        raise ValueError(f"state: the weights do not fit {name} of these arguments: {listed}")
