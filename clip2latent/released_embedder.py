"""The embeddings that the authors' published priors were trained on; for those checkpoints and nothing else.

The original clip2latent (justinpinkney/clip2latent, `Clipper`) normalises its images, clamps the result to [0, 1] and
normalises it again; on uniformly drawn pixels the clamp cuts 73% of all values. It neither filters when it resizes but
averages areas, nor divides features by their norm. Its priors know no other embeddings, so this reproduces them.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from clip2latent.embedders import OpenCLIPEmbedder, load_open_clip


class ReleasedEmbedder(nn.Module):
    """An open_clip model with the original's preprocessing.

    It has an Embedder's methods, but is none by contract: its embeddings have the model's own norm (about 10 for
    ViT-B/32), and an image's colours come out saturated. CLIP scores need `torch.nn.functional.normalize` first and are
    not comparable with those of `OpenCLIPEmbedder`.

    Attributes:
        dim: E.
        resolution: the side in pixels at which the model sees images.
        identity: what decides the embeddings besides the weights.
    """

    def __init__(self, embedder: OpenCLIPEmbedder) -> None:
        """Wraps an embedder; its own preprocessing and division by the norm are left out.

        Args:
            embedder: of the CLIP that the checkpoint names.
        """
        super().__init__()
        self.embedder = embedder
        self.dim, self.resolution = embedder.dim, embedder.resolution
        preprocessing = embedder.identity["preprocessing"] | {"interpolation": "area", "clamp": "normalised, twice"}
        self.identity = embedder.identity | {"preprocessing": preprocessing, "norm": "raw"}
        self.eval()

    def train(self, mode: bool = True) -> ReleasedEmbedder:
        """Stays in evaluation mode."""
        return super().train(False)

    def embed_text(self, prompts: Sequence[str]) -> Tensor:
        """Embeds P prompts into [P, E], of any norm; raises as OpenCLIPEmbedder does."""
        return self.embedder.text_features(prompts)

    def embed_images(self, images: Tensor) -> Tensor:
        """Embeds images [B, 3, R, R] in [-1, 1] into [B, E], of any norm; differentiable where nothing is clamped."""
        return self.embedder.image_features(images, self.preprocess)

    def preprocess(self, images: Tensor) -> Tensor:
        """Maps images [B, 3, R, R] in [-1, 1] to what the original showed the model."""
        mean, std = self.embedder.mean, self.embedder.std
        resized = F.interpolate(images, (self.resolution, self.resolution), mode="area")
        once = (((resized + 1) / 2 - mean) / std).clamp(0, 1)
        return (once - mean) / std


def load_released_embedder(
    model: str = "ViT-B-32-quickgelu",
    pretrained: str = "openai",
    weights: str | None = None,
    truncate: bool = False,
    precision: str = "fp32",
    chunk: int | None = None,
) -> ReleasedEmbedder:
    """Loads the embedder of the authors' checkpoints: OpenAI's CLIP with the original's preprocessing.

    Args:
        model: open_clip's name of the architecture; the published priors take ViT-B/32.
        pretrained: one of its tags.
        weights: a local file of the tag's weights, in place of the download.
        truncate: cut prompts that are too long instead of refusing them.
        precision: of the weights: "fp32", "bf16" or "fp16".
        chunk: images encoded at once; None for what OpenCLIPEmbedder recommends.

    Raises:
        FileNotFoundError: where a file is missing, here or on the Hub.
        ValueError: as `load_open_clip`.
    """
    embedder = load_open_clip(model, pretrained, None, truncate, weights, precision=precision, chunk=chunk)
    return ReleasedEmbedder(embedder)
