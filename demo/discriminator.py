"""The demo's discriminator: a small residual network that knows the attributes asked for."""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class ScaledConv(nn.Module):
    """A convolution whose weight is drawn from N(0, 1) and scaled when used (Karras et al. 2018, section 4.1)."""

    def __init__(self, inputs: int, outputs: int, side: int = 3, activate: bool = True):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs, side, side))
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.gain, self.activate = 1 / math.sqrt(inputs * side * side), activate

    def forward(self, x: Tensor) -> Tensor:
        weight, bias = (self.weight * self.gain).to(x.dtype), self.bias.to(x.dtype)
        x = F.conv2d(x, weight, bias, padding=self.weight.shape[-1] // 2)
        return F.leaky_relu(x, 0.2) * math.sqrt(2) if self.activate else x


class DownBlock(nn.Module):
    """Halves the side: [B, I, H, W] -> [B, O, H/2, W/2], with a residual shortcut."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.conv0 = ScaledConv(inputs, inputs)
        self.conv1 = ScaledConv(inputs, outputs)
        self.shortcut = ScaledConv(inputs, outputs, side=1, activate=False)

    def forward(self, x: Tensor) -> Tensor:
        deep = self.conv1(F.avg_pool2d(self.conv0(x), 2))
        return (deep + self.shortcut(F.avg_pool2d(x, 2))) * math.sqrt(0.5)


class Discriminator(nn.Module):
    """Images [B, 3, R, R] and labels [B, A] -> logits [B], R 32 or 64; works at a side of 32 after the stem.

    The attributes enter by projection (Miyato and Koyama 2018, arXiv:1802.05637, eq. 3), summed over those not hidden.
    There is no minibatch statistic: each logit depends on its own image alone, which `demo.gan.gradients` uses.
    """

    def __init__(self, resolution: int, channel_base: int, channel_max: int, sizes: Sequence[int]):
        """Builds it for attributes with the given numbers of values."""
        super().__init__()
        if resolution not in (32, 64):
            raise ValueError(f"resolution: expected 32 or 64, got {resolution}")
        self.factor = resolution // 32
        widths = [min(channel_base // side, channel_max) for side in (32, 16, 8, 4)]
        self.stem = ScaledConv(3 * self.factor**2, widths[0])
        self.blocks = nn.Sequential(*(DownBlock(i, o) for i, o in itertools.pairwise(widths)))
        self.conv = ScaledConv(widths[-1], widths[-1])
        self.neck = ScaledConv(16 * widths[-1], widths[-1], 1)
        self.head = ScaledConv(widths[-1], 1, 1, activate=False)
        self.tables = nn.ParameterList(nn.Parameter(torch.zeros(size + 1, widths[-1])) for size in sizes)

    def forward(self, images: Tensor, labels: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
        """labels index each attribute's values; -1 where the attribute is hidden."""
        x = images.to(dtype)
        if self.factor > 1:
            x = F.pixel_unshuffle(x, self.factor)
        x = self.conv(self.blocks(self.stem(x.contiguous(memory_format=torch.channels_last))))
        x = self.neck(x.float().flatten(1)[:, :, None, None])
        shown = (labels >= 0).to(x)[:, :, None]
        rows = torch.stack([table[column] for table, column in zip(self.tables, labels.unbind(1), strict=True)], dim=1)
        asked = (rows * shown).sum(dim=1) / math.sqrt(x.shape[1])
        return self.head(x).flatten() + (asked * x.flatten(1)).sum(dim=1)

    @torch.no_grad()
    def grow(self) -> Discriminator:
        """Returns a discriminator of twice the resolution that agrees with this one on images scaled down by 2."""
        grown = copy.deepcopy(self)
        grown.factor = 2 * self.factor
        weight = self.stem.weight
        grown.stem = ScaledConv(4 * weight.shape[1], weight.shape[0])
        # sum over 4 pixels / 4, times the ratio sqrt(4) of the two gains
        grown.stem.weight.copy_(weight.repeat_interleave(4, dim=1) / 2)
        grown.stem.bias.copy_(self.stem.bias)
        return grown
