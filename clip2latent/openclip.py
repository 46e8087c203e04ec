"""Builds open_clip's models and tokenizers, from a configuration or by name, and refuses what would embed wrongly."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import huggingface_hub
import open_clip
from open_clip.pretrained import download_pretrained_from_hf
from open_clip.tokenizer import HFTokenizer
from torch import nn

from clip2latent.downloads import is_offline
from clip2latent.lean_clip import make_lean_
from clip2latent.openclip_weights import load_weights

MEAN: tuple[float, ...] = open_clip.OPENAI_DATASET_MEAN
STD: tuple[float, ...] = open_clip.OPENAI_DATASET_STD
HUB = "hf-hub:"
HUB_CONFIG = "open_clip_config.json"
INTERPOLATIONS = ("bicubic", "bilinear", "area")
# What a configuration may pass to a tokenizer: transformers' own arguments can ask for a repository's code.
_TOKENIZER_KWARGS = {"clean", "strip_sep_token", "language"}


class Preprocessing(NamedTuple):
    """How a model sees images: resized to a side in pixels, in [0, 1], minus the mean, divided by the deviation."""

    size: int
    mean: tuple[float, ...] = MEAN
    std: tuple[float, ...] = STD
    interpolation: str = "bicubic"


class Pretrained(NamedTuple):
    """A model of open_clip with its tokenizer, E, its preprocessing, and its name, weights and activation."""

    clip: nn.Module
    tokenizer: Any
    dim: int
    preprocessing: Preprocessing
    origin: dict[str, str]


def build_clip(model_cfg: Mapping[str, Any]) -> nn.Module:
    """Builds an untrained open_clip model from the "model_cfg" of its configuration; downloads no weights.

    Raises:
        ValueError: where open_clip does not take the configuration, or needs a package that is not installed.
    """
    cfg = {**model_cfg, "vision_cfg": dict(model_cfg["vision_cfg"]), "text_cfg": dict(model_cfg["text_cfg"])}
    of_transformers = bool(cfg["text_cfg"].get("hf_model_name"))
    if of_transformers:
        cfg["text_cfg"]["hf_model_pretrained"] = False
    if cfg["vision_cfg"].get("timm_model_name"):
        cfg["vision_cfg"]["timm_model_pretrained"] = False
    custom_text = cfg.pop("custom_text", False) or of_transformers
    architecture = open_clip.CLIP
    if custom_text:
        architecture = open_clip.CoCa if "multimodal_cfg" in cfg else open_clip.CustomTextCLIP
    try:
        return make_lean_(architecture(**cfg))
    except (TypeError, KeyError) as error:
        raise ValueError(f"model_cfg does not describe an open_clip model: {error}") from error
    except (ImportError, OSError, RuntimeError) as error:
        raise ValueError(
            f"open_clip cannot build the model ({error}); image towers of timm and text towers of transformers need"
            " that package, and the latter's configuration from the Hub once"
        ) from error


def build_tokenizer(model_cfg: Mapping[str, Any], merges: Path | None = None) -> Any:
    """Builds the tokenizer of a configuration: byte pairs, with a merges file of its own or open_clip's, or the Hub's.

    Raises:
        FileNotFoundError: where the merges file is missing.
        ValueError: for arguments that could run code, a tokenizer that cannot be had, or where the vocabulary is not of
            the size that the model embeds.
    """
    text_cfg = model_cfg.get("text_cfg", {})
    # A reduction mask shortens training's texts at random; an embedding must depend on its text alone.
    kwargs = {k: v for k, v in (text_cfg.get("tokenizer_kwargs") or {}).items() if k != "reduction_mask"}
    if not set(kwargs) <= _TOKENIZER_KWARGS:
        raise ValueError(f"tokenizer_kwargs {kwargs}: only {', '.join(sorted(_TOKENIZER_KWARGS))} are known and safe")
    kwargs["context_length"] = text_cfg.get("context_length", 77)
    if text_cfg.get("hf_tokenizer_name"):
        return _hub_tokenizer(text_cfg["hf_tokenizer_name"], kwargs)
    if merges is not None and not merges.is_file():
        raise FileNotFoundError(f"the merges file {merges} that the configuration names is missing")
    tokenizer = open_clip.SimpleTokenizer(**kwargs, **({"bpe_path": str(merges)} if merges else {}))
    vocab_size = text_cfg.get("vocab_size", 49408)
    # The text tower reads its output at the largest token id, which therefore must be the end token.
    if tokenizer.eot_token_id != vocab_size - 1:
        raise ValueError(
            f"vocab_size {vocab_size} does not fit the vocabulary ({merges or 'open_clip'}), whose end token has id"
            f" {tokenizer.eot_token_id}: expected {tokenizer.eot_token_id + 1}"
        )
    return tokenizer


def _hub_tokenizer(name: str, kwargs: Mapping[str, Any]) -> HFTokenizer:
    try:
        tokenizer = HFTokenizer(name, **kwargs)
        tokenizer(["a"])
    except (ImportError, OSError, ValueError, AttributeError, RuntimeError) as error:
        raise ValueError(
            f"the tokenizer {name!r} needs the package transformers (before version 5 with open_clip"
            f" {open_clip.__version__}) and the Hub, or a folder of that name: {error}"
        ) from error
    return tokenizer


def load_pretrained(
    model: str,
    pretrained: str = "",
    quick_gelu: bool | None = None,
    weights: str | Path | None = None,
    interpolation: str | None = None,
) -> Pretrained:
    """Loads a model of open_clip by name, or of the Hub, and its tokenizer.

    Args:
        model: open_clip's name of the architecture, or "hf-hub:owner/name".
        pretrained: one of open_clip's tags for it, or a file of weights; "" for a model of the Hub.
        quick_gelu: see `activation`.
        weights: a local file of the tag's or the Hub's weights, in place of the download.
        interpolation: one of INTERPOLATIONS; None for what the weights were published with.

    Raises:
        FileNotFoundError: where a file is missing, here or on the Hub, or may not be fetched.
        ValueError: for an unknown model or tag, an activation or a preprocessing that is unknown or contradictory, or
            weights that do not fit.
    """
    given = {"interpolation": interpolation} if interpolation else {}
    read_preprocessing(given, 0)
    if model.startswith(HUB):
        if pretrained:
            raise ValueError(f"pretrained={pretrained!r}: {model} has weights of its own, leave it out")
        name = model.removeprefix(HUB)
        _check_network(model, on_hub=True)
        config = json.loads(Path(download_pretrained_from_hf(name, filename=HUB_CONFIG)).read_text(encoding="utf-8"))
        config["preprocess_cfg"] = {**(config.get("preprocess_cfg") or {}), **given}
        path = weights or download_pretrained_from_hf(name)
        return load_config(config, Path(path), model, "hub", quick_gelu=quick_gelu)
    model_cfg = open_clip.get_model_config(model)
    if model_cfg is None:
        raise ValueError(f"model {model!r} is not among open_clip's; open_clip.list_models() lists them")
    tag = open_clip.get_pretrained_cfg(model, pretrained)
    if not tag and (weights or not Path(pretrained).is_file()):
        known = ", ".join(open_clip.list_pretrained_tags_by_model(model)) or "none"
        fault = "is not a tag" if weights else "is neither a file nor a tag"
        raise ValueError(f"pretrained {pretrained!r} {fault} of {model} (its tags: {known})")
    configured = bool(model_cfg.get("quick_gelu"))
    try:
        model_cfg["quick_gelu"] = activation(configured, bool(tag.get("quick_gelu")) if tag else None, quick_gelu)
        preprocess = dict(tag) or shared_preprocess(model)
    except ValueError as error:
        raise ValueError(f"model {model!r} with weights {pretrained!r}: {error}") from error
    if tag and not weights:
        _check_network(f"{model} ({pretrained})", on_hub=bool(tag.get("hf_hub")))
    path = weights or (open_clip.download_pretrained(tag) if tag else pretrained)
    tag_name = pretrained.lower().replace("-", "_") if tag else ""
    config = {"model_cfg": model_cfg, "preprocess_cfg": {**preprocess, **given}}
    return load_config(config, Path(path), model.removesuffix("-quickgelu"), tag_name)


def _check_network(name: str, on_hub: bool) -> None:
    """Raises FileNotFoundError where the network is forbidden, but for what the Hub's client finds in its cache."""
    if is_offline() and not (on_hub and huggingface_hub.constants.HF_HUB_OFFLINE):
        advice = ", or set HF_HUB_OFFLINE=1 to use the Hub's cache" if on_hub else ""
        raise FileNotFoundError(f"offline: {name} may have to be downloaded; give a local file or folder{advice}")


def load_config(
    config: Mapping[str, Any],
    weights: Path,
    model: str = "",
    pretrained: str = "",
    merges: Path | None = None,
    quick_gelu: bool | None = None,
) -> Pretrained:
    """Builds a model as its configuration says and loads its weights.

    Args:
        config: "model_cfg" and, optionally, "preprocess_cfg", as open_clip writes them.
        weights: a file.
        model: its name, for the identity and messages; "" where the configuration has none.
        pretrained: the weights' tag, or "hub", for the identity; "" where only their hash names them.
        merges: a byte-pair merges file, for a vocabulary other than open_clip's.
        quick_gelu: the caller's word on the activation, which must be the configuration's; None without one.

    Raises:
        FileNotFoundError: where a file is missing.
        ValueError: where configuration, weights, activation or tokenizer do not fit together.
    """
    model_cfg = config["model_cfg"]
    quick = bool(model_cfg.get("quick_gelu"))
    if quick_gelu is not None and quick_gelu != quick:
        raise ValueError(f"quick_gelu={quick_gelu} is contradictory: {model or 'the'} configuration says {quick}")
    clip = build_clip(model_cfg)
    tokenizer = build_tokenizer(model_cfg, merges)
    load_weights(clip, weights, f"model {model!r}" if model else "the configuration beside them")
    preprocessing = read_preprocessing(config.get("preprocess_cfg") or {}, image_side(clip))
    named = {"model": model, "pretrained": pretrained, "activation": "quick_gelu" if quick else "gelu"}
    origin = {key: value for key, value in named.items() if value}
    return Pretrained(clip, tokenizer, model_cfg["embed_dim"], preprocessing, origin)


def read_preprocessing(preprocess: Mapping[str, Any], size: int) -> Preprocessing:
    """Reads open_clip's preprocessing configuration; its resize modes are one for square images.

    Raises:
        ValueError: for an interpolation that is not known.
    """
    interpolation = preprocess.get("interpolation") or "bicubic"
    interpolation = "bicubic" if interpolation == "random" else interpolation  # as open_clip does outside training
    if interpolation not in INTERPOLATIONS:
        raise ValueError(f"interpolation={interpolation!r}: expected one of {', '.join(INTERPOLATIONS)}")
    mean, std = (
        (value,) * 3 if isinstance(value, (int, float)) else tuple(value)
        for value in (preprocess.get("mean") or MEAN, preprocess.get("std") or STD)
    )
    return Preprocessing(size, mean, std, interpolation)


def shared_preprocess(model: str) -> dict[str, Any]:
    """Returns the preprocessing that all tags of a model share, OpenAI's where it has none.

    Raises:
        ValueError: where they differ.
    """
    found = []
    for name in open_clip.list_pretrained_tags_by_model(model):
        tag = open_clip.get_pretrained_cfg(model, name)
        found.append({key: tag[key] for key in ("mean", "std", "interpolation")})
    if any(other != found[0] for other in found):
        raise ValueError(
            "a file does not say how its images were normalised, and this model's tags differ in it: give the tag as"
            " pretrained and the file as weights"
        )
    return found[0] if found else {}


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
