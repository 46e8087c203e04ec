"""Layers of StyleGAN3: see stylegan3.py."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clip2latent.generators.stylegan2_layers import FullyConnected


def kaiser_low_pass(taps: int, cutoff: float, width: float, rate: float, radial: bool = False) -> Tensor | None:
    """Designs a low-pass filter with a Kaiser window (arXiv:2106.12423, appendix C).

    Args:
        taps: its length; 1 needs no filter.
        cutoff: the frequency where it passes half.
        width: of the transition band.
        rate: sampling rate, in the same unit as cutoff and width.
        radial: whether the ideal filter is a disc of frequencies (a jinc) instead of a square (a sinc on each axis).

    Returns:
        [taps] for each axis, [taps, taps] where radial, None for one tap; the sum is 1.
    """
    if taps == 1:
        return None
    attenuation = 2.285 * (taps - 1) * math.pi * width / (rate / 2) + 7.95
    window = np.kaiser(taps, _kaiser_beta(attenuation))
    time = (np.arange(taps) - (taps - 1) / 2) / rate
    if radial:
        radius = np.hypot(time[:, None], time[None, :])
        bessel = torch.special.bessel_j1(torch.from_numpy(2 * math.pi * cutoff * radius)).numpy()
        # J1(2 pi f r) / (pi r) tends to f at the origin, which is a tap where their number is odd.
        ideal = np.divide(bessel, math.pi * radius, out=np.full_like(radius, cutoff), where=radius > 0)
        f = ideal * np.outer(window, window)
    else:
        f = np.sinc(2 * cutoff * time) * window
    return torch.as_tensor(f / f.sum(), dtype=torch.float32)


def _kaiser_beta(attenuation: float) -> float:
    """The window's shape for a stop band of so many decibels (Kaiser 1974)."""
    if attenuation > 50:
        return 0.1102 * (attenuation - 8.7)
    if attenuation > 21:
        return 0.5842 * (attenuation - 21) ** 0.4 + 0.07886 * (attenuation - 21)
    return 0.0


def interpolate(x: Tensor, f: Tensor | None, factor: int, padding: tuple[int, int]) -> Tensor:
    """Multiplies the side of x [B, C, H, W] by `factor`, low-passed by f [k], and pads (or cuts) before and after."""
    before, after = padding
    if f is None:
        return F.pad(x, (before, after, before, after))
    taps, channels = len(f), x.shape[1]
    first, last = taps - 1 - before, after - (taps - factor)  # where the full convolution is cut, or extended by zeros
    kernel = (factor * f).to(x.dtype)
    for shape, stride, edge in (
        ((1, 1, 1, taps), (1, factor), (-first, last, 0, 0)),
        ((1, 1, taps, 1), (factor, 1), (0, 0, -first, last)),
    ):
        weight = kernel.view(shape).expand(channels, *shape[1:])
        x = F.pad(F.conv_transpose2d(x, weight, stride=stride, groups=channels), edge)
    return x


def decimate(x: Tensor, f: Tensor | None, factor: int) -> Tensor:
    """Divides the side of x [B, C, H, W] by `factor`, low-passed by f: [k] for each axis, or radial [k, k]."""
    if f is None:
        return x
    taps, channels = len(f), x.shape[1]
    if f.ndim == 2:
        return F.conv2d(x, f.to(x.dtype).expand(channels, 1, taps, taps), stride=factor, groups=channels)
    kernel = f.to(x.dtype)
    x = F.conv2d(x, kernel.view(1, 1, 1, taps).expand(channels, 1, 1, taps), stride=(1, factor), groups=channels)
    return F.conv2d(x, kernel.view(1, 1, taps, 1).expand(channels, 1, taps, 1), stride=(factor, 1), groups=channels)


def demodulated_conv(x: Tensor, weight: Tensor, styles: Tensor, gain: Tensor) -> Tensor:
    """Convolves gain x [B, I, H, W] with weight [O, I, k, k] times styles [B, I], each output filter of unit norm.

    The official code divides the styles by their root mean square over the whole batch. Here it is each image's own,
    so that an image does not depend on its batch; the demodulation cancels the factor (up to its 1e-8 in a sum of
    I k^2), which serves only to keep float16 in range.
    """
    fan_in = weight[0].numel()
    wide = torch.promote_types(weight.dtype, torch.float32)
    weight, styles = weight.to(wide), styles.to(wide)
    weight = weight * weight.square().sum(dim=(1, 2, 3), keepdim=True).rsqrt()
    styles = styles * styles.square().mean(dim=1, keepdim=True).rsqrt()
    power = styles.square() @ weight.square().sum(dim=(2, 3)).t()
    x = x * (styles * gain).to(x.dtype)[:, :, None, None]
    x = F.conv2d(x, weight.to(x.dtype), padding=weight.shape[-1] - 1)
    return x * (power + 1e-8 / fan_in).rsqrt().to(x.dtype)[:, :, None, None]


class Band(NamedTuple):
    """The signal between two layers.

    Attributes:
        channels: their number.
        size: side in pixels, margins included.
        rate: sampling rate, in pixels per image side.
        cutoff: frequency up to which it carries content.
        half_width: half the transition band beyond.
    """

    channels: int
    size: int
    rate: int
    cutoff: float
    half_width: float


class FourierInput(nn.Module):
    """w [B, w_dim] -> Fourier features [B, C, size, size], turned and moved as w says (arXiv:2106.12423).

    The buffer `transform` [3, 3] moves the image as a whole: it maps the image's coordinates to the features' ones.
    """

    def __init__(self, w_dim: int, band: Band):
        super().__init__()
        self.size, self.rate, self.bandwidth = band.size, band.rate, band.cutoff
        freqs = torch.randn(band.channels, 2)
        square = freqs.square().sum(dim=1, keepdim=True)
        self.weight = nn.Parameter(torch.randn(band.channels, band.channels))
        self.affine = FullyConnected(w_dim, 4, bias_init=(1.0, 0.0, 0.0, 0.0))
        nn.init.zeros_(self.affine.weight)
        self.register_buffer("transform", torch.eye(3))
        # Uniform in a disc whose radius is the bandwidth.
        self.register_buffer("freqs", freqs * square.rsqrt() * (-square / 4).exp() * self.bandwidth)
        self.register_buffer("phases", torch.rand(band.channels) - 0.5)

    def forward(self, w: Tensor) -> Tensor:
        wide = torch.promote_types(w.dtype, torch.float32)  # a phase of several turns needs more than half precision
        t = self.affine(w).to(wide)
        cos, sin, right, down = (t / t[:, :2].norm(dim=1, keepdim=True)).unbind(dim=1)
        one, zero = torch.ones_like(cos), torch.zeros_like(cos)
        turn = torch.stack([cos, -sin, zero, sin, cos, zero, zero, zero, one], dim=1).view(-1, 3, 3)
        move = torch.stack([one, zero, -right, zero, one, -down, zero, zero, one], dim=1).view(-1, 3, 3)
        matrix = turn @ move @ self.transform.to(wide)
        freqs = self.freqs.to(wide)
        phases = self.phases.to(wide) + (freqs @ matrix[:, :2, 2:]).squeeze(2)  # [B, C]
        freqs = freqs @ matrix[:, :2, :2]  # [B, C, 2]
        # What the transform moved beyond the bandwidth fades out before the sampling rate's limit.
        room = max(self.rate / 2 - self.bandwidth, 1e-6)
        amplitudes = (1 - (freqs.norm(dim=2) - self.bandwidth) / room).clamp(0, 1)
        place = (torch.arange(self.size, device=w.device, dtype=wide) + 0.5 - self.size / 2) / self.rate
        x, y = freqs[:, None, None].unbind(dim=-1)  # [B, 1, 1, C]
        turns = x * place.view(1, 1, -1, 1) + y * place.view(1, -1, 1, 1) + phases[:, None, None]
        features = (2 * math.pi * turns).sin() * amplitudes[:, None, None]
        features = features @ self.weight.to(wide).t() / math.sqrt(len(self.weight))
        return features.permute(0, 3, 1, 2).to(w.dtype)


class SynthesisLayer(nn.Module):
    """Modulated convolution, bias, and a leaky ReLU between interpolation and decimation (section 3.2 of the paper)."""

    def __init__(
        self,
        w_dim: int,
        before: Band,
        after: Band,
        is_critically_sampled: bool = False,
        use_half: bool = False,
        conv_kernel: int = 3,
        filter_size: int = 6,
        lrelu_upsampling: int = 2,
        use_radial_filters: bool = False,
        conv_clamp: float | None = 256,
    ):
        super().__init__()
        self.use_half, self.conv_clamp = use_half, conv_clamp
        rate = max(before.rate, after.rate) * lrelu_upsampling
        self.up, self.down = rate // before.rate, rate // after.rate
        up_taps, down_taps = (filter_size * factor if factor > 1 else 1 for factor in (self.up, self.down))
        self.affine = FullyConnected(w_dim, before.channels, bias_init=1)
        self.weight = nn.Parameter(torch.randn(after.channels, before.channels, conv_kernel, conv_kernel))
        self.bias = nn.Parameter(torch.zeros(after.channels))
        self.register_buffer("magnitude_ema", torch.ones([]))
        up_filter = kaiser_low_pass(up_taps, before.cutoff, 2 * before.half_width, rate)
        radial = use_radial_filters and not is_critically_sampled
        down_filter = kaiser_low_pass(down_taps, after.cutoff, 2 * after.half_width, rate, radial)
        self.register_buffer("up_filter", up_filter)
        self.register_buffer("down_filter", down_filter)
        # The interpolated image as the filters and the decimation will need it, shared out so that samples stay centred
        # (appendix C.3 of the paper).
        needed = (after.size - 1) * self.down + 1 + up_taps + down_taps - 2
        padding = needed - (before.size + conv_kernel - 1) * self.up
        first = (padding + self.up) // 2
        self.padding = (first, padding - first)

    def forward(self, x: Tensor, w: Tensor, dtype: torch.dtype) -> Tensor:
        """dtype: that of the activations."""
        x = demodulated_conv(x.to(dtype), self.weight, self.affine(w), self.magnitude_ema.rsqrt())
        x = interpolate(x + self.bias.to(dtype)[:, None, None], self.up_filter, self.up, self.padding)
        x = F.leaky_relu(x, 0.2) * math.sqrt(2)
        x = x if self.conv_clamp is None else x.clamp(-self.conv_clamp, self.conv_clamp)
        return decimate(x, self.down_filter, self.down)


class ToRGB(nn.Module):
    """Modulated 1x1 convolution to image channels: no demodulation, no filters, no leaky ReLU."""

    def __init__(
        self, w_dim: int, channels: int, img_channels: int, use_half: bool = False, conv_clamp: float | None = 256
    ):
        super().__init__()
        self.use_half, self.conv_clamp = use_half, conv_clamp
        self.affine = FullyConnected(w_dim, channels, bias_init=1)
        self.weight = nn.Parameter(torch.randn(img_channels, channels, 1, 1))
        self.bias = nn.Parameter(torch.zeros(img_channels))
        self.register_buffer("magnitude_ema", torch.ones([]))

    def forward(self, x: Tensor, w: Tensor, dtype: torch.dtype) -> Tensor:
        """dtype: that of the activations."""
        styles = self.affine(w) * (self.magnitude_ema.rsqrt() / math.sqrt(self.weight.shape[1]))
        x = x.to(dtype) * styles.to(dtype)[:, :, None, None]
        x = F.conv2d(x, self.weight.to(dtype)) + self.bias.to(dtype)[:, None, None]
        return x if self.conv_clamp is None else x.clamp(-self.conv_clamp, self.conv_clamp)
