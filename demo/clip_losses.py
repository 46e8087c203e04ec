"""The losses of the demo's CLIP: contrast between images and captions, and attributes read from either."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from demo.data import UNKNOWN, Batch, World, labels, visible


class Heads(nn.Module):
    """Linear classifiers of every world's attributes on unit embeddings, shared by images and captions."""

    def __init__(self, dim: int, worlds: Mapping[str, World]) -> None:
        """Builds a head for each attribute.

        Args:
            dim: E.
            worlds: by name.
        """
        super().__init__()
        self.worlds = dict(worlds)
        self.scale = nn.Parameter(torch.tensor(12.0))
        self.heads = nn.ModuleDict(
            {
                f"{name}_{attribute}": nn.Linear(dim, len(values))
                for name, world in worlds.items()
                for attribute, values in world.ATTRIBUTES.items()
            }
        )

    def loss(self, name: str, embeddings: Tensor, rows: list[Mapping[str, str]]) -> Tensor:
        """Returns the mean cross entropy over attributes of embeddings [B, E] of a world described by B rows."""
        losses = []
        for attribute, target in labels(self.worlds[name].ATTRIBUTES, rows).items():
            if (target != UNKNOWN).any():
                logits = self.heads[f"{name}_{attribute}"](self.scale * embeddings)
                losses.append(F.cross_entropy(logits, target.to(logits.device), ignore_index=UNKNOWN))
        return torch.stack(losses).mean()


def encode_captions(clip: nn.Module, tokens: Tensor, parts: int = 3) -> Tensor:
    """Returns what `clip.encode_text` does, without computing the padding: attention is causal, so none depends on it.

    Args:
        clip: an open_clip model with a causal text tower.
        tokens: [B, context].
        parts: captions of like length go together, in so many parts.

    Returns:
        [B, E], not normalised.
    """
    ends = tokens.argmax(dim=1)
    order = ends.argsort()
    features = []
    for rows in order.chunk(parts):
        length = int(ends[rows].max()) + 1
        x = clip.token_embedding(tokens[rows, :length]) + clip.positional_embedding[:length]
        x = clip.transformer(x, attn_mask=clip.attn_mask[:length, :length])
        x = clip.ln_final(x)[torch.arange(len(rows)), ends[rows]]
        features.append(x @ clip.text_projection)
    return torch.cat(features)[order.argsort()]


def contrast_and_attributes(
    logit_scale: Tensor, heads: Heads, image: Tensor, text: Tensor, parts: Sequence[Batch]
) -> dict[str, Tensor]:
    """Returns the contrastive loss (Radford et al. 2021, figure 3) and the heads' losses on images and captions.

    Args:
        logit_scale: logarithm of the factor of the cosines.
        heads: for the worlds, in the order of the parts.
        image: features [B, E] of the parts' images, one part after the other.
        text: features [B, E] of their captions.
        parts: one batch for each world.

    Returns:
        Losses by name, weighted, to be summed.
    """
    image, text = F.normalize(image, dim=-1), F.normalize(text, dim=-1)
    logits = logit_scale.exp().clamp(max=100) * image @ text.T
    own = torch.arange(len(logits), device=logits.device)
    losses = {"contrast": (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2}
    sizes = [len(part.captions) for part in parts]
    for (name, world), part, seen, read in zip(
        heads.worlds.items(), parts, image.split(sizes), text.split(sizes), strict=True
    ):
        losses[f"{name}_image"] = heads.loss(name, seen, [visible(world, row) for row in part.attributes])
        losses[f"{name}_text"] = 0.5 * heads.loss(name, read, [world.parse(caption) for caption in part.captions])
    return losses
