"""Objectives: images [B, 3, R, R] in [-1, 1] -> loss [B], lower is better, differentiable."""

from __future__ import annotations

from torch import Tensor

from clip2latent.interfaces import Embedder, Objective


def clip_objective(embedder: Embedder, text_embedding: Tensor) -> Objective:
    """Returns the objective 1 - cosine between an image's embedding and a text's.

    Args:
        embedder: embeds the images; the same that embedded the text.
        text_embedding: [E], unit norm.
    """
    if text_embedding.shape != (embedder.dim,):
        raise ValueError(f"text_embedding: expected shape ({embedder.dim},), got {tuple(text_embedding.shape)}")

    def loss(images: Tensor) -> Tensor:
        return 1 - embedder.embed_images(images) @ text_embedding

    return loss
