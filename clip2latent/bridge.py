"""Bridge: across the modality gap, from where images' and texts' embeddings lie to one place where both lie."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Bridge(nn.Module):
    """Takes the mean of its modality from an embedding: e -> normalise(e - mean).

    CLIP's images and texts lie in two cones whose axes differ (Liang et al. 2022, "Mind the Gap", arXiv:2203.02053);
    a prior trained on images is asked with texts. Means of zero leave embeddings as they are.

    Attributes:
        image_mean: mean embedding of images [E].
        text_mean: mean embedding of texts [E].
    """

    image_mean: Tensor
    text_mean: Tensor

    def __init__(self, image_mean: Tensor, text_mean: Tensor) -> None:
        """Stores both means [E].

        Raises:
            ValueError: where they are not two finite vectors of one width.
        """
        super().__init__()
        if image_mean.ndim != 1 or image_mean.shape != text_mean.shape:
            raise ValueError(
                f"image_mean and text_mean must be [E], got {tuple(image_mean.shape)} and {tuple(text_mean.shape)}"
            )
        if not (image_mean.isfinite().all() and text_mean.isfinite().all()):
            raise ValueError("image_mean and text_mean must be finite")
        self.register_buffer("image_mean", image_mean.detach().clone().float())
        self.register_buffer("text_mean", text_mean.detach().clone().float())

    @classmethod
    def plain(cls, dim: int) -> Bridge:
        """Returns the bridge of width E that leaves embeddings as they are."""
        return cls(torch.zeros(dim), torch.zeros(dim))

    @classmethod
    def of(cls, dataset: Mapping[str, Any], centre: bool) -> Bridge:
        """Returns the bridge for a dataset (dataset.json's content): by its modalities' means, or the plain one.

        Raises:
            ValueError: where the dataset holds no mean of texts to centre by.
        """
        if not centre:
            return cls.plain(dataset["embedding_dim"])
        if not dataset.get("text_mean"):
            raise ValueError(
                "centre=True needs the mean embedding of texts, which this dataset does not hold: make it with"
                " `python -m datagen ... --texts FILE` (any file of prompts), or train with centre=False"
            )
        return cls(*(torch.tensor(dataset[name], dtype=torch.float64) for name in ("embedding_mean", "text_mean")))

    def images(self, embeddings: Tensor) -> Tensor:
        """Maps embeddings of images [B, E] to conditions [B, E], unit norm."""
        return _centred(embeddings, self.image_mean)

    def texts(self, embeddings: Tensor) -> Tensor:
        """Maps embeddings of texts [B, E] to conditions [B, E], unit norm."""
        return _centred(embeddings, self.text_mean)


def _centred(embeddings: Tensor, mean: Tensor) -> Tensor:
    # Without a mean the bits stay as they are: dividing by a norm of 1 would still round. No branch: it would wait for
    # the device at every training step.
    return torch.where(mean.any(), F.normalize(embeddings - mean, dim=-1), embeddings)
