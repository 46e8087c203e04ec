"""The encoder of the objects' training: from a picture and its class to a distribution of z."""

from __future__ import annotations

import itertools

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from demo.discriminator import DownBlock, ScaledConv


class Encoder(nn.Module):
    """Images [B, 3, 64, 64] and classes [B] -> mean and log variance of z, each [B, dim_z]."""

    def __init__(self, channel_base: int, channel_max: int, n_classes: int, dim_z: int):
        """Builds it, with the discriminator's widths."""
        super().__init__()
        widths = [min(channel_base // side, channel_max) for side in (32, 16, 8, 4)]
        self.stem = ScaledConv(3 * 4, widths[0])
        self.blocks = nn.Sequential(*(DownBlock(i, o) for i, o in itertools.pairwise(widths)))
        self.conv = ScaledConv(widths[-1], widths[-1])
        self.neck = ScaledConv(16 * widths[-1], widths[-1], 1)
        self.classes = nn.Embedding(n_classes, widths[-1])
        nn.init.zeros_(self.classes.weight)
        self.head = ScaledConv(widths[-1], 2 * dim_z, 1, activate=False)

    def forward(self, images: Tensor, classes: Tensor, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
        """Returns the mean and the log variance; the class is known, so that z need not tell it."""
        x = F.pixel_unshuffle(images.to(dtype), 2).contiguous(memory_format=torch.channels_last)
        x = self.conv(self.blocks(self.stem(x))).float().flatten(1)
        x = self.neck(x[:, :, None, None]) + self.classes(classes)[:, :, None, None]
        mean, log_variance = self.head(x).flatten(1).chunk(2, dim=1)
        return mean, log_variance.clamp(-12, 8)

    def trunk(self) -> dict[str, Tensor]:
        """Returns the weights of what it shares with a discriminator of the same widths, by their names there."""
        own = ("classes.", "head.")
        return {name: value for name, value in self.state_dict().items() if not name.startswith(own)}


def divergence(mean: Tensor, log_variance: Tensor) -> Tensor:
    """Returns the Kullback-Leibler divergence from the standard normal, [B] (Kingma and Welling 2014, appendix B)."""
    return 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum(dim=1)
