"""BigGAN's layers as they are trained: spectral norm with its power iteration, conditional batch norm, attention.

Parameters and buffers have the names of the official code (ajbrock/BigGAN-PyTorch, layers.py), so that a trained
state is an official state dict.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

NORM_EPS = 1e-5
SIGMA_EPS = 1e-8


class SpectralNorm(nn.Module):
    """A weight divided by its largest singular value (Miyato et al. 2018, arXiv:1802.05957, algorithm 1).

    The weight is drawn from N(0, 1): its scale cancels, and Adam's steps are then equally large in every layer
    relative to the weights.
    """

    def __init__(self, outputs: int, inputs: int, *kernel: int, bias: bool = True):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs, *kernel))
        self.register_parameter("bias", nn.Parameter(torch.zeros(outputs)) if bias else None)
        self.register_buffer("u0", torch.randn(1, outputs))
        self.register_buffer("sv0", torch.ones(1))

    def normalised(self) -> Tensor:
        """Returns weight / sigma, by one power iteration from the stored vector, which in training it replaces."""
        matrix = self.weight.flatten(1)
        with torch.no_grad():
            v = F.normalize(self.u0 @ matrix, eps=SIGMA_EPS)
            u = F.normalize(v @ matrix.T, eps=SIGMA_EPS)
        sigma = (v @ matrix.T @ u.T).squeeze()
        if self.training:
            self.u0.copy_(u)
            self.sv0.copy_(sigma.detach())
        return self.weight / sigma

    @torch.no_grad()
    def converge_(self, iterations: int = 50) -> None:
        """Iterates the stored vector to the leading left singular vector of the weight as it is."""
        matrix = self.weight.flatten(1)
        for _ in range(iterations):
            self.u0.copy_(F.normalize(self.u0 @ matrix @ matrix.T, eps=SIGMA_EPS))


class Linear(SpectralNorm):
    """[B, I] -> [B, O] in float32."""

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.normalised(), self.bias)


class Conv(SpectralNorm):
    """[B, I, H, W] -> [B, O, H, W] in the input's precision."""

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.normalised().to(x.dtype), self._bias(x), padding=self.weight.shape[-1] // 2)

    def after_doubling(self, x: Tensor) -> Tensor:
        """Returns forward(x scaled up to [B, I, 2H, 2W] by repetition) of a 3 x 3 kernel, with 4/9 of its arithmetic.

        Four neighbouring outputs see four pixels each, through sums of the kernel's taps: a transposed convolution.
        """
        kernel = self.normalised().flip(2, 3).transpose(0, 1)
        kernel = sum(F.pad(kernel, (left, 1 - left, top, 1 - top)) for left in (0, 1) for top in (0, 1))
        return F.conv_transpose2d(x, kernel.to(x.dtype), self._bias(x), stride=2, padding=1)

    def _bias(self, x: Tensor) -> Tensor | None:
        return None if self.bias is None else self.bias.to(x.dtype)


class BatchNorm(nn.Module):
    """Batch norm with the official names, and a momentum that the accumulation of standing statistics sets."""

    MOMENTUM = 0.1

    def __init__(self, channels: int):
        super().__init__()
        self.momentum = self.MOMENTUM
        self.register_buffer("stored_mean", torch.zeros(channels))
        self.register_buffer("stored_var", torch.ones(channels))

    def whiten(self, x: Tensor) -> Tensor:
        return F.batch_norm(
            x, self.stored_mean, self.stored_var, None, None, self.training, self.momentum, eps=NORM_EPS
        )


class OutputNorm(BatchNorm):
    """Batch norm with a learnt gain and bias."""

    def __init__(self, channels: int):
        super().__init__(channels)
        self.gain = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        shape = (1, -1, 1, 1)
        return torch.addcmul(self.bias.to(x.dtype).view(shape), self.whiten(x), self.gain.to(x.dtype).view(shape))


class ConditionalNorm(BatchNorm):
    """Batch norm whose gain and bias are linear in a condition y [B, I] (Brock et al. 2019, appendix B)."""

    def __init__(self, channels: int, inputs: int):
        super().__init__(channels)
        self.gain = Linear(channels, inputs, bias=False)
        self.bias = Linear(channels, inputs, bias=False)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        gain, bias = 1 + self.gain(y), self.bias(y)
        return torch.addcmul(bias.to(x.dtype)[:, :, None, None], self.whiten(x), gain.to(x.dtype)[:, :, None, None])


class Block(nn.Module):
    """Residual block that doubles the side: [B, I, H, W] -> [B, O, 2H, 2W]."""

    def __init__(self, inputs: int, outputs: int, condition: int):
        super().__init__()
        self.bn1, self.bn2 = ConditionalNorm(inputs, condition), ConditionalNorm(outputs, condition)
        self.conv1, self.conv2 = Conv(outputs, inputs, 3, 3), Conv(outputs, outputs, 3, 3)
        self.conv_sc = Conv(outputs, inputs, 1, 1)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        h = self.conv1.after_doubling(F.relu_(self.bn1(x, y)))
        h = self.conv2(F.relu_(self.bn2(h, y)))
        return h + F.interpolate(self.conv_sc(x), scale_factor=2, mode="nearest")


class Attention(nn.Module):
    """Self-attention over places, keys and values pooled by 2 (Zhang et al. 2019, arXiv:1805.08318, section 3)."""

    def __init__(self, channels: int):
        super().__init__()
        self.theta, self.phi = (Conv(channels // 8, channels, 1, 1, bias=False) for _ in range(2))
        self.g = Conv(channels // 2, channels, 1, 1, bias=False)
        self.o = Conv(channels, channels // 2, 1, 1, bias=False)
        self.gamma = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        query, key, value = self.theta(x), F.max_pool2d(self.phi(x), 2), F.max_pool2d(self.g(x), 2)
        rows = (part.flatten(2).transpose(1, 2) for part in (query, key, value))
        seen = F.scaled_dot_product_attention(*rows, scale=1.0)
        seen = seen.transpose(1, 2).unflatten(2, x.shape[2:])
        return x + self.gamma.to(x.dtype) * self.o(seen)
