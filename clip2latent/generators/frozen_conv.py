"""Convolutions on a CPU: what depends on a frozen weight alone is computed once and kept.

There an image's time is that of dense convolutions, and at low resolutions that of rearranging their weights for each
call. The 3x3 ones of many channels are Winograd's F(2x2, 3x3) (Lavin and Gray 2016, arXiv:1509.09308): 2.25 times fewer
multiplications, as 16 matrix products. Their gradient to the input is the same convolution with the weight rotated and
its channels swapped, and reads the same kept weight, which takes 16/9 of the memory of the weight itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

# Values of one transformed tile element that are worked on at once: with the other 15 they stay in the cache.
AT_ONCE = 2**17


class Frozen(NamedTuple):
    """What is kept of a weight [O, I, k, k].

    Attributes:
        weight: as the convolution reads it: [O, I, k, k] in another layout, or transformed for `winograd_conv`.
        norms: of its taps, [O, I, 1, 1]: all of it that a demodulation needs.
    """

    weight: Tensor
    norms: Tensor


class Kept:
    """A function of a weight that is computed again only when the weight has changed.

    Changes are told by the weight's place in memory and its version counter: those made through `.data` go unseen, as
    they do for autograd. What is kept is in no state dict, and copies and pickles start empty.
    """

    def __init__(self, function: Callable[[Tensor], Frozen]):
        self.function = function
        self.clear()

    def __call__(self, weight: Tensor) -> Frozen:
        state = (weight.data_ptr(), weight._version)
        kept = self._kept
        if kept is None or kept[0] != state:
            self._kept = kept = (state, self.function(weight.detach()))
        return kept[1]

    @property
    def holds(self) -> bool:
        return self._kept is not None

    def clear(self) -> None:
        self._kept: tuple[tuple[int, int], Frozen] | None = None

    def __reduce__(self) -> tuple:
        return Kept, (self.function,)


def applies(x: Tensor, weight: Tensor) -> bool:
    """Whether the kept forms may serve: as `is_frozen` says, and no gradient."""
    return not torch.is_grad_enabled() and is_frozen(x, weight)


def is_frozen(x: Tensor, weight: Tensor) -> bool:
    """Whether forms with a gradient to their input alone may serve: float32 on a CPU, a frozen weight, no tracing."""
    return (
        x.device.type == "cpu"
        and x.dtype == weight.dtype == torch.float32
        and not (weight.requires_grad or weight.is_inference())
        and not torch.compiler.is_compiling()
    )


def for_conv(weight: Tensor) -> Frozen:
    """Keeps a weight [O, I, k, k] of `conv2d` as it is read for images in channels_last."""
    return Frozen(weight.contiguous(memory_format=torch.channels_last), _norms(weight))


def for_transposed(weight: Tensor) -> Frozen:
    """Keeps a weight [O, I, k, k] so that its transpose(0, 1) is as `conv_transpose2d` reads it."""
    swapped = weight.transpose(0, 1).contiguous(memory_format=torch.channels_last)
    return Frozen(swapped.transpose(0, 1), _norms(weight))


def for_winograd(weight: Tensor) -> Frozen:
    """Keeps G g G^T of a weight [O, I, 3, 3] as [16, I, O]: the 4x4 elements of a tile, column by column."""
    g = weight.new_tensor([[1, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]])
    outputs, inputs = weight.shape[:2]
    transformed = torch.kron(g, g) @ weight.permute(3, 2, 1, 0).reshape(9, -1)
    return Frozen(transformed.view(16, inputs, outputs), _norms(weight))


class WinogradConv(torch.autograd.Function):
    """`winograd_conv` (x [B, I, H, W], weight [16, I, O]) with its gradient to x, which can be taken once."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        ctx.weight = weight  # neither input nor output of the graph: a constant of the network
        return winograd_conv(x, weight)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return winograd_conv(gradient, ctx.weight, adjoint=True), None


def winograd_conv(x: Tensor, weight: Tensor, adjoint: bool = False) -> Tensor:
    """Convolves x [B, I, H, W] of even sides with a weight [16, I, O] of `for_winograd`, with padding 1.

    Makes each 2x2 tile of the output from 4x4 values d of the input: A^T ((G g G^T) * (B^T d B)) A, the products summed
    over the channels. It works in bands of tiles and without gradients.

    Args:
        x: the images.
        weight: of `for_winograd`.
        adjoint: apply the transposed map, [B, O, H, W] -> [B, I, H, W]. Its weight is rotated by 180 degrees, which
            exchanges the first and the last row of G g, and the columns of g G^T.
    """
    order = (3, 1, 2, 0) if adjoint else (0, 1, 2, 3)
    weight = weight.transpose(1, 2) if adjoint else weight
    batch, inputs, height, width = x.shape
    outputs, down, across = weight.shape[2], height // 2, width // 2
    x = F.pad(x.permute(0, 2, 3, 1), (0, 0, 1, 1, 1, 1))
    y = x.new_empty(batch, down, 2, across, 2, outputs)
    images = min(batch, max(1, AT_ONCE // (down * across * inputs)))
    rows = min(down, max(1, AT_ONCE // (across * inputs)))
    for part, result in zip(x.split(images), y.split(images), strict=True):
        for top in range(0, down, rows):
            band = part[:, 2 * top : 2 * min(top + rows, down) + 2]
            shape = (len(part), band.shape[1] // 2 - 1, across)
            half = x.new_empty(4, *shape[:2], width + 2, inputs)
            _input_transform([band[:, k : k + 2 * shape[1] : 2] for k in range(4)], [half[k] for k in order])
            d = x.new_empty(4, 4, *shape, inputs)
            _input_transform([half[..., k : k + width : 2, :] for k in range(4)], [d[k] for k in order])
            m = torch.bmm(d.view(16, -1, inputs), weight).view(4, 4, *shape, outputs)
            half = x.new_empty(2, 4, *shape, outputs)
            _output_transform([m[k] for k in order], half)
            tiles = result[:, top : top + rows].permute(2, 4, 0, 1, 3, 5)
            _output_transform([half[:, k] for k in order], tiles)
    return y.view(batch, height, width, outputs).permute(0, 3, 1, 2)


def _norms(weight: Tensor) -> Tensor:
    return weight.flatten(2).norm(dim=2)[:, :, None, None]


def _input_transform(d: Sequence[Tensor], out: Sequence[Tensor]) -> None:
    """B^T d on one axis: four values of the input, at a distance of one pixel, to four elements."""
    torch.sub(d[0], d[2], out=out[0])
    torch.add(d[1], d[2], out=out[1])
    torch.sub(d[2], d[1], out=out[2])
    torch.sub(d[1], d[3], out=out[3])


def _output_transform(m: Sequence[Tensor], out: Tensor) -> None:
    """A^T m on one axis: four elements to two pixels of the output."""
    torch.add(m[0], m[1], out=out[0]).add_(m[2])
    torch.sub(m[1], m[2], out=out[1]).sub_(m[3])
