"""What images are seen by when sets of them are compared: a CLIP's embeddings, a judge's features, or Inception's."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from clip2latent.assets import names
from clip2latent.interfaces import Embedder
from clip2latent.judge import load_judge
from clip2latent.spec import ModelSpec, weights_sha256

INCEPTION = "inception"


class Seen(NamedTuple):
    """What an extractor sees in B images.

    Attributes:
        features: [B, F].
        probabilities: name of a classification -> [B, its number of classes]; {} for an extractor that has none.
    """

    features: Tensor
    probabilities: dict[str, Tensor]


class Extractor(NamedTuple):
    """A way to see images, and what it is.

    Attributes:
        see: images [B, 3, R, R] in [-1, 1] -> what is seen.
        identity: plain types.
        classes: name of a classification -> its classes, where they have names.
        embedder: the CLIP whose embeddings the features are; None where they are not.
    """

    see: Callable[[Tensor], Seen]
    identity: dict[str, Any]
    classes: Mapping[str, tuple[str, ...]]
    embedder: Embedder | None = None


def embedder_extractor(embedder: Embedder, source: str) -> Extractor:
    """Returns a CLIP's image embeddings as features."""
    identity = {"kind": "embedder", "source": source, **ModelSpec.of(source, {}, embedder).to_dict()}
    return Extractor(lambda images: Seen(embedder.embed_images(images), {}), identity, {}, embedder)


def load_extractor(source: str, device: torch.device | str) -> Extractor:
    """Loads an extractor by what names it.

    Args:
        source: "inception", whose weights are downloaded once; a file of these weights (.pth, .pt or .safetensors); or
            a judge: "demo-judge", "demo-class-judge" or a folder.
        device: where it shall be.

    Raises:
        FileNotFoundError: where there is nothing of that name.
        ValueError: where weights do not fit, or the torch-fidelity package is missing.
    """
    if source == INCEPTION or Path(source).suffix.lower() in (".pth", ".pt", ".safetensors"):
        from clip2latent.inception import load_inception

        network = load_inception(None if source == INCEPTION else source).to(device)

        def classed(images: Tensor) -> Seen:
            features, probabilities = network(images)
            return Seen(features, {"class": probabilities})

        resizing = "to 299 px as TensorFlow 1 does: bilinear, not antialiased"
        return Extractor(classed, {**_identity("inception", source, network), "resizing": resizing}, {})
    if source not in ("demo", *names()) and not Path(source).is_dir():
        raise FileNotFoundError(
            f"features={source!r}: expected inception, a .pth or .safetensors file of its weights, demo-judge,"
            " demo-class-judge, or a judge's folder"
        )
    try:
        judge = load_judge(source).to(device)
    except (KeyError, TypeError) as error:
        raise ValueError(f"features={source!r} is no judge: its config.json lacks {error}") from error

    def judged(images: Tensor) -> Seen:
        features = judge.features(images)
        return Seen(features, {name: head(features).softmax(dim=1) for name, head in judge.heads.items()})

    identity = {**_identity("judge", source, judge), "resizing": f"to {judge.resolution} px, bilinear, antialiased"}
    return Extractor(judged, identity, judge.attributes)


def _identity(kind: str, source: str, module: nn.Module) -> dict[str, Any]:
    return {"kind": kind, "source": source, "sha256": weights_sha256(module)}
