"""What BigGAN, BigGAN-deep and SAGAN share: conditional batch norm, self-attention, convolution after upsampling."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clip2latent.generators import frozen_conv

# Winograd's form pays from so many channels on both sides, on sides of so many pixels.
WINOGRAD_CHANNELS, WINOGRAD_SIDE = 384, 8

Map = Callable[[Tensor], Tensor]


class Conv3x3(nn.Conv2d):
    """A 3x3 convolution with padding 1; frozen and of many channels, on a CPU, Winograd's, with gradients and without.

    The weight that is kept for it takes 16/9 of the memory of its own, with BigGAN-256 in sum 0.5 GB, from the first
    image on.
    """

    def __init__(self, inputs: int, outputs: int):
        super().__init__(inputs, outputs, 3, padding=1)
        self.frozen = frozen_conv.Kept(frozen_conv.for_winograd)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Conv3x3:
        self.frozen.clear()
        return super()._apply(fn, recurse)

    def forward(self, x: Tensor) -> Tensor:
        """x [B, C, H, W] -> [B, C', H, W]."""
        weight, sides = self.weight, x.shape[2:]
        pays = min(weight.shape[:2]) >= WINOGRAD_CHANNELS and min(sides) >= WINOGRAD_SIDE
        # A parametrised weight is another tensor at each call: nothing to keep.
        frozen = isinstance(weight, nn.Parameter) and frozen_conv.is_frozen(x, weight)
        if pays and frozen and not (sides[0] % 2 or sides[1] % 2):
            # Contiguous, for the layers that follow are slower in channels_last.
            y = frozen_conv.WinogradConv.apply(x, self.frozen(weight).weight).contiguous()
            return y if self.bias is None else y + self.bias[:, None, None]
        return super().forward(x)


def linear_map(inputs: int, outputs: int, one_hot: bool) -> nn.Module:
    """Returns the layer of a map from class vectors: its weight is [I, O], an embedding's, for one-hot vectors."""
    return nn.Embedding(inputs, outputs) if one_hot else nn.Linear(inputs, outputs, bias=False)


def apply_linear(layer: nn.Module, y: Tensor) -> Tensor:
    """y [B, I] -> [B, O]; an embedding is extended linearly from one-hot vectors to all."""
    return y @ layer.weight if isinstance(layer, nn.Embedding) else layer(y)


def conditional_batch_norm(x: Tensor, mean: Tensor, var: Tensor, gain: Tensor, bias: Tensor, eps: float) -> Tensor:
    """Normalises x [B, C, H, W] with stored mean, var [C], then applies each image's gain, bias [B, C].

    Images and channels become the channels of one batch norm, a single pass over x.
    """
    batch, channels = x.shape[:2]
    flat = x.reshape(1, batch * channels, *x.shape[2:])
    flat = F.batch_norm(flat, mean.repeat(batch), var.repeat(batch), gain.flatten(), bias.flatten(), eps=eps)
    return flat.view(x.shape)


def upsample(x: Tensor) -> Tensor:
    """Doubles the side of x [B, C, H, W], nearest neighbour."""
    return F.interpolate(x, scale_factor=2, mode="nearest")


def conv_after_upsampling(x: Tensor, conv: nn.Conv2d) -> Tensor:
    """Applies a 3x3 convolution to the upsampled x: [B, C, H, W] -> [B, C', 2H, 2W].

    Neighbours in the upsampled image are equal, so that the two steps are one transposed convolution of stride 2 whose
    4x4 kernel sums the weights which meet the same pixel: 4 multiplications a pixel instead of 9. Images of few pixels
    do not repay the summing.
    """
    if x.shape[-1] < 32:
        return conv(upsample(x))
    kernel = conv.weight.flip(2, 3).transpose(0, 1)
    kernel = F.pad(kernel, (0, 1)) + F.pad(kernel, (1, 0))
    kernel = F.pad(kernel, (0, 0, 0, 1)) + F.pad(kernel, (0, 0, 1, 0))
    return F.conv_transpose2d(x, kernel, conv.bias, stride=2, padding=1)


def attention(x: Tensor, theta: Map, phi: Map, g: Map, o: Map) -> Tensor:
    """Self-attention of x [B, C, H, W] over its 2 x 2 pooled keys and values (arXiv:1805.08318, eq. 1, 2).

    theta, phi, g and o are the 1x1 convolutions of queries, keys, values and output.
    """
    batch, _, height, width = x.shape
    queries = theta(x).flatten(2)
    keys = F.max_pool2d(phi(x), 2).flatten(2)
    values = F.max_pool2d(g(x), 2).flatten(2)
    weights = torch.softmax(queries.transpose(1, 2) @ keys, dim=-1)
    # Weights come first in the product, so that no gradient of their size is transposed in memory.
    return o((weights @ values.transpose(1, 2)).transpose(1, 2).reshape(batch, -1, height, width))
