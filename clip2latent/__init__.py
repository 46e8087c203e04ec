"""Text-driven sampling of frozen image generators: CLIP embedding -> diffusion prior -> generator latent -> image."""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

_EXPORTS = {
    "ClassConditional": "interfaces",
    "Direction": "directions",
    "Embedder": "interfaces",
    "Generator": "interfaces",
    "LatentPrior": "prior",
    "LatentSpace": "latents",
    "ModelSpec": "spec",
    "Samples": "text2image",
    "TextToImage": "text2image",
    "find_direction": "direction_search",
    "load_direction": "directions",
    "load_embedder": "embedders",
    "load_generator": "generators",
    "load_prior": "checkpoint",
}
__all__ = ["__version__", *_EXPORTS]


def __getattr__(name: str) -> Any:
    """Imports an exported name at its first use: `import clip2latent` alone stays fast."""
    if name not in _EXPORTS:
        raise AttributeError(f"module 'clip2latent' has no attribute {name!r}")
    return getattr(importlib.import_module(f"clip2latent.{_EXPORTS[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
