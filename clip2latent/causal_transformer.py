"""CausalTransformer: dalle2-pytorch's transformer and its weights, computed in fewer and larger operations."""

from __future__ import annotations

import torch
from dalle2_pytorch import dalle2_pytorch
from torch import Tensor, nn
from torch.nn import functional as F

EPS = 1e-5


class CausalTransformer(dalle2_pytorch.CausalTransformer):
    """The library's function of the same weights under the same names; only the forward pass is our own.

    What belongs to the sequence's length (mask, position biases, rotations) is made once, not in every layer. One head
    of keys serves all query heads, so the queries of all heads and tokens are the rows of one matrix per sample and
    nothing is transposed. Cosine similarity divides the scores by the norms, not the wider queries. In the last layer
    only the tokens that are asked for are computed beyond their keys and values. In float32 the results are the
    library's up to rounding; in other types its normalisation changes its epsilon to 1e-3, ours does not.
    Source: dalle2-pytorch 1.15.6, CausalTransformer and Attention.
    """

    def forward(self, x: Tensor, num_outputs: int | None = None) -> Tensor:
        """Maps tokens [B, N, dim] to the last num_outputs tokens [B, num_outputs, dim]; None for all N."""
        length = x.shape[1]
        bias = self._attention_bias(length)  # [N, heads, 1 + N]
        rotation = _rotation(self.layers[0][0], length)  # [1 + N, pairs] each
        last = len(self.layers) - 1
        for index, (attention, feed_forward) in enumerate(self.layers):
            outputs = length if num_outputs is None or index < last else num_outputs
            x = x[:, length - outputs :] + _attend(attention, x, outputs, bias, rotation)
            x = x + _feed_forward(feed_forward, x)
        return self.project_out(_normalise(self.norm, x / x.amax(dim=-1, keepdim=True).detach()))

    def _attention_bias(self, length: int) -> Tensor:
        """Returns what is added to the scores of N queries and 1 + N keys, the null key first: [N, heads, 1 + N].

        Query i attends to the null key and to tokens 0..i. Distances are counted as if the null key were token 0, as
        the library does.
        """
        bias = self.rel_pos_bias(length, length + 1, device=self.project_out.weight.device)  # [heads, N, 1 + N]
        later = torch.ones(length, length + 1, dtype=torch.bool, device=bias.device).triu(2)
        return bias.masked_fill(later, -torch.inf).transpose(0, 1)


def _attend(attention: nn.Module, x: Tensor, outputs: int, bias: Tensor, rotation: tuple[Tensor, Tensor]) -> Tensor:
    """Returns the attention's output [B, outputs, dim] at the last tokens of x [B, N, dim]."""
    batch, length, _ = x.shape
    cos, sin = rotation
    x = _normalise(attention.norm, x)
    query = attention.to_q(x[:, length - outputs :]).unflatten(-1, (attention.heads, -1))  # [B, outputs, heads, d]
    query = _rotate(query, cos[-outputs:, None], sin[-outputs:, None]).flatten(1, 2)  # [B, outputs * heads, d]
    null = attention.null_kv.flatten().to(query.dtype).expand(batch, 1, -1)
    key, value = torch.cat([null, attention.to_kv(x)], dim=1).chunk(2, dim=-1)  # [B, 1 + N, d] each
    key = _rotate(key, cos, sin)
    scores = torch.bmm(query, key.transpose(1, 2))  # [B, outputs * heads, 1 + N]
    scores = scores * (attention.scale * _inverse_norm(query)) * _inverse_norm(key).transpose(1, 2)
    weights = (scores + bias[-outputs:].flatten(0, 1)).softmax(dim=-1).to(value.dtype)
    return _normalise(attention.to_out[1], attention.to_out[0](torch.bmm(weights, value).view(batch, outputs, -1)))


def _feed_forward(feed_forward: nn.Module, x: Tensor) -> Tensor:
    """Maps tokens [B, N, dim] to tokens [B, N, dim]: a gated linear unit (SwiGLU: Shazeer 2020, arXiv:2002.05202)."""
    norm, widen, *_, narrow = feed_forward
    value, gate = widen(_normalise(norm, x)).chunk(2, dim=-1)
    return narrow(value * F.silu(gate))


def _normalise(norm: nn.Module, x: Tensor) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], norm.g, eps=EPS)


def _inverse_norm(x: Tensor) -> Tensor:
    """Returns 1 / |x| [..., 1] of x [..., d], in float32 at least."""
    return x.to(torch.promote_types(x.dtype, torch.float32)).square().sum(dim=-1, keepdim=True).clamp_min(1e-24).rsqrt()


def _rotation(attention: nn.Module, length: int) -> tuple[Tensor, Tensor]:
    """Returns cosines and sines [1 + N, pairs] by which pairs of a head's dimensions turn; the null key does not turn.

    Rotary embeddings (Su et al. 2021, arXiv:2104.09864, eq. 34) with the library's frequencies.
    """
    frequencies = attention.rotary_emb.freqs.float()
    positions = torch.arange(-1, length, device=frequencies.device).clamp(min=0)
    angles = positions[:, None] * frequencies
    return angles.cos(), angles.sin()


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turns the neighbouring pairs at the start of x [..., d]; the dimensions after them stay."""
    cos, sin = cos.to(x.dtype), sin.to(x.dtype)
    turned, rest = x.tensor_split([2 * cos.shape[-1]], dim=-1)
    even, odd = turned.unflatten(-1, (-1, 2)).unbind(dim=-1)
    turned = torch.stack([even * cos - odd * sin, odd * cos + even * sin], dim=-1).flatten(-2)
    return torch.cat([turned, rest], dim=-1)
