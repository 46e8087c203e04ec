"""What a CLIP knows of a world: retrieval among held-out pairs, and every attribute zero-shot."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from clip2latent.interfaces import Embedder
from demo.data import World, render, visible

ANY = "any"
PAIRS = 100
Prompts = Mapping[tuple[str, str], Sequence[str]]
"""(attribute, value) -> sentences that name it."""


class Retrieval(NamedTuple):
    """Top-1 accuracy among `PAIRS` pairs.

    Attributes:
        image_to_text: how often the nearest caption is the image's own.
        text_to_image: how often the nearest image is the caption's own.
        ceiling: what text-to-image reaches by guessing among the images that satisfy the caption.
        matched: mean cosine of an image and its caption.
        unmatched: mean cosine of an image and another's caption.
        gap: length of the difference between the mean image embedding and the mean caption embedding.
    """

    image_to_text: float
    text_to_image: float
    ceiling: float
    matched: float
    unmatched: float
    gap: float


@torch.no_grad()
def retrieval(embedder: Embedder, world: World, seed: int, sets: int = 10) -> Retrieval:
    """Averages retrieval over `sets` disjoint sets of `PAIRS` examples of a seed."""
    rows = []
    for number in range(sets):
        batch = render(world, seed, range(number * PAIRS, (number + 1) * PAIRS))
        images, texts = embedder.embed_images(batch.images), embedder.embed_text(batch.captions)
        cosines, own = images @ texts.T, torch.arange(PAIRS)
        named = [world.parse(caption) for caption in batch.captions]
        true_of = [sum(satisfies(world, row, wanted) for row in batch.attributes) for wanted in named]
        rows.append(
            Retrieval(
                image_to_text=_share(cosines.argmax(dim=1), own),
                text_to_image=_share(cosines.argmax(dim=0), own),
                ceiling=float(np.mean([1 / max(count, 1) for count in true_of])),
                matched=float(cosines.diagonal().mean()),
                unmatched=float((cosines.sum() - cosines.diagonal().sum()) / (PAIRS * (PAIRS - 1))),
                gap=float((images.mean(dim=0) - texts.mean(dim=0)).norm()),
            )
        )
    return Retrieval(*np.mean(rows, axis=0).tolist())


def satisfies(world: World, attributes: Mapping[str, str], named: Mapping[str, str]) -> bool:
    """Tells whether an image drawn from `attributes` shows all that a caption names."""
    seen = visible(world, attributes)
    return all(
        seen.get(key) == value or (value == ANY and seen.get(key, "none") != "none") for key, value in named.items()
    )


@torch.no_grad()
def zero_shot(embedder: Embedder, world: World, prompts: Prompts, seed: int, num: int = 1000) -> dict[str, float]:
    """Classifies `num` held-out images by the nearest mean prompt of each value of an attribute.

    Values without prompts take no part, nor do images that have them.

    Returns:
        attribute -> accuracy over the images on which it is visible.
    """
    batch = render(world, seed, range(num))
    images = torch.cat([embedder.embed_images(part) for part in batch.images.split(200)])
    scores = {}
    for name in world.ATTRIBUTES:
        values = [value for value in world.ATTRIBUTES[name] if prompts.get((name, value))]
        rows = [i for i, row in enumerate(batch.attributes) if visible(world, row).get(name) in values]
        if len(values) < 2 or not rows:
            continue
        anchors = torch.stack([_mean(embedder.embed_text(prompts[name, value])) for value in values])
        target = torch.tensor([values.index(batch.attributes[i][name]) for i in rows])
        scores[name] = _share((images[rows] @ anchors.T).argmax(dim=1), target)
    return scores


def terse_prompts(world: World, seed: int, num: int, captions: int = 2500) -> Prompts:
    """Returns, for every value that captions name, the `num` of a sample of `captions` that name the fewest others."""
    rng = np.random.default_rng((seed, captions))
    found: dict[tuple[str, str], list[tuple[int, str]]] = defaultdict(list)
    for _ in range(captions):
        caption = world.caption(world.sample_attributes(rng), rng)
        named = world.parse(caption)
        for item in named.items():
            found[item].append((len(named), caption))
    return {item: [text for _, text in sorted(texts)[:num]] for item, texts in found.items()}


def _mean(embeddings: Tensor) -> Tensor:
    return F.normalize(embeddings.mean(dim=0), dim=-1)


def _share(found: Tensor, target: Tensor) -> float:
    return float((found.cpu() == target).double().mean())
