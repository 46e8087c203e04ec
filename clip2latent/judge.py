"""A judge: a small classifier of a world's attributes, for measuring and never for optimising."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from clip2latent.assets import locate


class AttributeJudge(nn.Module):
    """Reads the attributes of images, one softmax each, from features that also serve for Frechet distances.

    Attributes:
        attributes: attribute -> its values, in the order of the logits.
        resolution: the side in pixels at which the judge sees images.
        feature_dim: F.
    """

    def __init__(
        self, attributes: Mapping[str, Sequence[str]], resolution: int = 64, width: int = 16, feature_dim: int = 64
    ) -> None:
        """Builds an untrained judge.

        Args:
            attributes: attribute -> its values.
            resolution: the side in pixels at which it sees images, a multiple of 16.
            width: channels of the first block.
            feature_dim: F.
        """
        super().__init__()
        if resolution % 16 or not attributes:
            raise ValueError(
                f"resolution must be a multiple of 16 and attributes not empty, got {resolution}, {attributes}"
            )
        self.attributes = {name: tuple(values) for name, values in attributes.items()}
        self.resolution = resolution
        self.feature_dim = feature_dim
        self.blocks = nn.Sequential(
            _block(3, width, 2),
            _block(width, width, 1),
            _block(width, 2 * width, 2),
            _block(2 * width, 2 * width, 1),
            _block(2 * width, 4 * width, 2),
            _block(4 * width, 4 * width, 1),
            _block(4 * width, 4 * width, 2),
        )
        cells = (resolution // 16) ** 2
        self.neck = nn.Sequential(nn.Flatten(), nn.Linear(4 * width * cells, feature_dim), nn.BatchNorm1d(feature_dim))
        self.heads = nn.ModuleDict({name: nn.Linear(feature_dim, len(v)) for name, v in self.attributes.items()})

    def features(self, images: Tensor) -> Tensor:
        """Returns the penultimate layer [B, F] of images [B, 3, R, R] in [-1, 1]; any R.

        Raises:
            ValueError: for another shape.
        """
        if images.ndim != 4 or images.shape[1] != 3:
            raise ValueError(f"images must be [B, 3, R, R], got {list(images.shape)}")
        if images.shape[-1] != self.resolution:
            size = (self.resolution, self.resolution)
            images = F.interpolate(images, size, mode="bilinear", antialias=True, align_corners=False)
        return F.relu(self.neck(self.blocks(images)))

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Returns logits [B, number of values] for every attribute of images [B, 3, R, R] in [-1, 1]."""
        features = self.features(images)
        return {name: head(features) for name, head in self.heads.items()}

    @torch.no_grad()
    def classify(self, images: Tensor) -> dict[str, Tensor]:
        """Returns the most probable value of every attribute, as indices [B] into its values."""
        return {name: logits.argmax(dim=-1) for name, logits in self(images).items()}


def _block(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    conv = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True))


def load_judge(source: str = "demo") -> AttributeJudge:
    """Loads a frozen judge.

    Args:
        source: "demo" for the judge of the embedded avatars, "demo-class-judge" for that of the embedded objects, else
            a folder with config.json and model.safetensors.

    Raises:
        FileNotFoundError: where there is no such folder.
        ValueError: where the weights do not fit.
    """
    from safetensors.torch import load_file

    folder = locate("demo-judge" if source == "demo" else source)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    judge = AttributeJudge(**config["init_args"])
    try:
        judge.load_state_dict(load_file(folder / "model.safetensors"), strict=True)
    except RuntimeError as error:
        raise ValueError(f"the judge's weights in {folder} do not fit its configuration: {error}") from error
    return judge.requires_grad_(False).eval()
