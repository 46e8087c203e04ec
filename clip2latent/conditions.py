"""Conditions: what the prior is asked for, made of texts, pictures and weighted mixtures of both."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from clip2latent.bridge import Bridge
from clip2latent.images import read_picture
from clip2latent.interfaces import Embedder
from clip2latent.mixtures import Mixture, Part


class Conditions(NamedTuple):
    """What P prompts ask for, on the CPU.

    Attributes:
        positive: [P, E], what the prior is conditioned on.
        negative: [P, E], what guidance leads away from, in place of the null branch; None for the null branch.
        targets: [P, E], the embeddings that images of the prompts should be near.
    """

    positive: Tensor
    negative: Tensor | None
    targets: Tensor


def make_conditions(
    embedder: Embedder,
    bridge: Bridge,
    mixtures: Sequence[Mixture],
    negatives: Sequence[Mixture] | None = None,
    device: torch.device | str = "cpu",
) -> Conditions:
    """Embeds P mixtures and takes them over the bridge, where texts and pictures lie in one place and can be mixed.

    Args:
        embedder: the prior's.
        bridge: the prior's, on `device`.
        mixtures: what to draw.
        negatives: what to lead away from: P mixtures, or one for all; None for nothing.
        device: where the embedder is.

    Raises:
        ValueError: for pictures that cannot be read, texts that the embedder refuses, another number of negatives, and
            mixtures whose parts cancel out.
    """
    if negatives is not None and len(negatives) not in (1, len(mixtures)):
        raise ValueError(f"negative: expected 1 prompt or {len(mixtures)}, one for each prompt, got {len(negatives)}")
    found = embed_parts(embedder, [*mixtures, *(negatives or ())], device)

    def crossed(part: Part) -> Tensor:
        side = bridge.images if part.is_picture else bridge.texts
        return side(found[part[:2]][None].to(device))[0].cpu()

    negative = None
    if negatives is not None:
        negative = blend(negatives, crossed).expand(len(mixtures), -1).contiguous()
    return Conditions(blend(mixtures, crossed), negative, blend(mixtures, lambda part: found[part[:2]]))


def embed_targets(embedder: Embedder, mixtures: Sequence[Mixture], device: torch.device | str = "cpu") -> Tensor:
    """Returns the embeddings [P, E] that images of P mixtures should be near, on the CPU.

    Args:
        embedder: any, the prior's or another.
        mixtures: what the images should show.
        device: where the embedder is.
    """
    found = embed_parts(embedder, mixtures, device)
    return blend(mixtures, lambda part: found[part[:2]])


@torch.no_grad()
def embed_parts(
    embedder: Embedder, mixtures: Sequence[Mixture], device: torch.device | str = "cpu"
) -> dict[tuple[str, bool], Tensor]:
    """Returns the embedding [E] of each text and picture, by (source, is_picture), on the CPU.

    Each is embedded alone, so that its bits do not depend on the others.
    """
    found: dict[tuple[str, bool], Tensor] = {}
    for part in (part for mixture in mixtures for part in mixture.parts):
        if part[:2] in found:
            continue
        if part.is_picture:
            embedding = embedder.embed_images(read_picture(part.source).to(device))
        else:
            embedding = embedder.embed_text([part.source])
        found[part[:2]] = embedding[0].float().cpu()
    return found


def blend(mixtures: Sequence[Mixture], vector: Callable[[Part], Tensor]) -> Tensor:
    """Returns the weighted means [P, E] of P mixtures' parts.

    A mean's direction is that of the parts' weighted directions, its length the mean of their lengths: of unit vectors
    it is a unit vector. A single part stays as it is, to the bit.

    Args:
        mixtures: the parts and their weights.
        vector: part -> [E].

    Raises:
        ValueError: where a mixture's parts cancel out.
    """
    return torch.stack([_mean(mixture, [vector(part) for part in mixture.parts]) for mixture in mixtures])


def _mean(mixture: Mixture, vectors: list[Tensor]) -> Tensor:
    if len(vectors) == 1:
        return vectors[0]
    parts = torch.stack(vectors)  # [M, E]
    weights = parts.new_tensor([part.weight for part in mixture.parts])
    share = weights.abs() / weights.abs().sum()
    direction = (share * weights.sign()) @ F.normalize(parts, dim=-1)
    if direction.norm() < 1e-6:
        raise ValueError(f"prompt {mixture.prompt!r}: its parts cancel out; change a weight")
    return F.normalize(direction, dim=0) * (share @ parts.norm(dim=-1))
