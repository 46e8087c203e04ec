"""SAGAN (arXiv:1805.08318) with the names and constructor arguments of POSTECH-CVLab/PyTorch-StudioGAN's resnet."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clip2latent.generators import biggan_layers as layers
from clip2latent.generators.class_latents import ClassLatents
from clip2latent.generators.official import build_loaded
from clip2latent.generators.spectral import bake_as_stored

# Multiples of g_conv_dim that enter the blocks and leave the last one.
CHANNELS = {
    32: (4, 4, 4, 4),
    64: (16, 8, 4, 2, 1),
    128: (16, 16, 8, 4, 2, 1),
    256: (16, 16, 8, 8, 4, 2, 1),
    512: (16, 16, 8, 8, 4, 2, 1, 1),
}

# configs/ImageNet/SAGAN.json beside the released file.
PRESETS = {
    "sagan-128": {
        "img_size": 128,
        "g_conv_dim": 64,
        "z_dim": 128,
        "attention_after_nth_gen_block": 4,
        "num_classes": 1000,
    }
}

ACTIVATIONS = {
    "ReLU": F.relu,
    "Leaky_ReLU": functools.partial(F.leaky_relu, negative_slope=0.1),
    "ELU": F.elu,
    "GELU": F.gelu,
}
LAYOUTS = {"embedding": ("embed0", "embed1"), "linear": ("gain", "bias")}
CLASS_CONDITIONAL = ("ACGAN", "ProjGAN", "ContraGAN", "Proxy_NCA_GAN", "NT_Xent_GAN")
BN_EPS = 1e-4


class ConditionalNorm(nn.Module):
    """Batch norm whose gain and bias are linear in the class vector."""

    def __init__(self, channels: int, num_classes: int, layout: str):
        super().__init__()
        self.bn = nn.BatchNorm2d(channels, eps=BN_EPS, affine=False)
        self.names = LAYOUTS[layout]
        for name in self.names:
            self.add_module(name, layers.linear_map(num_classes, channels, one_hot=layout == "embedding"))

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        gain, bias = (layers.apply_linear(getattr(self, name), y) for name in self.names)
        return layers.conditional_batch_norm(x, self.bn.running_mean, self.bn.running_var, 1 + gain, bias, BN_EPS)


class Block(nn.Module):
    """Residual block that doubles the side."""

    def __init__(self, inputs: int, outputs: int, num_classes: int, layout: str, activation: layers.Map):
        super().__init__()
        self.activation = activation
        self.bn1 = ConditionalNorm(inputs, num_classes, layout)
        self.bn2 = ConditionalNorm(outputs, num_classes, layout)
        self.conv2d0 = nn.Conv2d(inputs, outputs, 1)
        self.conv2d1 = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.conv2d2 = nn.Conv2d(outputs, outputs, 3, padding=1)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """x [B, C, H, W], y [B, classes] -> [B, C', 2H, 2W]."""
        h = layers.conv_after_upsampling(self.activation(self.bn1(x, y)), self.conv2d1)
        h = self.conv2d2(self.activation(self.bn2(h, y)))
        return h + layers.upsample(self.conv2d0(x))  # a 1x1 convolution commutes with nearest neighbour


class Attention(nn.Module):
    """Self-attention added to its input."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv1x1_theta = nn.Conv2d(channels, channels // 8, 1, bias=False)
        self.conv1x1_phi = nn.Conv2d(channels, channels // 8, 1, bias=False)
        self.conv1x1_g = nn.Conv2d(channels, channels // 2, 1, bias=False)
        self.conv1x1_attn = nn.Conv2d(channels // 2, channels, 1, bias=False)
        self.sigma = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        maps = self.conv1x1_theta, self.conv1x1_phi, self.conv1x1_g, self.conv1x1_attn
        return x + self.sigma * layers.attention(x, *maps)


class SAGAN(ClassLatents):
    """A SAGAN generator; implements ClassConditional.

    There is no shared embedding: each norm has its own, and is linear in a class vector [num_classes] that is one-hot
    for a class. Latents are one row [B, 1, D]: z and that vector. z was trained on a plain normal; it is drawn from the
    part within [-2, 2], so that what is drawn is what `project` admits.
    """

    def __init__(
        self,
        img_size: int = 128,
        g_conv_dim: int = 64,
        z_dim: int = 128,
        num_classes: int = 1000,
        attention: bool = True,
        attention_after_nth_gen_block: int | Sequence[int] = 4,
        activation_fn: str = "ReLU",
        g_spectral_norm: bool = True,
        conditional_strategy: str = "ProjGAN",
        layout: str = "embedding",
        class_names: Sequence[str] | None = None,
        truncation: float = 1.0,
        shared_dim: object = None,
        initialize: object = None,
        G_depth: object = None,
        mixed_precision: object = None,
    ):
        """Builds an untrained network, without spectral norm; the arguments are the official ones.

        The last four have no effect on a SAGAN in eval mode.

        Args beyond the official ones:
            layout: of the norms' parameters, "embedding" (embed0, embed1 [classes, C]: the released files) or "linear"
                (gain, bias [C, classes]: later versions).
            class_names: a name for each class; ImageNet's labels for 1000 classes, else numbers, when None.
            truncation: factor of the truncated normal that `sample_latents` draws z from.

        Raises:
            ValueError: for values outside the family.
        """
        for name, value, known in (
            ("img_size", img_size, CHANNELS),
            ("activation_fn", activation_fn, ACTIVATIONS),
            ("layout", layout, LAYOUTS),
            ("conditional_strategy", conditional_strategy, CLASS_CONDITIONAL),
        ):
            if value not in known:
                raise ValueError(f"{name}: expected one of {', '.join(map(str, known))}, got {value!r}")
        super().__init__(z_dim, num_classes, num_classes, class_names, truncation)
        after = attention_after_nth_gen_block
        after = [after] if isinstance(after, int) else [int(block) for block in after]
        self.init_args = {
            "img_size": img_size,
            "g_conv_dim": g_conv_dim,
            "z_dim": z_dim,
            "num_classes": num_classes,
            "attention": attention,
            "attention_after_nth_gen_block": after,
            "activation_fn": activation_fn,
            "g_spectral_norm": g_spectral_norm,
            "conditional_strategy": conditional_strategy,
            "layout": layout,
            "class_names": None if class_names is None else list(class_names),
            "truncation": truncation,
        }
        self.resolution = img_size
        widths = [g_conv_dim * factor for factor in CHANNELS[img_size]]
        self.activation = ACTIVATIONS[activation_fn]
        self.linear0 = nn.Linear(z_dim, widths[0] * 4 * 4)
        blocks: list[nn.Module] = []
        for number, (inputs, outputs) in enumerate(itertools.pairwise(widths), start=1):
            blocks.append(Block(inputs, outputs, num_classes, layout, self.activation))
            if attention and number in after:
                blocks.append(Attention(outputs))
        self.blocks = nn.ModuleList(nn.ModuleList([block]) for block in blocks)
        self.bn4 = nn.BatchNorm2d(widths[-1], eps=BN_EPS)
        self.conv2d5 = nn.Conv2d(widths[-1], 3, 3, padding=1)

    def class_vectors(self, classes: Tensor) -> Tensor:
        """classes [B], indices -> one-hot vectors [B, V]."""
        return F.one_hot(classes, self.num_classes).to(self.linear0.weight.dtype)

    def forward(self, z: Tensor, class_vectors: Tensor) -> Tensor:
        """z [B, Z], class_vectors [B, V] -> images [B, 3, R, R] in [-1, 1]."""
        h = self.linear0(z).view(len(z), -1, 4, 4)
        for (block,) in self.blocks:
            h = block(h, class_vectors)
        return torch.tanh(self.conv2d5(self.activation(self.bn4(h))))


def from_official(state: Mapping, **arguments) -> SAGAN:
    """Returns the frozen generator of a StudioGAN state dict of either layout, spectral norm baked.

    Args:
        state: names of StudioGAN's Generator, or a checkpoint that holds them under "state_dict".
        **arguments: SAGAN's constructor arguments; the layout is read from the names.

    Raises:
        ValueError: the state does not fit the arguments; lists missing, unexpected and mis-shaped keys.
    """
    state = state.get("state_dict", state)
    linear = any(name.startswith("blocks.0.0.bn1.gain.") for name in state)
    with torch.device("meta"):
        generator = SAGAN(**{"layout": "linear" if linear else "embedding", **arguments})
    if generator.init_args["g_spectral_norm"]:
        kinds = (nn.Linear, nn.Conv2d, nn.Embedding)
        names = [name for name, module in generator.named_modules() if isinstance(module, kinds)]
        state = bake_as_stored(state, generator, names)
    return build_loaded(lambda: generator, state)
