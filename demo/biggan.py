"""BigGAN as it is trained (Brock et al. 2019, arXiv:1809.11096): raw weights, batch statistics, 64 px.

`clip2latent.generators.biggan` reads the state this module ends with; see `standing_statistics_`.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from demo.biggan_layers import Attention, BatchNorm, Block, Conv, Linear, OutputNorm, SpectralNorm

WIDTHS = (16, 16, 8, 4, 2)
"""Channels of the official network of 64 px in multiples of ch: before the first block and after each."""


class TrainedBigGAN(nn.Module):
    """z [B, dim_z] and classes [B] -> images [B, 3, 64, 64]; a chunk of z for the 4 x 4 start and one for each block.

    An output layer of its own after the last block but one gives images of 32 px, for the first part of a training;
    it is no part of the finished network. Convolutions may run in half precision; weights, statistics and sigma stay
    float32.
    """

    def __init__(self, ch: int, dim_z: int, shared_dim: int, n_classes: int, attention: int | None = None):
        """Builds it; attention is the side after whose block it stands.

        Raises:
            ValueError: for a dim_z that the chunks do not divide.
        """
        super().__init__()
        widths = [ch * factor for factor in WIDTHS]
        if dim_z % len(widths):
            raise ValueError(f"dim_z: expected a multiple of {len(widths)}, the number of chunks, got {dim_z}")
        self.dim_z, self.n_classes, self.chunk = dim_z, n_classes, dim_z // len(widths)
        self.shared = nn.Embedding(n_classes, shared_dim)
        # rows of about unit length, as the official orthogonal start has them: z leads at first, not the class
        nn.init.normal_(self.shared.weight, std=shared_dim**-0.5)
        self.linear = Linear(16 * widths[0], self.chunk)
        self.blocks = nn.ModuleList()
        for index, (inputs, outputs) in enumerate(itertools.pairwise(widths)):
            parts: list[nn.Module] = [Block(inputs, outputs, shared_dim + self.chunk)]
            if attention == 8 * 2**index:
                parts.append(Attention(outputs))
            self.blocks.append(nn.ModuleList(parts))
        self.output_layer, self.early_layer = (
            nn.Sequential(OutputNorm(width), nn.ReLU(inplace=True), Conv(3, width, 3, 3))
            for width in (widths[-1], widths[-2])
        )

    def forward(
        self, z: Tensor, classes: Tensor, dtype: torch.dtype = torch.float32, share: float | None = 1.0
    ) -> Tensor:
        """Returns images in [-1, 1], float32.

        Args:
            z: [B, dim_z].
            classes: [B].
            dtype: of the activations.
            share: of the last block in the image: None for images of 32 px; below 1 for a mixture of both layers'
                outputs at 64 px (Karras et al. 2018, arXiv:1710.10196, figure 2); 1 for the finished network.
        """
        first, *others = z.split(self.chunk, dim=1)
        shared = self.shared(classes)
        x = self.linear(first).unflatten(1, (-1, 4, 4)).to(dtype).contiguous(memory_format=torch.channels_last)
        for parts, chunk in zip(self.blocks, others, strict=True):
            if parts is self.blocks[-1] and share != 1:
                early = self.early_layer(x).float()
                if share is None:
                    return early.tanh()
            y = torch.cat([shared, chunk], dim=1)
            for part in parts:
                x = part(x, y)
        image = self.output_layer(x).float()
        if share != 1:
            image = torch.lerp(F.interpolate(early, scale_factor=2, mode="nearest"), image, share)
        return image.tanh()

    def official_state(self) -> dict[str, Tensor]:
        """Returns the finished network's parameters and buffers by their official names."""
        return {name: value for name, value in self.state_dict().items() if not name.startswith("early_layer.")}

    @torch.no_grad()
    def standing_statistics_(self, batches: Iterable[tuple[Tensor, Tensor]], **how: Any) -> None:
        """Replaces every stored mean and variance by the average over batches of (z, classes), and goes to eval mode.

        Every sigma is converged first, so that the statistics are those of the weights that will be used.

        Args:
            batches: z [B, dim_z] and classes [B].
            how: dtype and share, as in forward.
        """
        for module in self.eval().modules():
            if isinstance(module, SpectralNorm):
                module.converge_()
        norms = [module for module in self.modules() if isinstance(module, BatchNorm)]
        for number, (z, classes) in enumerate(batches, start=1):
            for norm in norms:
                norm.momentum, norm.training = 1 / number, True  # the layers within a norm keep their vectors
            self(z, classes, **how)
        for norm in norms:
            norm.momentum, norm.training = BatchNorm.MOMENTUM, False
