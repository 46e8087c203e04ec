"""NVIDIA's network pickles (.pkl) of StyleGAN2 and StyleGAN3, read without running anything that stands in them.

Such a file (NVlabs/stylegan3, torch_utils/persistence.py) holds the source code of its networks, which the official
loader executes. Here it is data: of the averaged generator G_ema we take the constructor's arguments and the tensors,
and build our own module from them.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from clip2latent.generators import torch_records
from clip2latent.generators.inert_pickle import Admitted, RefusedName, hashable, pairs, read_pickle
from clip2latent.generators.torch_records import NumpyArray, TensorRecord, materialise

MAX_DEPTH = 16
MAX_TENSORS = 10_000
MAX_ARGUMENTS = 10_000
MAX_INTEGER = 2**20
POSITIONAL = ("z_dim", "c_dim", "w_dim", "img_resolution", "img_channels", "mapping_kwargs", "synthesis_kwargs")
FAMILY_KEYS = {"stylegan3": "synthesis.input.affine.weight", "stylegan2": "synthesis.b4.conv1.weight"}


class Persistent(NamedTuple):
    """An object of a class that the file would define by its source: the class's name and the attributes."""

    class_name: str
    state: dict[str, Any]


class OfficialNetwork(NamedTuple):
    """A generator as a network pickle holds it.

    Attributes:
        family: "stylegan2" or "stylegan3".
        arguments: of the constructor, plain types.
        state: tensors by their official names.
    """

    family: str
    arguments: dict[str, Any]
    state: dict[str, Tensor]


def read_network_pickle(path: Path | str) -> OfficialNetwork:
    """Reads the averaged generator G_ema of an official file; what else is in it is skipped.

    Raises:
        ValueError: the file is none of PyTorch's StyleGAN2 and StyleGAN3, is damaged, or names a global that such a
            file does not need (the message names it); nothing of it was run.
    """
    try:
        with Path(path).open("rb") as stream:
            content = read_pickle(stream, _ADMITTED)
        return _network(content)
    except RefusedName as error:
        if error.name.module.split(".")[:2] == ["dnnlib", "tflib"]:
            raise ValueError(
                f"source: {path} is a TensorFlow network pickle. Convert it once with the official converter, from a"
                " checkout of https://github.com/NVlabs/stylegan3 in an environment of its own: python legacy.py"
                f" --source={Path(path).name} --dest=converted.pkl; then give converted.pkl"
            ) from None
        raise ValueError(f"source: {path}: {error}; StyleGAN2 and StyleGAN3 do not need it") from None
    except ValueError as error:
        raise ValueError(f"source: {path}: {error}") from None


def plain(value: Any) -> Any:
    """Returns numbers, texts, lists and dicts by text in place of what a pickle holds.

    Raises:
        ValueError: for anything else, and for more than a constructor's arguments can be.
    """
    return _plain(value, 0, iter(range(MAX_ARGUMENTS)))


def _plain(value: Any, depth: int, allowance: Any) -> Any:
    if depth > MAX_DEPTH or next(allowance, None) is None:
        raise ValueError("refused: the constructor's arguments are nested too deeply, or too many")
    if isinstance(value, NumpyArray):
        return _plain(value.plain(), depth + 1, allowance)
    if isinstance(value, (list, tuple)) and not hasattr(value, "_fields"):
        return [_plain(item, depth + 1, allowance) for item in value]
    if isinstance(value, dict):
        return {str(name): _plain(item, depth + 1, allowance) for name, item in value.items()}
    if isinstance(value, int) and abs(value) > MAX_INTEGER:
        raise ValueError(f"refused: {value} is too large for a constructor's argument")
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise ValueError(f"refused: a constructor's argument of type {type(value).__name__}; expected plain values")


def _ordered_dict(items: Any = ()) -> dict[Any, Any]:
    """Stands for collections.OrderedDict, which old pickles give a list of pairs."""
    flat = []
    for item in items if isinstance(items, (list, tuple)) else [None]:
        if not isinstance(item, (list, tuple)) or len(item) != 2:
            raise ValueError("damaged: an OrderedDict not made from pairs")
        flat += item
    return pairs(flat)


def _set(items: Any = ()) -> set[Any]:
    """Stands for builtins.set, by which pickle protocol 3 writes sets."""
    if not isinstance(items, (list, tuple)):
        raise ValueError("damaged: a set not made from a list")
    return set(map(hashable, items))


def _persistent(meta: Any) -> Persistent:
    """Stands for torch_utils.persistence._reconstruct_persistent_obj; its module_src is not looked at."""
    match meta:
        case {"type": "class", "class_name": str(class_name), "state": dict(state)}:
            return Persistent(class_name, state)
    raise ValueError("damaged: a persistent object without type 'class', class_name and state")


_ADMITTED = Admitted(
    functions={
        **torch_records.FUNCTIONS,
        "torch_utils.persistence._reconstruct_persistent_obj": _persistent,
        "collections.OrderedDict": _ordered_dict,
        "builtins.set": _set,
    },
    classes={"dnnlib.util.EasyDict": _ordered_dict},
    names=torch_records.NAMES,
)


def _network(content: Any) -> OfficialNetwork:
    if not isinstance(content, dict) or not isinstance(content.get("G_ema"), Persistent):
        found = (
            f"a dict of {[str(key)[:40] for key in content][:10]}"
            if isinstance(content, dict)
            else type(content).__name__
        )
        raise ValueError(f"expected a network pickle, a dict with the generator 'G_ema'; found {found}")
    generator = content["G_ema"]
    records = _tensors(generator, "", 0)
    family = next((name for name, key in FAMILY_KEYS.items() if key in records), None)
    if family is None:
        raise ValueError(
            f"G_ema is a {generator.class_name[:100]!r} with tensors such as {', '.join(list(records)[:3]) or 'none'}:"
            " neither StyleGAN2 nor StyleGAN3"
        )
    arguments = _arguments(generator)
    if family == "stylegan2":
        arguments = {**_as_saved(generator), **arguments}
    layers = arguments.get("num_layers", 0), (arguments.get("mapping_kwargs") or {}).get("num_layers", 0)
    if any(not isinstance(count, int) or count > len(records) for count in layers):
        raise ValueError(f"refused: num_layers {layers} do not fit {len(records)} tensors")
    return OfficialNetwork(family, arguments, materialise(records))


def _tensors(module: Any, prefix: str, depth: int) -> dict[str, TensorRecord]:
    """The module's state dict: its parameters and persistent buffers, then those of its children."""
    if not isinstance(module, Persistent) or depth > MAX_DEPTH:
        raise ValueError(f"damaged: {prefix or 'G_ema'} is not a module, or nested too deeply")
    parts = [module.state.get(name) for name in ("_parameters", "_buffers", "_modules")]
    if not all(isinstance(part, dict) and all(isinstance(name, str) for name in part) for part in parts):
        raise ValueError(f"damaged: {prefix or 'G_ema'} lacks a module's parameters, buffers and children")
    parameters, buffers, children = parts
    passing = module.state.get("_non_persistent_buffers_set") or ()
    buffers = {name: buffer for name, buffer in buffers.items() if name not in passing}
    found = {}
    for name, tensor in {**parameters, **buffers}.items():
        if isinstance(tensor, TensorRecord):
            found[prefix + name] = tensor
        elif tensor is not None:
            raise ValueError(f"damaged: {prefix}{name} is a {type(tensor).__name__}; expected a tensor")
    for name, child in children.items():
        found |= _tensors(child, f"{prefix}{name}.", depth + 1) if child is not None else {}
        if len(found) > MAX_TENSORS:
            raise ValueError(f"refused: more than {MAX_TENSORS} tensors")
    return found


def _arguments(generator: Persistent) -> dict[str, Any]:
    """The constructor's arguments; stylegan2-ada-pytorch nests those of the synthesis, stylegan3 does not."""
    positional, named = generator.state.get("_init_args", ()), generator.state.get("_init_kwargs", {})
    if not isinstance(positional, tuple) or len(positional) > len(POSITIONAL) or not isinstance(named, dict):
        raise ValueError("damaged: G_ema lacks its constructor's arguments")
    arguments = plain({**dict(zip(POSITIONAL, positional, strict=False)), **named})
    nested = arguments.pop("synthesis_kwargs", None) or {}
    if not isinstance(nested, Mapping) or not isinstance(arguments.get("mapping_kwargs") or {}, Mapping):
        raise ValueError("damaged: G_ema's mapping_kwargs or synthesis_kwargs are not named arguments")
    return {**nested, **arguments}


def _as_saved(generator: Persistent) -> dict[str, Any]:
    """Arguments of StyleGAN2 whose default differs between the official repositories, as the saved object has them."""
    synthesis = generator.state["_modules"]["synthesis"]
    blocks = [block.state for block in synthesis.state["_modules"].values() if isinstance(block, Persistent)]
    layer = synthesis.state["_modules"]["b4"].state["_modules"]["conv1"].state
    saved = {"conv_clamp": layer["conv_clamp"]} if "conv_clamp" in layer else {}
    if all("use_fp16" in block for block in blocks):
        saved["num_fp16_res"] = sum(bool(block["use_fp16"]) for block in blocks)
    return plain(saved)
