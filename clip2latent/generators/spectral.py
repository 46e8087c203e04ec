"""Spectral normalisation of a frozen network, baked into its weights.

While a network is frozen, weight / sigma (arXiv:1802.05957, eq. 8) is a constant. Published files hold the weight and
the singular vectors instead. Sigma must be the one that the original code uses in eval mode, which is not the exact
norm, for the stored vectors are only partly converged.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clip2latent.generators.official import check_state


def sigma_after_one_step(weight: Tensor, u: Tensor, eps: float) -> Tensor:
    """Returns sigma [] after one power iteration from u [1, O] on weight [O, ...], BigGAN-PyTorch's form."""
    matrix = weight.flatten(1)
    v = F.normalize(u @ matrix, eps=eps)
    u = F.normalize(v @ matrix.t(), eps=eps)
    return (v @ matrix.t() @ u.t()).squeeze()


def sigma_as_stored(weight: Tensor, u: Tensor, v: Tensor) -> Tensor:
    """Returns sigma [] = u^T W v of weight [O, ...], u [O] and v [rest], the form of torch.nn.utils.spectral_norm."""
    return torch.dot(u, torch.mv(weight.flatten(1), v))


def bake_after_one_step(
    state: Mapping[str, Tensor], module: nn.Module, layers: Iterable[str], eps: float
) -> dict[str, Tensor]:
    """Returns the module's own state from one that holds weight and u0 of each layer; further u and sv are ignored.

    Args:
        state: the official names.
        module: the network without spectral normalisation, possibly on the meta device.
        layers: names of the layers to normalise.
        eps: least length that vectors are divided by.

    Raises:
        ValueError: lists missing, unexpected and mis-shaped keys.
    """
    layers, expected = set(layers), module.state_dict()
    state = {name: tensor for name, tensor in state.items() if not _only_logged(name, layers)}
    vectors = {f"{layer}.u0": expected[f"{layer}.weight"].flatten(1)[:, 0][None] for layer in layers}
    check_state(state, {**expected, **vectors}, type(module).__name__)
    baked = {name: state[name].float() for name in expected}
    for layer in layers:
        weight = baked[f"{layer}.weight"]
        baked[f"{layer}.weight"] = weight / sigma_after_one_step(weight, state[f"{layer}.u0"].float(), eps)
    return baked


def bake_as_stored(state: Mapping[str, Tensor], module: nn.Module, layers: Iterable[str]) -> dict[str, Tensor]:
    """Returns the module's own state from one that holds weight_orig, weight_u and weight_v of each layer.

    Raises:
        ValueError: lists missing, unexpected and mis-shaped keys.
    """
    layers, own = set(layers), module.state_dict()
    expected = dict(own)
    for layer in layers:
        weight = expected.pop(f"{layer}.weight")
        matrix = weight.flatten(1)
        expected |= {f"{layer}.weight_orig": weight, f"{layer}.weight_u": matrix[:, 0], f"{layer}.weight_v": matrix[0]}
    check_state(state, expected, type(module).__name__)
    baked = {name: state[name] for name in own if name in state}
    for layer in layers:
        weight, u, v = (state[f"{layer}.weight_{which}"].float() for which in ("orig", "u", "v"))
        baked[f"{layer}.weight"] = weight / sigma_as_stored(weight, u, v)
    return baked


def _only_logged(name: str, layers: set[str]) -> bool:
    layer, _, last = name.rpartition(".")
    return layer in layers and last != "u0" and re.fullmatch(r"(u|sv)\d+", last) is not None
