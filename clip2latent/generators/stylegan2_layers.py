"""Layers of StyleGAN2: see stylegan2.py."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clip2latent.generators import frozen_conv

SQRT_HALF = math.sqrt(0.5)
LRELU_GAIN = math.sqrt(2)
# Winograd's convolution is the faster one from so many channels and so large a side on.
WINOGRAD_CHANNELS, WINOGRAD_SIDE = 256, 8


# The official code's activations by name, each with the gain that keeps the variance. They may overwrite x where no
# gradient needs it.
ACTIVATIONS = {
    "linear": (lambda x: x, 1.0),
    "relu": (F.relu, LRELU_GAIN),
    "lrelu": (lambda x: F.leaky_relu(x, 0.2, inplace=not x.requires_grad), LRELU_GAIN),
    "tanh": (torch.tanh, 1.0),
    "sigmoid": (torch.sigmoid, 1.0),
    "elu": (F.elu, 1.0),
    "selu": (F.selu, 1.0),
    "softplus": (F.softplus, 1.0),
    "swish": (F.silu, LRELU_GAIN),
}
# Those for which f(g x) = g f(x): their gain goes into small tensors before them.
HOMOGENEOUS = ("linear", "relu", "lrelu")


def check_activation(activation: str) -> str:
    """Returns the name.

    Raises:
        ValueError: for another one than those of `ACTIVATIONS`.
    """
    if activation not in ACTIVATIONS:
        raise ValueError(f"activation: expected one of {', '.join(ACTIVATIONS)}, got {activation!r}")
    return activation


def resampling_filter(taps: Sequence[float]) -> Tensor:
    """Returns the low-pass filter of the given taps, with unit sum: [k, k], or its one axis [k] from eight taps on."""
    f = torch.as_tensor(taps, dtype=torch.float32)
    f = torch.outer(f, f) if len(f) < 8 else f
    return f / f.sum()


def axis_taps(f: Tensor) -> Tensor:
    """The taps [k] along one axis of a separable filter [k, k] or [k], with unit sum."""
    return f if f.ndim == 1 else f.sum(0)


def low_pass(x: Tensor, f: Tensor, padding: tuple[int, int]) -> Tensor:
    """Filters every channel of x [B, C, H, W] with 4 f, the gain of upsampling by 2."""
    channels, taps, (before, after) = x.shape[1], len(f), padding
    if f.ndim == 2 and before == after:
        return F.conv2d(x, (4 * f).to(x.dtype).flip(0, 1).expand(channels, 1, taps, taps), None, 1, before, 1, channels)
    kernel = 2 * axis_taps(f).to(x.dtype).flip(0)
    x = F.pad(x, (before, after, before, after))
    x = F.conv2d(x, kernel.view(1, 1, 1, -1).expand(channels, 1, 1, -1), groups=channels)
    return F.conv2d(x, kernel.view(1, 1, -1, 1).expand(channels, 1, -1, 1), groups=channels)


def upsample(x: Tensor, f: Tensor) -> Tensor:
    """Doubles the side of x [B, C, H, W]: zeros between the pixels, then the low-pass filter f."""
    kernel = 4 * (torch.outer(f, f) if f.ndim == 1 else f).to(x.dtype)
    channels, taps, side = x.shape[1], len(f), 2 * x.shape[2]
    before = taps - 1 - (taps + 1) // 2
    x = F.conv_transpose2d(x, kernel.expand(channels, 1, taps, taps), stride=2, groups=channels)
    return x[:, :, before : before + side, before : before + side]


class FullyConnected(nn.Module):
    """A linear layer with run-time weight scaling, then an activation times its gain."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        activation: str = "linear",
        lr_multiplier: float = 1.0,
        bias_init: float | Sequence[float] = 0.0,
    ):
        super().__init__()
        self.activation, self.lr_multiplier = check_activation(activation), lr_multiplier
        self.weight = nn.Parameter(torch.randn(outputs, inputs) / lr_multiplier)
        self.bias = nn.Parameter(torch.as_tensor(bias_init, dtype=torch.float32).expand(outputs).clone())

    def forward(self, x: Tensor) -> Tensor:
        gain = self.lr_multiplier / math.sqrt(self.weight.shape[1])
        x = F.linear(x, self.weight * gain, self.bias * self.lr_multiplier)
        function, own_gain = ACTIVATIONS[self.activation]
        return x if self.activation == "linear" else function(x) * own_gain


def keep_in_range(weight: Tensor, styles: Tensor) -> tuple[Tensor, Tensor]:
    """Scales a weight's outputs and an image's styles so that float16 holds the sums; cancelled by the demodulation."""
    weight = weight / (weight.abs().amax(dim=(1, 2, 3), keepdim=True) * math.sqrt(weight[0].numel()))
    return weight, styles / styles.abs().amax(dim=1, keepdim=True)


def up_conv(x: Tensor, weight: Tensor, f: Tensor) -> Tensor:
    """Convolves x [B, I, H, W] with weight [O, I, k, k] at twice the side: transposed, then the low-pass filter f."""
    taps, side = len(f), weight.shape[-1]
    x = F.conv_transpose2d(x, weight.transpose(0, 1), stride=2)
    before = side // 2 + (taps + 1) // 2 - (side - 1)
    after = side // 2 + (taps - 2) // 2 - (side - 2)
    return low_pass(x, f, (before, after))


def demodulation(weight: Tensor, styles: Tensor) -> Tensor:
    """Returns 1 / (norm of the weight [O, I, k, k] times styles [B, I]) as [B, O] (arXiv:1912.04958, eq. 3)."""
    wide = torch.promote_types(styles.dtype, torch.float32)
    # Each style once for every tap of its channel: the sum over taps is part of the one matrix product.
    styles = styles.to(wide).square().repeat_interleave(weight[0, 0].numel(), dim=1)
    return (styles @ weight.to(wide).square().flatten(1).t() + 1e-8).rsqrt()


class SynthesisLayer(nn.Module):
    """Modulated 3x3 convolution, noise, bias, leaky ReLU; doubles the side when up is 2.

    The styles scale the activations before, the demodulation after the convolution, so that the batch shares one dense
    weight (arXiv:1912.04958, eq. 1 and 3).
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        w_dim: int,
        resolution: int,
        up: int = 1,
        kernel_size: int = 3,
        use_noise: bool = True,
        activation: str = "lrelu",
        resample_filter: Sequence[float] = (1, 3, 3, 1),
        conv_clamp: float | None = None,
    ):
        super().__init__()
        self.up, self.use_noise, self.conv_clamp = up, use_noise, conv_clamp
        self.activation = check_activation(activation)
        self.resolution = resolution
        self.register_buffer("resample_filter", resampling_filter(resample_filter))
        self.affine = FullyConnected(w_dim, inputs, bias_init=1)
        self.weight = nn.Parameter(torch.randn(outputs, inputs, kernel_size, kernel_size))
        if use_noise:
            self.register_buffer("noise_const", torch.randn(resolution, resolution))
            self.noise_strength = nn.Parameter(torch.zeros([]))
        self.bias = nn.Parameter(torch.zeros(outputs))
        winograd = kernel_size == 3 and min(inputs, outputs) >= WINOGRAD_CHANNELS and resolution >= WINOGRAD_SIDE
        kept = frozen_conv.for_winograd if winograd else frozen_conv.for_conv
        self.frozen = frozen_conv.Kept(frozen_conv.for_transposed if up == 2 else kept)

    def _apply(self, *args, **kwargs) -> SynthesisLayer:
        self.frozen.clear()
        return super()._apply(*args, **kwargs)

    def forward(
        self, x: Tensor, w: Tensor, noise_mode: str = "const", rng: torch.Generator | None = None, gain: float = 1.0
    ) -> Tensor:
        weight, styles = self.weight, self.affine(w)
        if x.dtype == torch.float16:
            weight, styles = keep_in_range(weight, styles)
        x = x * styles.to(x.dtype)[:, :, None, None]
        weight, norms = self.frozen(weight) if frozen_conv.applies(x, weight) else (weight, weight)
        if self.up == 2:
            x = up_conv(x, weight.to(x.dtype), self.resample_filter)
        elif weight.ndim == 3:
            x = frozen_conv.winograd_conv(x, weight)
        else:
            x = F.conv2d(x, weight.to(x.dtype), padding=weight.shape[-1] // 2)
        function, own_gain = ACTIVATIONS[self.activation]
        early, late = (own_gain * gain, 1.0) if self.activation in HOMOGENEOUS else (1.0, own_gain * gain)
        scale = (early * demodulation(norms, styles)).to(x.dtype)[:, :, None, None]
        bias = (early * self.bias).to(x.dtype)[:, None, None]
        x = torch.addcmul(bias, x, scale, out=None if torch.is_grad_enabled() else x)
        if self.use_noise and noise_mode != "none":
            x = x.add_((self._noise(x, noise_mode, rng) * (early * self.noise_strength)).to(x.dtype))
        x = function(x) if late == 1 else function(x) * late
        if self.conv_clamp is None:
            return x
        limit = self.conv_clamp * gain
        return x.clamp(-limit, limit) if x.requires_grad else x.clamp_(-limit, limit)

    def _noise(self, x: Tensor, noise_mode: str, rng: torch.Generator | None) -> Tensor:
        if noise_mode == "const":
            return self.noise_const
        shape = (x.shape[0], 1, self.resolution, self.resolution)
        device = x.device if rng is None else rng.device
        return torch.randn(shape, generator=rng, device=device).to(x.device)


class ToRGB(nn.Module):
    """Modulated 1x1 convolution to image channels, without demodulation."""

    def __init__(self, inputs: int, img_channels: int, w_dim: int, conv_clamp: float | None = None):
        super().__init__()
        self.conv_clamp = conv_clamp
        self.affine = FullyConnected(w_dim, inputs, bias_init=1)
        self.weight = nn.Parameter(torch.randn(img_channels, inputs, 1, 1))
        self.bias = nn.Parameter(torch.zeros(img_channels))

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        styles = self.affine(w) / math.sqrt(self.weight[0].numel())
        x = F.conv2d(x * styles.to(x.dtype)[:, :, None, None], self.weight.to(x.dtype), self.bias.to(x.dtype))
        return x if self.conv_clamp is None else x.clamp(-self.conv_clamp, self.conv_clamp)


class Skip(nn.Module):
    """The residual architecture's shortcut: 1x1 convolution, then upsampling; never clamped."""

    def __init__(self, inputs: int, outputs: int, resample_filter: Sequence[float]):
        super().__init__()
        self.register_buffer("resample_filter", resampling_filter(resample_filter))
        self.weight = nn.Parameter(torch.randn(outputs, inputs, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        x = F.conv2d(x, (self.weight / math.sqrt(self.weight[0].numel())).to(x.dtype))
        return upsample(x, self.resample_filter) * SQRT_HALF
