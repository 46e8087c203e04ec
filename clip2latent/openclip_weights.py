"""Reads weights of open_clip's models from files that cannot run code, and loads them strictly."""

from __future__ import annotations

import pickle
import zipfile
from pathlib import Path

import torch
from open_clip.convert import convert_state_dict
from open_clip.model import convert_to_custom_text_state_dict
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn


def read_weights(path: Path) -> dict[str, Tensor]:
    """Reads a file of weights, safetensors or torch's own format; nothing in it can run code.

    Raises:
        FileNotFoundError: where there is no such file.
        ValueError: where it holds anything but tensors, or is damaged.
    """
    if not path.is_file():
        raise FileNotFoundError(f"the weights {path} are missing")
    if zipfile.is_zipfile(path) and any(name.endswith("/constants.pkl") for name in zipfile.ZipFile(path).namelist()):
        raise ValueError(
            f"the weights {path} are a TorchScript program, as OpenAI's own .pt files are: the tag openai downloads the"
            " same weights as safetensors"
        )
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError, KeyError, ValueError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(
            f"the weights {path} cannot be read as plain tensors ({reason}): expected a .safetensors file, or a .pt,"
            " .pth or .bin file of a state dict"
        ) from error
    state = state.get("state_dict", state) if isinstance(state, dict) else state
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise ValueError(f"the weights {path} must be a dict of tensors, or hold one under 'state_dict'")
    return {name.removeprefix("module."): value for name, value in state.items()}


def load_weights(clip: nn.Module, path: Path, model: str = "the configuration beside them") -> None:
    """Loads a file strictly, into the model's own precision.

    Older layouts of open_clip and Apple's MobileCLIP are renamed first; no tensor is resized.

    Args:
        clip: the model.
        path: the file.
        model: what the weights should fit, for messages.

    Raises:
        FileNotFoundError: where there is no such file.
        ValueError: where it cannot be read, or names or shapes differ; lists them.
    """
    state = convert_state_dict(clip, read_weights(path))
    expected = clip.state_dict()
    if "positional_embedding" in state and "positional_embedding" not in expected:
        state = convert_to_custom_text_state_dict(state)
    # Sizes that OpenAI stores among the weights, and indices that transformers no longer does.
    old = {"input_resolution", "context_length", "vocab_size", "text.transformer.embeddings.position_ids"}
    state = {name: value for name, value in state.items() if name in expected or name not in old}
    for name in {"logit_scale", "logit_bias"} & state.keys() & expected.keys():
        state[name] = state[name].reshape(expected[name].shape)
    try:
        clip.load_state_dict(state, strict=True)
    except RuntimeError as error:
        raise ValueError(f"the weights {path} do not fit {model}: {error}") from error
