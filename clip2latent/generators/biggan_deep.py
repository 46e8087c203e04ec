"""BigGAN-deep (arXiv:1809.11096, app. B, fig. 16) with the names of huggingface/pytorch-pretrained-BigGAN."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clip2latent.generators import biggan_layers as shared
from clip2latent.generators.class_latents import ClassLatents
from clip2latent.generators.official import build_loaded
from clip2latent.generators.spectral import bake_as_stored

# (doubles the side, multiple of channel_width that enters, multiple that leaves)
LAYERS_128 = (
    *((False, 16, 16), (True, 16, 16), (False, 16, 16), (True, 16, 8), (False, 8, 8)),
    *((True, 8, 4), (False, 4, 4), (True, 4, 2), (False, 2, 2), (True, 2, 1)),
)
LAYERS_256 = (*LAYERS_128[:5], (True, 8, 8), (False, 8, 8), *LAYERS_128[5:])
LAYERS_512 = (*LAYERS_256, (False, 1, 1), (True, 1, 1))

# The published config.json files; their other entries are the constructor's defaults.
PRESETS = {
    f"biggan-deep-{side}": {
        "output_dim": side,
        "layers": [list(layer) for layer in layers],
        "attention_layer_position": 8,
    }
    for side, layers in ((128, LAYERS_128), (256, LAYERS_256), (512, LAYERS_512))
}


class Row(NamedTuple):
    """Where a truncation stands in the table of statistics: row `index`, or that and the next one."""

    index: int
    share: float
    """Weight of row `index`; 0 where `index` alone counts."""


def statistics_row(truncation: float, n_stats: int) -> Row:
    """Returns the row for a truncation in (0, 1] of a table for n_stats truncations from 0 to 1.

    Between two rows the original weights them the wrong way round, and float division misplaces some truncations
    that have a row of their own (0.14 takes 0.16's). Both are kept: the published samples were made so.
    """
    share, index = math.modf(truncation / (1.0 / (n_stats - 1)))
    return Row(int(index), share)


class Norm(nn.Module):
    """Batch norm with a table of statistics, gain and bias learned or, given a condition's width, linear in it."""

    def __init__(self, channels: int, n_stats: int, eps: float, condition: int | None = None):
        super().__init__()
        self.eps = eps
        self.register_buffer("running_means", torch.zeros(n_stats, channels))
        self.register_buffer("running_vars", torch.ones(n_stats, channels))
        if condition is None:
            self.weight, self.bias = nn.Parameter(torch.ones(channels)), nn.Parameter(torch.zeros(channels))
        else:
            self.scale = nn.Linear(condition, channels, bias=False)
            self.offset = nn.Linear(condition, channels, bias=False)

    def forward(self, x: Tensor, row: Row, condition: Tensor | None = None) -> Tensor:
        mean, var = (
            table[row.index] * row.share + table[row.index + 1] * (1 - row.share) if row.share else table[row.index]
            for table in (self.running_means, self.running_vars)
        )
        if condition is None:
            return F.batch_norm(x, mean, var, self.weight, self.bias, eps=self.eps)
        gain, bias = 1 + self.scale(condition), self.offset(condition)
        return shared.conditional_batch_norm(x, mean, var, gain, bias, self.eps)


class Block(nn.Module):
    """Bottleneck block; the shortcut keeps the first of the channels that are to leave."""

    def __init__(self, inputs: int, outputs: int, condition: int, up: bool, n_stats: int, eps: float):
        super().__init__()
        self.up, self.kept = up, inputs if inputs == outputs else inputs // 2
        middle = inputs // 4
        self.bn_0 = Norm(inputs, n_stats, eps, condition)
        self.conv_0 = nn.Conv2d(inputs, middle, 1)
        self.bn_1 = Norm(middle, n_stats, eps, condition)
        self.conv_1 = nn.Conv2d(middle, middle, 3, padding=1)
        self.bn_2 = Norm(middle, n_stats, eps, condition)
        self.conv_2 = nn.Conv2d(middle, middle, 3, padding=1)
        self.bn_3 = Norm(middle, n_stats, eps, condition)
        self.conv_3 = nn.Conv2d(middle, outputs, 1)

    def forward(self, x: Tensor, condition: Tensor, row: Row) -> Tensor:
        """x [B, C, H, W], condition [B, Y] -> [B, C', H, W] or [B, C', 2H, 2W]."""
        h = self.conv_0(F.relu(self.bn_0(x, row, condition)))
        h = F.relu(self.bn_1(h, row, condition))
        h = shared.conv_after_upsampling(h, self.conv_1) if self.up else self.conv_1(h)
        h = self.conv_2(F.relu(self.bn_2(h, row, condition)))
        h = self.conv_3(F.relu(self.bn_3(h, row, condition)))
        x = x[:, : self.kept]
        return h + (shared.upsample(x) if self.up else x)


class Attention(nn.Module):
    """Self-attention added to its input."""

    def __init__(self, channels: int):
        super().__init__()
        self.snconv1x1_theta = nn.Conv2d(channels, channels // 8, 1, bias=False)
        self.snconv1x1_phi = nn.Conv2d(channels, channels // 8, 1, bias=False)
        self.snconv1x1_g = nn.Conv2d(channels, channels // 2, 1, bias=False)
        self.snconv1x1_o_conv = nn.Conv2d(channels // 2, channels, 1, bias=False)
        self.gamma = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor, condition: Tensor, row: Row) -> Tensor:
        maps = self.snconv1x1_theta, self.snconv1x1_phi, self.snconv1x1_g, self.snconv1x1_o_conv
        return x + self.gamma * shared.attention(x, *maps)


class Generator(nn.Module):
    """The condition, z and class embedding side by side [B, Y] -> images [B, 3, R, R]."""

    def __init__(
        self,
        condition: int,
        channel_width: int,
        layers: Sequence[Sequence],
        attention_layer_position: int,
        n_stats: int,
        eps: float,
    ):
        super().__init__()
        self.gen_z = nn.Linear(condition, 4 * 4 * 16 * channel_width)
        self.layers = nn.ModuleList()
        for index, (up, inputs, outputs) in enumerate(layers):
            inputs, outputs = inputs * channel_width, outputs * channel_width
            if index == attention_layer_position:
                self.layers.append(Attention(inputs))
            self.layers.append(Block(inputs, outputs, condition, bool(up), n_stats, eps))
        self.bn = Norm(channel_width, n_stats, eps)
        self.conv_to_rgb = nn.Conv2d(channel_width, channel_width, 3, padding=1)

    def forward(self, condition: Tensor, row: Row) -> Tensor:
        h = self.gen_z(condition).unflatten(1, (4, 4, -1)).permute(0, 3, 1, 2).contiguous()
        for layer in self.layers:
            h = layer(h, condition, row)
        h = F.relu(self.bn(h, row))
        # The published layer has channel_width outputs; three of them are the image.
        return torch.tanh(F.conv2d(h, self.conv_to_rgb.weight[:3], self.conv_to_rgb.bias[:3], padding=1))


class BigGANDeep(ClassLatents):
    """A BigGAN-deep generator; implements ClassConditional.

    Latents are one row [B, 1, D]: z, already multiplied by the truncation, and the class's embedding.
    """

    def __init__(
        self,
        output_dim: int = 128,
        z_dim: int = 128,
        class_embed_dim: int = 128,
        channel_width: int = 128,
        num_classes: int = 1000,
        layers: Sequence[Sequence] = LAYERS_128,
        attention_layer_position: int = 8,
        eps: float = 1e-4,
        n_stats: int = 51,
        class_names: Sequence[str] | None = None,
        truncation: float = 1.0,
    ):
        """Builds an untrained network, without spectral norm; the arguments are those of the package's config.json.

        Args beyond the package's:
            class_names: a name for each class; ImageNet's labels for 1000 classes, else numbers, when None.
            truncation: factor of the truncated normal that `sample_latents` draws z from; selects the statistics.

        Raises:
            ValueError: `layers` do not lead from 16 channel widths to one, keeping or halving them.
        """
        # Neither class_embed_dim nor output_dim shapes the package's network: z_dim and the layers do.
        super().__init__(z_dim, z_dim, num_classes, class_names, truncation)
        leaves = [16, *(layer[2] for layer in layers)]
        if [layer[1] for layer in layers] != leaves[:-1] or leaves[-1] != 1:
            raise ValueError(f"layers: expected multiples from 16 to 1, each entering as the last left, got {layers}")
        if any(entering not in (leaving, 2 * leaving) for _, entering, leaving in layers):
            raise ValueError(f"layers: expected blocks that keep or halve their channels, got {layers}")
        self.init_args = {
            "output_dim": output_dim,
            "z_dim": z_dim,
            "class_embed_dim": class_embed_dim,
            "channel_width": channel_width,
            "num_classes": num_classes,
            "layers": [[bool(up), int(entering), int(leaving)] for up, entering, leaving in layers],
            "attention_layer_position": attention_layer_position,
            "eps": eps,
            "n_stats": n_stats,
            "class_names": None if class_names is None else list(class_names),
            "truncation": truncation,
        }
        self.resolution, self.n_stats = 4 << sum(bool(layer[0]) for layer in layers), n_stats
        self.embeddings = nn.Linear(num_classes, z_dim, bias=False)
        self.generator = Generator(2 * z_dim, channel_width, layers, attention_layer_position, n_stats, eps)

    def class_vectors(self, classes: Tensor) -> Tensor:
        """classes [B], indices -> embeddings [B, V]."""
        return self.embeddings.weight.t()[classes]

    def forward(self, z: Tensor, class_vectors: Tensor) -> Tensor:
        """z [B, Z], class_vectors [B, V] -> images [B, 3, R, R] in [-1, 1]."""
        condition = torch.cat([z, class_vectors], dim=1)
        return self.generator(condition, statistics_row(self.truncation, self.n_stats))


def from_official(state: Mapping[str, Tensor], **arguments) -> BigGANDeep:
    """Returns the frozen generator of the package's pytorch_model.bin, spectral norm baked.

    Args:
        state: names of the package's BigGAN: weight_orig, weight_u, weight_v where spectral normalisation was used.
        **arguments: BigGANDeep's constructor arguments, config.json's.

    Raises:
        ValueError: the state does not fit the arguments; lists missing, unexpected and mis-shaped keys.
    """
    with torch.device("meta"):
        generator = BigGANDeep(**arguments)
    layers = [f"generator.{n}" for n, m in generator.generator.named_modules() if isinstance(m, (nn.Linear, nn.Conv2d))]
    return build_loaded(lambda: generator, bake_as_stored(state, generator, layers))
