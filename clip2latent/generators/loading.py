"""From whatever people have to a generator: finds the files of a source, tells what they are, and builds strictly.

| source                                         | architecture and arguments come from         |
|------------------------------------------------|----------------------------------------------|
| name of an embedded generator, folder          | config.json beside the weights               |
| network pickle of StyleGAN2 or StyleGAN3 (.pkl) | the file                                     |
| state dict (.pth, .pt, .bin, .ckpt, .safetensors) | `family` and its arguments, or a `preset`  |

A folder holds config.json with model.safetensors (written by `convert`) or with pytorch_model.bin (the package
pytorch-pretrained-biggan). Each may be local, an http(s) address or on the Hub, as hf://owner/name/file.
"""

from __future__ import annotations

import importlib
import inspect
import json
import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from clip2latent.assets import locate
from clip2latent.downloads import cached_file, check_sha256, is_remote, sibling
from clip2latent.generators.nvidia_pickle import read_network_pickle
from clip2latent.generators.official import build_loaded, check_state
from clip2latent.spec import ModelSpec

# Of each family, a tensor that the official state dict has and no other family's.
FAMILIES = {
    "stylegan2": "synthesis.b4.conv1.weight",
    "stylegan3": "synthesis.input.affine.weight",
    "biggan": "blocks.0.0.bn1.gain.weight",
    "biggan_deep": "generator.gen_z.weight_orig",
    "sagan": "linear0.weight_orig",
}
OWN_WEIGHTS, PRETRAINED_BIGGAN_WEIGHTS = "model.safetensors", "pytorch_model.bin"
_DAMAGE = (RuntimeError, OSError, EOFError, LookupError, TypeError, ValueError)  # what torch.load makes of it
TORCH_ZIP, TORCH_LEGACY = b"PK\x03\x04", b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19"


class Files(NamedTuple):
    """What a source consists of.

    Attributes:
        weights: the file that holds the tensors.
        config: the contents of config.json beside it; None for a file that stands alone.
        remote: came from the network, and may therefore name this package's classes only.
    """

    weights: Path
    config: dict[str, Any] | None
    remote: bool


def find(source: str, sha256: str | None = None, offline: bool | None = None) -> Files:
    """Finds the files of a source, and downloads what is not here yet.

    Raises:
        FileNotFoundError: there are none; says what was looked for.
        ValueError: config.json is of no known layout, or the weights have another hash than sha256.
    """
    remote = is_remote(source)
    if remote and not re.search(r"/config\.json(@[^/]*)?$", source.partition("?")[0]):
        return Files(cached_file(source, sha256, offline), None, True)
    if not remote and Path(source).is_file() and Path(source).name != "config.json":
        return Files(_checked(Path(source), sha256), None, False)
    if remote:
        path = cached_file(source, None, offline)
        config = _read_config(path)
        return Files(cached_file(sibling(source, _weights_name(config, path)), sha256, offline), config, True)
    folder = Path(source).parent if Path(source).is_file() else _folder(source)
    config = _read_config(folder / "config.json")
    weights = folder / _weights_name(config, folder / "config.json")
    if not weights.is_file():
        raise FileNotFoundError(f"source: {folder} has a config.json but no {weights.name}, which it needs")
    return Files(_checked(weights, sha256), config, False)


def build(
    files: Files, family: str | None = None, preset: str | None = None, arguments: Mapping[str, Any] | None = None
) -> nn.Module:
    """Builds the generator of a source's files, in eval mode and frozen.

    Args:
        files: of `find`.
        family: one of `FAMILIES`, where the files do not say.
        preset: a family's known configuration, where the files do not say.
        arguments: of the constructor; they add to what the files or the preset say.

    Raises:
        ValueError: the architecture is unknown or contradictory, an argument does not fit, or the weights do not fit
            the architecture (lists the keys).
    """
    weights, config, arguments = files.weights, files.config, dict(arguments or {})
    if config is not None and "class_path" in config:
        _refuse_choice(weights.parent, family, preset)
        return _from_folder(files, arguments)
    if config is not None:
        _refuse_choice(weights.parent, None if family == "biggan_deep" else family, preset)
        return _from_official("biggan_deep", read_state(weights), _join(config, arguments, weights), weights)
    if _kind(weights) == "network pickle":
        network = read_network_pickle(weights)
        _refuse_choice(weights, None if family == network.family else family, preset)
        return _from_official(network.family, network.state, _join(network.arguments, arguments, weights), weights)
    state = read_state(weights)
    if preset is not None:
        family, known = find_preset(preset, family)
        arguments = {**known, **arguments}
    if family is None:
        raise ValueError(
            f"source: {weights} is a state dict, which does not say its architecture{_guess(state)}: give family (one"
            f" of {', '.join(FAMILIES)}) with its constructor's arguments, or preset (one of {', '.join(presets())})"
        )
    return _from_official(family, state, arguments, weights)


def presets() -> list[str]:
    """Names of all families' presets."""
    return sorted(name for family in FAMILIES for name in getattr(family_module(family), "PRESETS", {}))


def find_preset(preset: str, family: str | None = None) -> tuple[str, dict[str, Any]]:
    """Returns a preset's family and arguments.

    Raises:
        ValueError: there is none of this name, or it is of another family.
    """
    for name in FAMILIES:
        known = getattr(family_module(name), "PRESETS", {})
        if preset in known and family in (None, name):
            return name, dict(known[preset])
    of = f" of family {family!r}" if family else ""
    raise ValueError(f"preset: there is no {preset!r}{of}; there are {', '.join(presets())}")


def family_module(family: str) -> ModuleType:
    """Imports a family's file.

    Raises:
        ValueError: there is no such family.
    """
    if family not in FAMILIES:
        raise ValueError(f"family: expected one of {', '.join(FAMILIES)}, got {family!r}")
    return importlib.import_module(f"clip2latent.generators.{family}")


def read_state(path: Path) -> dict[str, Tensor]:
    """Reads a state dict from a safetensors file or from PyTorch's format, tensors and plain types only.

    Raises:
        ValueError: the file is neither, is damaged, or holds more than tensors and plain types.
    """
    kind = _kind(path)
    try:
        if kind == "safetensors":
            # Copies lie aligned in memory, as torch.load's tensors do: singular values, sums whose last bit depends on
            # that, become the same from every kind of file.
            return {name: tensor.clone() for name, tensor in safetensors.torch.load_file(path).items()}
        content = torch.load(path, map_location="cpu", weights_only=True) if kind == "torch" else None
    except (safetensors.SafetensorError, pickle.UnpicklingError, *_DAMAGE) as error:
        reason = " ".join(str(error).split())[:300]
        raise ValueError(
            f"source: {path} is damaged, or holds more than tensors and plain types, which is not read: {reason}"
        ) from None
    if isinstance(content, dict) and isinstance(content.get("state_dict"), dict):
        content = content["state_dict"]
    if not isinstance(content, dict) or not content or not all(isinstance(value, Tensor) for value in content.values()):
        found = f"a dict of {[str(key)[:40] for key in content][:8]}" if isinstance(content, dict) else kind
        raise ValueError(
            f"source: {path}: expected a state dict, names to tensors, alone or under 'state_dict'; found {found}."
            " Save the generator's state_dict() alone, or convert the file with its own project's tools"
        )
    prefix = "module."  # of torch.nn.DataParallel
    wrapped = all(name.startswith(prefix) for name in content)
    return {name.removeprefix(prefix) if wrapped else name: tensor for name, tensor in content.items()}


def _kind(path: Path) -> str:
    """What a file is, by its first bytes."""
    with path.open("rb") as stream:
        head = stream.read(64)
    # The length of the json header stands first; its lowest byte may be that of a pickle.
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") < path.stat().st_size:
        return "safetensors"
    if head.startswith((TORCH_ZIP, TORCH_LEGACY)):
        return "torch"
    if head[:1] == b"\x80":
        return "network pickle"
    seen = {b"<": "a web page (an address that asks for a login?)", b"version https://git-lfs": "a Git LFS pointer"}
    found = next((what for start, what in seen.items() if head.lstrip().startswith(start)), f"bytes {head[:8]!r}")
    raise ValueError(
        f"source: {path} begins as no known format does: expected a network pickle, a PyTorch file or safetensors,"
        f" found {found if head else 'an empty file'}"
    )


def _from_folder(files: Files, arguments: dict[str, Any]) -> nn.Module:
    class_path = str(files.config["class_path"])
    ours = class_path.startswith("clip2latent.generators.")
    if files.remote and not ours:
        raise ValueError(
            f"source: the downloaded config.json names {class_path!r}, which is not a class of this package: download"
            " the folder yourself, and give its path, if you trust it"
        )
    spec = ModelSpec(class_path, {**(files.config.get("init_args") or {}), **arguments})
    state = read_state(files.weights)
    try:
        if ours:
            return build_loaded(spec.build, state)
        module = spec.build()
        check_state(state, module.state_dict(), class_path)
    except (TypeError, ValueError) as error:
        raise ValueError(f"source: {files.weights.parent}: {error}") from error
    module.load_state_dict(state)
    return module.eval().requires_grad_(False)


def _from_official(family: str, state: dict[str, Tensor], arguments: dict[str, Any], path: Path) -> nn.Module:
    from_official = family_module(family).from_official
    try:
        inspect.signature(from_official).bind(state, **arguments)
        module = from_official(state, **arguments)
    except (TypeError, ValueError) as error:
        raise ValueError(f"source: {path} as {family} with {arguments}: {error}") from error
    return module.eval().requires_grad_(False)


def _join(said: Mapping[str, Any], given: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """What a file says and what the caller adds."""
    for name in said.keys() & given.keys():
        if said[name] != given[name]:
            raise ValueError(f"{name}: {given[name]!r} was given, but {path} says {said[name]!r}: leave it out")
    return {**said, **given}


def _refuse_choice(path: Path, family: str | None, preset: str | None) -> None:
    for name, value in (("family", family), ("preset", preset)):
        if value is not None:
            raise ValueError(f"{name}: {value!r} was given, but {path} says its architecture itself: leave it out")


def _guess(state: Mapping[str, Tensor]) -> str:
    family = next((name for name, key in FAMILIES.items() if key in state), None)
    return f" (by its names it looks like {family})" if family else f" (it holds {', '.join(list(state)[:3])}, ...)"


def _folder(source: str) -> Path:
    try:
        return locate(source)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{error}; nor is it a file, an http(s) address or hf://owner/name/file") from None


def _read_config(path: Path) -> dict[str, Any]:
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"source: {path} is not json: {error}") from None
    if not isinstance(config, dict):
        raise ValueError(f"source: {path}: expected an object, found {type(config).__name__}")
    return config


def _weights_name(config: Mapping[str, Any], path: Path) -> str:
    if "class_path" in config:
        return OWN_WEIGHTS
    if {"layers", "attention_layer_position"} <= config.keys():
        return PRETRAINED_BIGGAN_WEIGHTS
    raise ValueError(
        f"source: {path}: expected the keys class_path and init_args, or those of pytorch-pretrained-biggan; found"
        f" {', '.join(sorted(config)[:8]) or 'none'}"
    )


def _checked(path: Path, sha256: str | None) -> Path:
    if sha256:
        check_sha256(path, sha256)
    return path
