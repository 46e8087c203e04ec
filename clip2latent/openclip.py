"""Builds open_clip's models and tokenizers, from a configuration or by name, and refuses what would embed wrongly."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import open_clip
from safetensors.torch import load_file
from torch import nn

MEAN: tuple[float, ...] = open_clip.OPENAI_DATASET_MEAN
STD: tuple[float, ...] = open_clip.OPENAI_DATASET_STD


class Pretrained(NamedTuple):
    """A model of open_clip, its tokenizer, and E."""

    clip: nn.Module
    tokenizer: Any
    dim: int


def build_clip(model_cfg: Mapping[str, Any]) -> nn.Module:
    """Builds an untrained open_clip model from the "model_cfg" of its configuration.

    Raises:
        ValueError: where open_clip does not take the configuration.
    """
    model_cfg = dict(model_cfg)
    custom_text = model_cfg.pop("custom_text", False) or "hf_model_name" in model_cfg.get("text_cfg", {})
    try:
        return (open_clip.CustomTextCLIP if custom_text else open_clip.CLIP)(**model_cfg)
    except (TypeError, KeyError) as error:
        raise ValueError(f"model_cfg does not describe an open_clip model: {error}") from error


def build_tokenizer(model_cfg: Mapping[str, Any], merges: Path | None = None) -> open_clip.SimpleTokenizer:
    """Builds the byte-pair tokenizer of a configuration, with a merges file of its own or open_clip's.

    Raises:
        FileNotFoundError: where the merges file is missing.
        ValueError: for a tokenizer of another kind, or where the vocabulary is not of the size that the model embeds.
    """
    text_cfg = model_cfg.get("text_cfg", {})
    if text_cfg.get("hf_tokenizer_name"):
        raise ValueError(f"tokenizer {text_cfg['hf_tokenizer_name']!r} is not a byte-pair one: use load_open_clip")
    if merges is not None and not merges.is_file():
        raise FileNotFoundError(f"the merges file {merges} that the configuration names is missing")
    kwargs = dict(text_cfg.get("tokenizer_kwargs") or {}) | ({"bpe_path": str(merges)} if merges else {})
    tokenizer = open_clip.SimpleTokenizer(context_length=text_cfg.get("context_length", 77), **kwargs)
    vocab_size = text_cfg.get("vocab_size", 49408)
    # The text tower reads its output at the largest token id, which therefore must be the end token.
    if tokenizer.eot_token_id != vocab_size - 1:
        raise ValueError(
            f"vocab_size {vocab_size} does not fit the vocabulary ({merges or 'open_clip'}), whose end token has id"
            f" {tokenizer.eot_token_id}: expected {tokenizer.eot_token_id + 1}"
        )
    return tokenizer


def load_weights(clip: nn.Module, path: Path) -> None:
    """Loads a safetensors file strictly, into the model's own precision.

    Raises:
        FileNotFoundError: where there is no such file.
        ValueError: where names or shapes differ; lists them.
    """
    if not path.is_file():
        raise FileNotFoundError(f"the weights {path} are missing")
    try:
        clip.load_state_dict(load_file(path), strict=True)
    except RuntimeError as error:
        raise ValueError(f"the weights {path} do not fit the configuration beside them: {error}") from error


def load_pretrained(model: str, pretrained: str, quick_gelu: bool | None = None) -> Pretrained:
    """Loads a model of open_clip by name and its tokenizer.

    Args:
        model: open_clip's name of the architecture.
        pretrained: one of open_clip's tags for it, or a file of weights.
        quick_gelu: see `activation`.

    Raises:
        ValueError: for an unknown model or tag, an activation that is unknown or contradictory, or weights that do
            not fit.
    """
    model_cfg = open_clip.get_model_config(model)
    if model_cfg is None:
        raise ValueError(f"model {model!r} is not among open_clip's; open_clip.list_models() lists them")
    tag = open_clip.get_pretrained_cfg(model, pretrained)
    if not tag and not Path(pretrained).is_file():
        known = ", ".join(open_clip.list_pretrained_tags_by_model(model)) or "none"
        raise ValueError(f"pretrained {pretrained!r} is neither a file nor a tag of {model} (its tags: {known})")
    configured = bool(model_cfg.get("quick_gelu"))
    trained = bool(tag.get("quick_gelu")) if tag else None
    try:
        quick_gelu = activation(configured, trained, quick_gelu)
    except ValueError as error:
        raise ValueError(f"model {model!r} with weights {pretrained!r}: {error}") from error
    try:
        clip = open_clip.create_model(model, pretrained, force_quick_gelu=quick_gelu)
    except RuntimeError as error:
        raise ValueError(f"the weights {pretrained!r} do not fit model {model!r}: {error}") from error
    return Pretrained(clip, open_clip.get_tokenizer(model), model_cfg["embed_dim"])


def activation(configured: bool, trained: bool | None, asked: bool | None) -> bool:
    """Tells whether to build with QuickGELU, x * sigmoid(1.702 x), instead of GELU.

    Many published weights (OpenAI's among them) were trained with QuickGELU. With the other activation they load
    without complaint and embed wrongly, so it is never guessed.

    Args:
        configured: the architecture's name asks for QuickGELU.
        trained: the tag's record of the weights; None for a local file.
        asked: the caller's word; None without one.

    Raises:
        ValueError: where nobody knows, or two contradict each other.
    """
    if trained is None and asked is None and not configured:
        raise ValueError(
            "a file does not say with which activation it was trained: give quick_gelu=True (OpenAI, LAION-400M,"
            " MetaCLIP, DFN) or quick_gelu=False"
        )
    if (trained is not None and asked is not None and trained != asked) or (configured and False in (trained, asked)):
        raise ValueError(
            f"QuickGELU is contradictory: the architecture's name {'asks' if configured else 'does not ask'} for it,"
            f" the tag says {trained}, quick_gelu is {asked}"
        )
    return configured or bool(trained) or bool(asked)


def image_side(clip: nn.Module) -> int:
    """Returns the side in pixels at which the model sees images.

    Raises:
        ValueError: for a model of images that are not square.
    """
    size = clip.visual.image_size
    height, width = (size, size) if isinstance(size, int) else size
    if height != width:
        raise ValueError(f"the model sees images of {height} x {width} pixels; only square ones are supported")
    return height
