"""Layers of StyleGAN2: see stylegan2.py."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SQRT_HALF = math.sqrt(0.5)
LRELU_GAIN = math.sqrt(2)


# The official code's activations by name, each with the gain that keeps the variance.
ACTIVATIONS = {
    "linear": (lambda x: x, 1.0),
    "relu": (F.relu, LRELU_GAIN),
    "lrelu": (lambda x: F.leaky_relu(x, 0.2), LRELU_GAIN),
    "tanh": (torch.tanh, 1.0),
    "sigmoid": (torch.sigmoid, 1.0),
    "elu": (F.elu, 1.0),
    "selu": (F.selu, 1.0),
    "softplus": (F.softplus, 1.0),
    "swish": (F.silu, LRELU_GAIN),
}


def activate(x: Tensor, activation: str, gain: float = 1.0) -> Tensor:
    """Applies an activation of `ACTIVATIONS`, times its own gain and `gain`."""
    function, own = ACTIVATIONS[activation]
    return function(x) if own * gain == 1 else function(x) * (own * gain)


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
    """Filters every channel of x [B, C, H, W] with 4 f, the gain of upsampling by 2, one axis at a time."""
    taps = 2 * axis_taps(f).to(x.dtype).flip(0)
    channels, (before, after) = x.shape[1], padding
    x = F.pad(x, (before, after, before, after))
    x = F.conv2d(x, taps.view(1, 1, 1, -1).expand(channels, 1, 1, -1), groups=channels)
    return F.conv2d(x, taps.view(1, 1, -1, 1).expand(channels, 1, -1, 1), groups=channels)


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
        return activate(x, self.activation)


def modulated_conv(x: Tensor, weight: Tensor, styles: Tensor, demodulate: bool = True) -> Tensor:
    """Convolves x [B, I, H, W] with weight [O, I, k, k] times each image's styles [B, I] (arXiv:1912.04958, eq. 1, 3).

    The styles scale the activations before, the demodulation after the convolution, so that the weight is shared.
    """
    half = x.dtype == torch.float16
    if half and demodulate:  # keeps the sums below float16's largest number; cancelled by the demodulation
        weight = weight / (weight.abs().amax(dim=(1, 2, 3), keepdim=True) * math.sqrt(weight[0].numel()))
        styles = styles / styles.abs().amax(dim=1, keepdim=True)
    x = x * styles.to(x.dtype)[:, :, None, None]
    x = F.conv2d(x, weight.to(x.dtype), padding=weight.shape[-1] // 2)
    return x * demodulation(weight, styles).to(x.dtype) if demodulate else x


def modulated_up_conv(x: Tensor, weight: Tensor, styles: Tensor, f: Tensor) -> Tensor:
    """As modulated_conv, but doubles the side: a transposed convolution, then the low-pass filter f."""
    if x.dtype == torch.float16:
        weight = weight / (weight.abs().amax(dim=(1, 2, 3), keepdim=True) * math.sqrt(weight[0].numel()))
        styles = styles / styles.abs().amax(dim=1, keepdim=True)
    x = x * styles.to(x.dtype)[:, :, None, None]
    x = F.conv_transpose2d(x, weight.to(x.dtype).transpose(0, 1), stride=2)
    taps, side = len(f), weight.shape[-1]
    before = side // 2 + (taps + 1) // 2 - (side - 1)
    after = side // 2 + (taps - 2) // 2 - (side - 2)
    return low_pass(x, f, (before, after)) * demodulation(weight, styles).to(x.dtype)


def demodulation(weight: Tensor, styles: Tensor) -> Tensor:
    """Returns 1 / (norm of the modulated weight), [B, O, 1, 1]."""
    wide = torch.promote_types(styles.dtype, torch.float32)
    power = styles.to(wide).square() @ weight.to(wide).square().sum(dim=(2, 3)).t()
    return (power + 1e-8).rsqrt()[:, :, None, None]


class SynthesisLayer(nn.Module):
    """Modulated 3x3 convolution, noise, bias, leaky ReLU; doubles the side when up is 2."""

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

    def forward(
        self, x: Tensor, w: Tensor, noise_mode: str = "const", rng: torch.Generator | None = None, gain: float = 1.0
    ) -> Tensor:
        styles = self.affine(w)
        if self.up == 2:
            x = modulated_up_conv(x, self.weight, styles, self.resample_filter)
        else:
            x = modulated_conv(x, self.weight, styles)
        if self.use_noise and noise_mode != "none":
            x = x + (self._noise(x, noise_mode, rng) * self.noise_strength).to(x.dtype)
        x = x + self.bias.to(x.dtype)[:, None, None]
        x = activate(x, self.activation, gain)
        return x if self.conv_clamp is None else x.clamp(-self.conv_clamp * gain, self.conv_clamp * gain)

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
        x = modulated_conv(x, self.weight, styles, demodulate=False) + self.bias.to(x.dtype)[:, None, None]
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
