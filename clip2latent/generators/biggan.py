"""BigGAN (arXiv:1809.11096, app. B, fig. 15) with the names and constructor arguments of ajbrock/BigGAN-PyTorch."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clip2latent.generators import biggan_layers as layers
from clip2latent.generators.class_latents import ClassLatents
from clip2latent.generators.official import build_loaded
from clip2latent.generators.spectral import bake_after_one_step

# Multiples of G_ch that enter the blocks and leave the last one.
CHANNELS = {
    32: (4, 4, 4, 4),
    64: (16, 16, 8, 4, 2),
    128: (16, 16, 8, 4, 2, 1),
    256: (16, 16, 8, 8, 4, 2, 1),
    512: (16, 16, 8, 8, 4, 2, 1, 1),
}

_IMAGENET = {"G_ch": 96, "hier": True, "G_shared": True, "shared_dim": 128, "n_classes": 1000}
# The converted TF Hub weights, with the eps that FuseDream's loader leaves: fusedream_utils.py of gnobitab/FuseDream.
PRESETS = {
    "biggan-256": {**_IMAGENET, "resolution": 256, "G_attn": "128", "dim_z": 140, "BN_eps": 1e-5, "SN_eps": 1e-8},
    "biggan-512": {**_IMAGENET, "resolution": 512, "G_attn": "64", "dim_z": 128, "BN_eps": 1e-5, "SN_eps": 1e-8},
}

# Official arguments that concern training, or choose between forms that are equal in eval mode.
WITHOUT_EFFECT = {
    "G_kernel_size",
    "num_G_SVs",
    "num_G_SV_itrs",
    "cross_replica",
    "mybn",
    "G_init",
    "skip_init",
    "no_optim",
}
WITHOUT_EFFECT |= {"G_lr", "G_B1", "G_B2", "adam_eps", "G_mixed_precision", "G_fp16"}
COUNTERS = (".accumulation_counter", ".num_batches_tracked")


class ConditionalNorm(nn.Module):
    """Batch norm whose gain 1 + gain(y) and bias(y) are linear in the condition y [B, Y]."""

    def __init__(self, channels: int, condition: int, eps: float, one_hot: bool):
        super().__init__()
        self.eps = eps
        self.gain, self.bias = (layers.linear_map(condition, channels, one_hot) for _ in range(2))
        self.register_buffer("stored_mean", torch.zeros(channels))
        self.register_buffer("stored_var", torch.ones(channels))

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        gain, bias = layers.apply_linear(self.gain, y), layers.apply_linear(self.bias, y)
        if self.training:
            x = F.batch_norm(x, self.stored_mean, self.stored_var, training=True, eps=self.eps)
            return x * (1 + gain)[:, :, None, None] + bias[:, :, None, None]
        return layers.conditional_batch_norm(x, self.stored_mean, self.stored_var, 1 + gain, bias, self.eps)


class PlainNorm(nn.Module):
    """Batch norm with learned gain and bias."""

    def __init__(self, channels: int):
        super().__init__()
        self.gain, self.bias = nn.Parameter(torch.ones(channels)), nn.Parameter(torch.zeros(channels))
        self.register_buffer("stored_mean", torch.zeros(channels))
        self.register_buffer("stored_var", torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        # The official code does not hand BN_eps to this layer.
        return F.batch_norm(x, self.stored_mean, self.stored_var, self.gain, self.bias, self.training, eps=1e-5)


class Block(nn.Module):
    """Residual block that doubles the side."""

    def __init__(self, inputs: int, outputs: int, condition: int, eps: float, one_hot: bool):
        super().__init__()
        self.conv1 = layers.Conv3x3(inputs, outputs)
        self.conv2 = layers.Conv3x3(outputs, outputs)
        self.conv_sc = nn.Conv2d(inputs, outputs, 1)
        self.bn1 = ConditionalNorm(inputs, condition, eps, one_hot)
        self.bn2 = ConditionalNorm(outputs, condition, eps, one_hot)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """x [B, C, H, W], y [B, Y] -> [B, C', 2H, 2W]."""
        h = layers.conv_after_upsampling(F.relu(self.bn1(x, y)), self.conv1)
        h = self.conv2(F.relu(self.bn2(h, y)))
        return h + layers.upsample(self.conv_sc(x))  # a 1x1 convolution commutes with nearest neighbour


class Attention(nn.Module):
    """Self-attention added to its input."""

    def __init__(self, channels: int):
        super().__init__()
        self.theta, self.phi = (nn.Conv2d(channels, channels // 8, 1, bias=False) for _ in range(2))
        self.g = nn.Conv2d(channels, channels // 2, 1, bias=False)
        self.o = nn.Conv2d(channels // 2, channels, 1, bias=False)
        self.gamma = nn.Parameter(torch.zeros([]))

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return self.gamma * layers.attention(x, self.theta, self.phi, self.g, self.o) + x


class BigGAN(ClassLatents):
    """A BigGAN generator; implements ClassConditional.

    Latents are one row [B, 1, D]: z, and the class's shared embedding; without a shared embedding, a class vector
    [n_classes] that is one-hot for a class. Statistics are the stored ones in eval mode, the batch's in training.
    """

    def __init__(
        self,
        resolution: int = 128,
        G_ch: int = 64,
        G_attn: str = "64",
        dim_z: int = 128,
        hier: bool = False,
        G_shared: bool = True,
        shared_dim: int = 0,
        n_classes: int = 1000,
        bottom_width: int = 4,
        BN_eps: float = 1e-5,
        SN_eps: float = 1e-12,
        G_param: str = "SN",
        norm_style: str = "bn",
        G_activation: str = "relu",
        class_names: Sequence[str] | None = None,
        truncation: float = 1.0,
        **official,
    ):
        """Builds an untrained network, without spectral norm; the arguments are the official ones.

        Args beyond the official ones:
            class_names: a name for each class; ImageNet's labels for 1000 classes, else numbers, when None.
            truncation: factor of the truncated normal that `sample_latents` draws z from.

        Raises:
            ValueError: for values outside the family, and arguments the official code does not have.
        """
        if resolution not in CHANNELS:
            raise ValueError(f"resolution: expected one of {', '.join(map(str, CHANNELS))}, got {resolution}")
        if hier and not G_shared:
            raise ValueError("hier=True: needs G_shared=True, for z's chunks are joined to the shared embedding")
        if norm_style != "bn":
            raise ValueError(f"norm_style: expected 'bn', the only one with stored statistics, got {norm_style!r}")
        if not re.fullmatch(r"(nn\.ReLU\(.*\)|relu|inplace_relu|ir)", str(G_activation)):
            raise ValueError(f"G_activation: expected 'relu', got {G_activation!r}")
        if unknown := official.keys() - WITHOUT_EFFECT:
            raise ValueError(f"unknown arguments {sorted(unknown)}: BigGAN takes those of the official generator")
        widths = [G_ch * factor for factor in CHANNELS[resolution]]
        slots = len(widths) if hier else 1
        chunk, class_width = dim_z // slots, (shared_dim or dim_z) if G_shared else n_classes
        super().__init__(chunk * slots, class_width, n_classes, class_names, truncation)
        self.init_args = {
            "resolution": resolution,
            "G_ch": G_ch,
            "G_attn": str(G_attn),
            "dim_z": dim_z,
            "hier": hier,
            "G_shared": G_shared,
            "shared_dim": shared_dim,
            "n_classes": n_classes,
            "bottom_width": bottom_width,
            "BN_eps": BN_eps,
            "SN_eps": SN_eps,
            "G_param": G_param,
            "class_names": None if class_names is None else list(class_names),
            "truncation": truncation,
        }
        self.chunk, self.hier, self.bottom_width = chunk, hier, bottom_width
        self.resolution = resolution * bottom_width // 4

        self.shared = nn.Embedding(n_classes, class_width) if G_shared else None
        self.linear = nn.Linear(chunk, widths[0] * bottom_width**2)
        condition = class_width + (chunk if hier else 0)
        attended = {int(side) for side in str(G_attn).split("_")}
        self.blocks = nn.ModuleList()
        for index, (inputs, outputs) in enumerate(itertools.pairwise(widths)):
            block = [Block(inputs, outputs, condition, BN_eps, one_hot=not G_shared)]
            if 8 << index in attended:
                block.append(Attention(outputs))
            self.blocks.append(nn.ModuleList(block))
        self.output_layer = nn.Sequential(PlainNorm(widths[-1]), nn.ReLU(), nn.Conv2d(widths[-1], 3, 3, padding=1))

    def class_vectors(self, classes: Tensor) -> Tensor:
        """classes [B], indices -> shared embeddings, or one-hot vectors, [B, V]."""
        if self.shared is None:
            return F.one_hot(classes, self.num_classes).to(self.linear.weight.dtype)
        return self.shared(classes)

    def forward(self, z: Tensor, class_vectors: Tensor) -> Tensor:
        """z [B, Z], class_vectors [B, V] -> images [B, 3, R, R] in [-1, 1]."""
        conditions = [class_vectors] * len(self.blocks)
        if self.hier:
            z, *chunks = z.split(self.chunk, dim=1)
            conditions = [torch.cat([class_vectors, chunk], dim=1) for chunk in chunks]
        h = self.linear(z).view(len(z), -1, self.bottom_width, self.bottom_width)
        for block, condition in zip(self.blocks, conditions, strict=True):
            for layer in block:
                h = layer(h, condition)
        return torch.tanh(self.output_layer(h))


def from_official(state: Mapping[str, Tensor], **arguments) -> BigGAN:
    """Returns the frozen generator of an official state dict (weight, u0 and optionally sv0), spectral norm baked.

    Args:
        state: names of BigGAN-PyTorch's Generator, in any of its batch norm layouts.
        **arguments: BigGAN's constructor arguments.

    Raises:
        ValueError: the state does not fit the arguments; lists missing, unexpected and mis-shaped keys.
    """
    with torch.device("meta"):
        generator = BigGAN(**arguments)
    state = {_own_name(name): tensor for name, tensor in state.items() if not name.endswith(COUNTERS)}
    if generator.init_args["G_param"] == "SN":
        layers = [name for name, module in generator.named_modules() if isinstance(module, (nn.Linear, nn.Conv2d))]
        state = bake_after_one_step(state, generator, layers, generator.init_args["SN_eps"])
    return build_loaded(lambda: generator, state)


def _own_name(name: str) -> str:
    """Undoes the nesting of the synchronised and the manual batch norm."""
    name = re.sub(r"\.bn\.(?:stored|running)_(mean|var)$", r".stored_\1", name)
    return re.sub(r"\.bn\.weight$", ".gain", re.sub(r"\.bn\.bias$", ".bias", name))
