"""BigGAN as it is trained (Brock et al. 2019, arXiv:1809.11096): raw weights, batch statistics, 64 px.

`clip2latent.generators.biggan` reads the state this module ends with; see `standing_statistics_`.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from demo.biggan_layers import Attention, BatchNorm, Block, Conv, Linear, OutputNorm, SpectralNorm

WIDTHS = (16, 16, 8, 4, 2)
"""Channels of the official network of 64 px in multiples of ch: before the first block and after each."""


class TrainedBigGAN(nn.Module):
    """z [B, dim_z] and classes [B] -> images [B, 3, 64, 64]; a chunk of z for the 4 x 4 start and one for each block.

    Convolutions may run in half precision; weights, statistics and sigma stay float32.
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
        nn.init.normal_(self.shared.weight, std=1.0)
        self.linear = Linear(16 * widths[0], self.chunk)
        self.blocks = nn.ModuleList()
        for index, (inputs, outputs) in enumerate(itertools.pairwise(widths)):
            parts: list[nn.Module] = [Block(inputs, outputs, shared_dim + self.chunk)]
            if attention == 8 * 2**index:
                parts.append(Attention(outputs))
            self.blocks.append(nn.ModuleList(parts))
        self.output_layer = nn.Sequential(OutputNorm(widths[-1]), nn.ReLU(inplace=True), Conv(3, widths[-1], 3, 3))

    def forward(self, z: Tensor, classes: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
        """Returns images in [-1, 1], float32.

        Args:
            z: [B, dim_z].
            classes: [B].
            dtype: of the activations.
        """
        first, *others = z.split(self.chunk, dim=1)
        shared = self.shared(classes)
        x = self.linear(first).unflatten(1, (-1, 4, 4)).to(dtype).contiguous(memory_format=torch.channels_last)
        for parts, chunk in zip(self.blocks, others, strict=True):
            y = torch.cat([shared, chunk], dim=1)
            for part in parts:
                x = part(x, y)
        return self.output_layer(x).float().tanh()

    @torch.no_grad()
    def standing_statistics_(
        self, batches: Iterable[tuple[Tensor, Tensor]], dtype: torch.dtype = torch.float32
    ) -> None:
        """Replaces every stored mean and variance by the average over batches of (z, classes), and goes to eval mode.

        Every sigma is converged first, so that the statistics are those of the weights that will be used.

        Args:
            batches: z [B, dim_z] and classes [B].
            dtype: of the activations.
        """
        for module in self.eval().modules():
            if isinstance(module, SpectralNorm):
                module.converge_()
        norms = [module for module in self.modules() if isinstance(module, BatchNorm)]
        for number, (z, classes) in enumerate(batches, start=1):
            for norm in norms:
                norm.momentum, norm.training = 1 / number, True  # the layers within a norm keep their vectors
            self(z, classes, dtype)
        for norm in norms:
            norm.momentum, norm.training = BatchNorm.MOMENTUM, False
