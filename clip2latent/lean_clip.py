"""open_clip's models in forms of the same function and the same weights that take less time, above all to the images.

With frozen weights most of an embedding's gradient is products of tokens with weights. open_clip's own forms keep two
of them from being one product each: the attention's first, which torch splits by token where images come first, and the
first layer's gradient to the images, a strided convolution's.
"""

from __future__ import annotations

import torch.nn.functional as F
from open_clip.transformer import ResidualAttentionBlock, Transformer
from torch import Tensor, nn


class PatchConv(nn.Conv2d):
    """A convolution of patches that neither overlap nor leave gaps: on a CPU one product with its weight."""

    def forward(self, x: Tensor) -> Tensor:
        """x [B, C, H, W], the sides multiples of the patch's -> [B, O, H / k, W / k]."""
        height, width = self.kernel_size
        if x.device.type != "cpu" or x.shape[2] % height or x.shape[3] % width:
            return super().forward(x)
        patches = x.unflatten(3, (-1, width)).unflatten(2, (-1, height)).permute(0, 2, 4, 1, 3, 5).flatten(3)
        return F.linear(patches, self.weight.flatten(1), self.bias).permute(0, 3, 1, 2)


def make_lean_(clip: nn.Module) -> nn.Module:
    """Changes a model of open_clip to both forms, where it has the layers for them, and returns it."""
    tokens_first_(clip)
    conv = getattr(getattr(clip, "visual", None), "conv1", None)
    if type(conv) is nn.Conv2d and conv.kernel_size == conv.stride and conv.padding == (0, 0) and conv.groups == 1:
        conv.__class__ = PatchConv
    return clip


def tokens_first_(clip: nn.Module) -> None:
    """Hands tokens [T, B, W] instead of [B, T, W] to the blocks, as OpenAI's own code does."""
    for module in clip.modules():
        if type(module) is Transformer and all(type(block) is ResidualAttentionBlock for block in module.resblocks):
            module.batch_first = False
            for block in module.resblocks:
                block.attn.batch_first = False
