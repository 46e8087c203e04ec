"""Embedders: any open_clip model as a frozen encoder of texts and images.

open_clip (and the torchvision and timm that it brings) is imported when an embedder is built, not before.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from clip2latent.assets import locate

Tokenizer = Callable[..., Tensor]
"""An open_clip tokenizer: (prompts, context_length) -> token ids [P, context_length], silently truncated."""


class OpenCLIPEmbedder(nn.Module):
    """A frozen open_clip model as an Embedder.

    Images are resized where their side is not the model's own (bicubic, antialiased, straight to a square) and
    normalised with the model's mean and standard deviation, never clamped; features are divided by their norm.

    Attributes:
        dim: E.
        resolution: the side in pixels at which the model sees images.
        truncate: whether prompts longer than the model's context are cut; otherwise they are refused.
        words: the lower-case words the model saw in training; None where that is not known.
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
        """
        super().__init__()
        self.clip = clip
        self.tokenizer = tokenizer
        self.context_length = context_length
        self.dim = dim
        self.resolution = resolution
        self.truncate = truncate
        self.words = None if words is None else frozenset(words)
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32).view(3, 1, 1))
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32).view(3, 1, 1))
        self.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> OpenCLIPEmbedder:
        """Stays in evaluation mode: batch statistics would make an embedding depend on its batch."""
        return super().train(False)

    def embed_text(self, prompts: Sequence[str]) -> Tensor:
        """Embeds P prompts into [P, E], unit norm.

        Raises:
            ValueError: for no prompts, an empty prompt, or one longer than the context unless `truncate` is set.
        """
        features = self.clip.encode_text(self._tokenize(prompts).to(self.mean.device))
        return F.normalize(features.float(), dim=-1)

    def embed_images(self, images: Tensor) -> Tensor:
        """Embeds images [B, 3, R, R] in [-1, 1] into [B, E], unit norm; any R; differentiable.

        Raises:
            ValueError: for another shape or for integers.
        """
        if images.ndim != 4 or images.shape[1] != 3 or images.shape[2] != images.shape[3]:
            raise ValueError(f"images must be [B, 3, R, R], got {list(images.shape)}")
        if not images.is_floating_point():
            raise ValueError(
                f"images must be floating point in [-1, 1], got {images.dtype}; convert with x / 127.5 - 1"
            )
        images = (images.to(self.mean.dtype) + 1) / 2
        if images.shape[-1] != self.resolution:
            size = (self.resolution, self.resolution)
            images = F.interpolate(images, size, mode="bicubic", antialias=True, align_corners=False)
        weights = next(self.clip.parameters())
        features = self.clip.encode_image(((images - self.mean) / self.std).to(weights.dtype))
        return F.normalize(features.float(), dim=-1)

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
            # A tokenizer that cuts a text puts the end token into the last column, where a wider context keeps a word.
            wider = self.tokenizer(list(prompts), context_length=self.context_length + 1)[:, : self.context_length]
            too_long = (tokens != wider).any(dim=1).nonzero().flatten().tolist()
            if too_long:
                raise ValueError(
                    f"prompt {prompts[too_long[0]]!r} takes more than the {self.context_length} tokens that this model"
                    " reads, start and end included: shorten it, or build the embedder with truncate=True"
                )
        return tokens


def split_words(text: str) -> list[str]:
    """Splits a text into lower-case words, without digits and punctuation."""
    return re.findall(r"[^\W\d_]+", text.lower())


def load_embedder(source: str = "demo", truncate: bool = False) -> OpenCLIPEmbedder:
    """Loads an embedder from a folder of open_clip's configuration and safetensors weights.

    config.json holds "model_cfg" and "preprocess_cfg" as open_clip writes them, and two keys of ours: "merges" names
    a byte-pair merges file in the folder, for a vocabulary other than open_clip's; "words" lists the words that the
    model saw in training. Both are optional. The weights are model.safetensors, in any floating-point precision.

    Args:
        source: "demo" for the embedded demo's CLIP, else a folder.
        truncate: cut prompts that are too long instead of refusing them.

    Raises:
        FileNotFoundError: where the folder or one of its files is missing.
        ValueError: where the configuration or the weights do not fit.
    """
    folder = locate("demo-clip" if source == "demo" else source)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    if "model_cfg" not in config:
        raise ValueError(f"{folder / 'config.json'} must hold open_clip's model_cfg, got keys {sorted(config)}")
    from clip2latent import openclip

    clip = openclip.build_clip(config["model_cfg"])
    openclip.load_weights(clip, folder / "model.safetensors")
    merges = config.get("merges")
    tokenizer = openclip.build_tokenizer(config["model_cfg"], folder / merges if merges else None)
    model = openclip.Pretrained(clip, tokenizer, config["model_cfg"]["embed_dim"])
    return _embedder(model, config.get("preprocess_cfg", {}), words=config.get("words"), truncate=truncate)


def load_open_clip(
    model: str, pretrained: str, quick_gelu: bool | None = None, truncate: bool = False
) -> OpenCLIPEmbedder:
    """Loads a model of open_clip by name, with the weights of a tag (downloaded once) or of a local file.

    Args:
        model: open_clip's name of the architecture, such as "ViT-B-32-quickgelu".
        pretrained: a tag of open_clip, such as "openai", or a file of weights.
        quick_gelu: the activation the weights were trained with; None for what the tag or the model's name says.
        truncate: cut prompts that are too long instead of refusing them.

    Raises:
        ValueError: for an unknown model or tag, an activation that is not known or contradicts the tag, or weights
            that do not fit.
    """
    from clip2latent import openclip

    loaded = openclip.load_pretrained(model, pretrained, quick_gelu)
    return _embedder(loaded, getattr(loaded.clip.visual, "preprocess_cfg", {}), truncate=truncate)


def _embedder(
    model: Any,
    preprocess: dict[str, Any],
    words: Sequence[str] | None = None,
    truncate: bool = False,
) -> OpenCLIPEmbedder:
    from clip2latent import openclip

    return OpenCLIPEmbedder(
        model.clip,
        model.tokenizer,
        context_length=model.tokenizer.context_length,
        dim=model.dim,
        resolution=openclip.image_side(model.clip),
        mean=preprocess.get("mean", openclip.MEAN),
        std=preprocess.get("std", openclip.STD),
        words=words,
        truncate=truncate,
    )
