"""Embedders: any open_clip model as a frozen encoder of texts and images.

open_clip (and the torchvision and timm that it brings) is imported when an embedder is built, not before.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from clip2latent.assets import locate

Tokenizer = Callable[..., Tensor]
"""An open_clip tokenizer: (prompts, context_length) -> token ids [P, context_length], silently truncated."""
PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class OpenCLIPEmbedder(nn.Module):
    """A frozen open_clip model as an Embedder.

    Images are resized where their side is not the model's own (antialiased, straight to a square) and normalised with
    the model's mean and standard deviation, never clamped; features are divided by their norm. Both happen in float32
    whatever the weights' precision.

    Attributes:
        dim: E.
        resolution: the side in pixels at which the model sees images.
        truncate: whether prompts longer than the model's context are cut; otherwise they are refused.
        words: the lower-case words the model saw in training; None where that is not known.
        chunk: images encoded at once.
        identity: what decides the embeddings besides the weights, plain types: datasets and checkpoints record it.
    """

    def __init__(
        self,
        clip: nn.Module,
        tokenizer: Tokenizer,
        context_length: int,
        dim: int,
        resolution: int,
        mean: Sequence[float],
        std: Sequence[float],
        words: Sequence[str] | None = None,
        truncate: bool = False,
        interpolation: str = "bicubic",
        chunk: int | None = None,
        origin: Mapping[str, str] | None = None,
    ) -> None:
        """Stores a built model and freezes it in evaluation mode.

        Args:
            clip: has `encode_image(images)` and `encode_text(tokens)`, both to [B, E].
            tokenizer: the model's own.
            context_length: how many tokens a prompt may take, start and end tokens included.
            dim: E.
            resolution: the side in pixels at which the model sees images.
            mean: of each channel, for images in [0, 1].
            std: of each channel, for images in [0, 1].
            words: the words the model saw in training, if they are known.
            truncate: cut prompts that are too long instead of refusing them.
            interpolation: how images are resized: "bicubic", "bilinear" or "area".
            chunk: images encoded at once, with gradients too; None for 16 at 224 pixels, fewer or more as the pixels
                are: ViT-L then keeps 4 GiB in float32.
            origin: what is known of the model's "model", "pretrained" and "activation", for the identity.

        Raises:
            ValueError: for a chunk under 1.
        """
        super().__init__()
        if chunk is not None and chunk < 1:
            raise ValueError(f"chunk must be at least 1, got {chunk}")
        self.clip = clip
        self.tokenizer = tokenizer
        self.context_length = context_length
        self.dim = dim
        self.resolution = resolution
        self.interpolation = interpolation
        self.truncate = truncate
        self.chunk = chunk or max(1, round(16 * (224 / resolution) ** 2))
        self.words = None if words is None else frozenset(words)
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32).view(3, 1, 1))
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32).view(3, 1, 1))
        preprocessing = {"size": resolution, "mean": [*mean], "std": [*std], "interpolation": interpolation}
        self.identity = {**(origin or {}), "preprocessing": preprocessing, "dim": dim}
        self.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> OpenCLIPEmbedder:
        """Stays in evaluation mode: batch statistics would make an embedding depend on its batch."""
        return super().train(False)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> OpenCLIPEmbedder:
        """Moves the preprocessing's statistics between devices, but keeps them in float32."""
        mean, std = self.mean, self.std
        super()._apply(fn, recurse)
        self.mean, self.std = mean.to(self.mean.device), std.to(self.std.device)
        return self

    def embed_text(self, prompts: Sequence[str]) -> Tensor:
        """Embeds P prompts into [P, E], unit norm.

        Raises:
            ValueError: for no prompts, an empty prompt, or one longer than the context unless `truncate` is set.
        """
        return F.normalize(self.text_features(prompts), dim=-1)

    def embed_images(self, images: Tensor) -> Tensor:
        """Embeds images [B, 3, R, R] in [-1, 1] into [B, E], unit norm; any R; differentiable.

        Raises:
            ValueError: for another shape or for integers.
        """
        return F.normalize(self.image_features(images, self.preprocess), dim=-1)

    def preprocess(self, images: Tensor) -> Tensor:
        """Maps images [B, 3, R, R] in [-1, 1] to what the model sees: [B, 3, resolution, resolution], normalised."""
        images = (images + 1) / 2
        if images.shape[-1] != self.resolution:
            antialias = {} if self.interpolation == "area" else {"antialias": True, "align_corners": False}
            images = F.interpolate(images, (self.resolution, self.resolution), mode=self.interpolation, **antialias)
        return (images - self.mean) / self.std

    def text_features(self, prompts: Sequence[str]) -> Tensor:
        """Encodes P prompts into float32 features [P, E] of any norm; raises as `embed_text` does."""
        parts = self._tokenize(prompts).to(self.mean.device).split(self.chunk)
        return torch.cat([self.clip.encode_text(part, normalize=False).float() for part in parts])

    def image_features(self, images: Tensor, preprocess: Callable[[Tensor], Tensor]) -> Tensor:
        """Encodes images [B, 3, R, R] in [-1, 1] into float32 features [B, E] of any norm; differentiable.

        Memory is that of one chunk: where several need a gradient, each is encoded again on the way back.

        Args:
            images: floating point, of any precision.
            preprocess: float images [B, 3, R, R] in [-1, 1] to what the model sees.

        Raises:
            ValueError: for another shape or for integers.
        """
        if images.ndim != 4 or images.shape[1] != 3 or images.shape[2] != images.shape[3]:
            raise ValueError(f"images must be [B, 3, R, R], got {list(images.shape)}")
        if not images.is_floating_point():
            raise ValueError(
                f"images must be floating point in [-1, 1], got {images.dtype}; convert with x / 127.5 - 1"
            )

        def encode(part: Tensor) -> Tensor:
            part = preprocess(part.to(torch.promote_types(part.dtype, torch.float32)))
            weights = next(self.clip.visual.parameters())
            return self.clip.encode_image(part.to(weights.dtype), normalize=False).float()

        parts = images.split(self.chunk)
        if len(parts) > 1 and images.requires_grad and torch.is_grad_enabled():
            return torch.cat(
                [checkpoint(encode, part, use_reentrant=False, preserve_rng_state=False) for part in parts]
            )
        return torch.cat([encode(part) for part in parts])

    def unknown_words(self, prompt: str) -> list[str]:
        """Returns a prompt's words that the model never saw, each once and in order; none where that is not known."""
        if self.words is None:
            return []
        return [word for word in dict.fromkeys(split_words(prompt)) if word not in self.words]

    def _tokenize(self, prompts: Sequence[str]) -> Tensor:
        """Returns token ids [P, context_length]."""
        if isinstance(prompts, str) or not prompts:
            raise ValueError(f"prompts must be a non-empty list of texts, got {prompts!r}")
        for position, prompt in enumerate(prompts):
            if not prompt.strip():
                raise ValueError(f"prompt {position} is empty ({prompt!r}): describe the image in words")
        tokens = self.tokenizer(list(prompts), context_length=self.context_length)
        if not self.truncate:
            # A tokenizer that cuts a text leaves an end token where a wider context keeps a word, or, where texts have
            # no end token, a word in the wider context's last column, which otherwise is padding.
            wider = self.tokenizer([*prompts, "a"], context_length=self.context_length + 1)
            cut = (tokens != wider[:-1, :-1]).any(dim=1) | (wider[:-1, -1] != wider[-1, -1])
            if cut.any():
                raise ValueError(
                    f"prompt {prompts[int(cut.nonzero()[0])]!r} takes more than the {self.context_length} tokens that"
                    " this model reads, start and end included: shorten it, or build the embedder with truncate=True"
                )
        return tokens


def split_words(text: str) -> list[str]:
    """Splits a text into lower-case words, without digits and punctuation."""
    return re.findall(r"[^\W\d_]+", text.lower())


def load_embedder(
    source: str = "demo", truncate: bool = False, precision: str = "fp32", chunk: int | None = None
) -> OpenCLIPEmbedder:
    """Loads an embedder from a folder of open_clip's configuration and weights.

    The folder holds either config.json and model.safetensors, or a model of the Hub as open_clip publishes them:
    open_clip_config.json with open_clip_model.safetensors or open_clip_pytorch_model.bin. The configuration has
    "model_cfg" and "preprocess_cfg" as open_clip writes them, and two keys of ours: "merges" names a byte-pair merges
    file in the folder, for a vocabulary other than open_clip's; "words" lists the words that the model saw in
    training. Both are optional. Weights may be stored in any floating-point precision.

    Args:
        source: "demo" for the embedded demo's CLIP, else a folder.
        truncate: cut prompts that are too long instead of refusing them.
        precision: of the weights: "fp32", "bf16" or "fp16".
        chunk: images encoded at once; None for what OpenCLIPEmbedder recommends.

    Raises:
        FileNotFoundError: where the folder or one of its files is missing.
        ValueError: where the configuration or the weights do not fit.
    """
    dtype = _dtype(precision)
    folder, config_name, weights = Path(source), "open_clip_config.json", "open_clip_model.safetensors"
    if not (folder / config_name).is_file():
        folder = locate("demo-clip" if source == "demo" else source)
        config_name, weights = "config.json", "model.safetensors"
    elif not (folder / weights).is_file():
        weights = "open_clip_pytorch_model.bin"
    config = json.loads((folder / config_name).read_text(encoding="utf-8"))
    if "model_cfg" not in config:
        raise ValueError(f"{folder / config_name} must hold open_clip's model_cfg, got keys {sorted(config)}")
    from clip2latent import openclip

    merges = folder / config["merges"] if config.get("merges") else None
    loaded = openclip.load_config(config, folder / weights, merges=merges)
    return _embedder(loaded, truncate, dtype, chunk, config.get("words"))


def load_open_clip(
    model: str,
    pretrained: str = "",
    quick_gelu: bool | None = None,
    truncate: bool = False,
    weights: str | None = None,
    interpolation: str | None = None,
    precision: str = "fp32",
    chunk: int | None = None,
) -> OpenCLIPEmbedder:
    """Loads a model of open_clip by name, with the weights of a tag or of the Hub (downloaded once) or of a local file.

    Args:
        model: open_clip's name of the architecture, such as "ViT-B-32-quickgelu", or "hf-hub:owner/name".
        pretrained: a tag of open_clip, such as "openai", or a file of weights; "" for a model of the Hub.
        quick_gelu: the activation the weights were trained with; None for what the tag or the model's name says.
        truncate: cut prompts that are too long instead of refusing them.
        weights: a local file of the tag's or the Hub's weights, in place of the download.
        interpolation: "bicubic", "bilinear" or "area"; None for what the weights were published with.
        precision: of the weights: "fp32", "bf16" or "fp16".
        chunk: images encoded at once; None for what OpenCLIPEmbedder recommends.

    Raises:
        FileNotFoundError: where a file is missing, here or on the Hub.
        ValueError: for an unknown model or tag, an activation that is not known or contradicts the tag, or weights
            that do not fit.
    """
    from clip2latent import openclip

    dtype = _dtype(precision)
    loaded = openclip.load_pretrained(model, pretrained, quick_gelu, weights, interpolation)
    return _embedder(loaded, truncate, dtype, chunk)


def _dtype(precision: str) -> torch.dtype:
    if precision not in PRECISIONS:
        raise ValueError(f"precision={precision!r}: expected one of {', '.join(PRECISIONS)}")
    return PRECISIONS[precision]


def _embedder(
    loaded: Any, truncate: bool, dtype: torch.dtype, chunk: int | None, words: Sequence[str] | None = None
) -> OpenCLIPEmbedder:
    return OpenCLIPEmbedder(
        loaded.clip.to(dtype),
        loaded.tokenizer,
        loaded.tokenizer.context_length,
        loaded.dim,
        *loaded.preprocessing[:3],
        words=words,
        truncate=truncate,
        interpolation=loaded.preprocessing.interpolation,
        chunk=chunk,
        origin=loaded.origin,
    )
