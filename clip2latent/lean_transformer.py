"""LeanTransformer: a CausalTransformer's function in the form that sampling wants, continued from stored keys."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from clip2latent.causal_transformer import EPS, CausalTransformer


class _Layer(NamedTuple):
    """A layer's weights; d is a head's width, its rotated pairs lie as two halves, normalisations' gains are folded in.

    Attributes:
        qkv: queries of all heads, then one head's key and value [(heads + 2) d, dim].
        null: key and value of the null token [1, 2 d].
        out: [dim, heads d].
        out_gain: of the normalisation after `out` [dim].
        widen: [inner, dim].
        gate: [inner, dim].
        narrow: [dim, inner].
    """

    qkv: Tensor
    null: Tensor
    out: Tensor
    out_gain: Tensor
    widen: Tensor
    gate: Tensor
    narrow: Tensor


class LeanTransformer:
    """Maps tokens that follow others whose keys and values are at hand: what came before is not computed again.

    Keys are stored rotated, divided by their norms and times the attention's scale. What depends on the length alone
    (mask, position biases, rotations) is a table. Copies the weights: later changes of the transformer do not count.

    Attributes:
        null: the keys and values [layers, 1, 2 d] that every sequence begins with.
        head: the last projection's weight with the last normalisation's gain, in float64 [dim, dim].
    """

    def __init__(self, transformer: CausalTransformer, length: int) -> None:
        """Prepares weights and the tables for up to N = `length` tokens."""
        attention = transformer.layers[0][0]
        freqs = attention.rotary_emb.freqs.detach()
        self._heads, self._width, self._pairs = attention.heads, attention.null_kv.shape[-1], len(freqs)
        self._scale, self._dtype = float(attention.scale), attention.to_q.weight.dtype
        self._layers = [self._prepared(*layer) for layer in transformer.layers]
        self.null = torch.stack([layer.null for layer in self._layers])
        self.head = _folded(transformer.project_out.weight, transformer.norm.g, torch.float64)
        angles = torch.arange(length, device=freqs.device)[:, None] * freqs.double()
        self._cos, self._sin = angles.cos().to(self._dtype), angles.sin().to(self._dtype)  # [N, pairs]
        bias = transformer.rel_pos_bias(length, length + 1, device=freqs.device).detach().float()  # [heads, N, 1 + N]
        later = torch.ones(length, length + 1, dtype=torch.bool, device=freqs.device).triu(2)
        self._bias = bias.masked_fill(later, -torch.inf).transpose(0, 1).contiguous()  # [N, heads, 1 + N]

    def __call__(self, x: Tensor, past: Tensor, num_outputs: int) -> tuple[Tensor, list[Tensor]]:
        """Maps tokens [B, n, dim] to the last num_outputs of them, before the last normalisation [B, num_outputs, dim].

        Args:
            x: tokens m - 1 to m + n - 2 of a sequence.
            past: keys and values of the null token and of the tokens before x, [B, layers, m, 2 d].
            num_outputs: 0 to n; where it is 0 the tokens returned are none, only keys and values count.

        Returns:
            The tokens, and each layer's keys and values of x [B, n, 2 d].
        """
        length, before = x.shape[1], past.shape[2]
        places = slice(before - 1, before - 1 + length)  # The null token, which is not rotated, has none.
        cos, sin = self._cos[places, None], self._sin[places, None]  # [n, 1, pairs]
        bias = self._bias[places, :, : before + length]  # [n, heads, m + n]
        kept = []
        for index, layer in enumerate(self._layers):
            outputs = length if index < len(self._layers) - 1 else num_outputs
            query, own = self._project(layer, F.layer_norm(x, x.shape[-1:], eps=EPS), outputs, cos, sin)
            kept.append(own)
            x = x[:, length - outputs :]
            if outputs:
                seen = torch.cat([past[:, index], own], dim=1)  # [B, m + n, 2 d]
                x = x + self._attend(layer, query, seen, bias[length - outputs :])
                x = x + _feed_forward(layer, F.layer_norm(x, x.shape[-1:], eps=EPS))
        return x, kept

    def remember(self, x: Tensor, past: Tensor) -> Tensor:
        """Returns the keys and values of tokens [B, n, dim] that follow `past`, [B, layers, n, 2 d]."""
        return torch.stack(self(x, past, 0)[1], dim=1).to(self._dtype)  # Autocast may have changed it.

    def _project(self, layer: _Layer, x: Tensor, outputs: int, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor]:
        """Returns queries [B, outputs, heads, d] of the last tokens of x [B, n, dim] and all keys and values."""
        inner = self._heads * self._width
        if outputs == x.shape[1]:
            query, own = F.linear(x, layer.qkv).split([inner, 2 * self._width], dim=-1)
        else:
            query = F.linear(x[:, x.shape[1] - outputs :], layer.qkv[:inner])
            own = F.linear(x, layer.qkv[inner:])
        key, value = own.chunk(2, dim=-1)
        key = (key.float() * (self._scale / _norm(key))).to(key.dtype)
        own = torch.cat([*self._turned(key, cos[:, 0], sin[:, 0]), value], dim=-1)
        query = query.unflatten(-1, (self._heads, self._width))
        return torch.cat(self._turned(query, cos[len(cos) - outputs :], sin[len(sin) - outputs :]), dim=-1), own

    def _attend(self, layer: _Layer, query: Tensor, seen: Tensor, bias: Tensor) -> Tensor:
        """Returns the attention's output [B, outputs, dim] for queries [B, outputs, heads, d]."""
        batch, outputs = query.shape[:2]
        query = query.flatten(1, 2)  # [B, outputs * heads, d]
        key, value = seen.chunk(2, dim=-1)
        scores = torch.bmm(query, key.transpose(1, 2)).float()  # [B, outputs * heads, m + n]
        weights = torch.addcdiv(bias.flatten(0, 1), scores, _norm(query)).softmax(dim=-1).to(value.dtype)
        out = F.linear(torch.bmm(weights, value).view(batch, outputs, -1), layer.out)
        return F.layer_norm(out, out.shape[-1:], layer.out_gain, eps=EPS)

    def _turned(self, x: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Returns x [..., d] turned by its position, in its three parts: halves of the pairs, and the rest.

        Rotary embeddings (Su et al. 2021, arXiv:2104.09864, eq. 34).
        """
        even, odd, rest = x.split([self._pairs, self._pairs, self._width - 2 * self._pairs], dim=-1)
        return torch.addcmul(even * cos, odd, sin, value=-1), torch.addcmul(odd * cos, even, sin), rest

    def _prepared(self, attention: torch.nn.Module, feed_forward: torch.nn.Module) -> _Layer:
        """Returns a layer's weights in our form."""
        turned = torch.arange(2 * self._pairs, device=attention.null_kv.device).view(-1, 2).T.flatten()
        order = torch.cat([turned, torch.arange(2 * self._pairs, self._width, device=turned.device)])
        query = attention.to_q.weight.unflatten(0, (self._heads, self._width))[:, order].flatten(0, 1)
        key, value = attention.to_kv.weight.chunk(2)
        null_key, null_value = attention.null_kv.detach().double()
        null_key = null_key[order] * (self._scale / _norm(null_key))
        norm, widen_and_gate, *_, narrow = feed_forward
        widen, gate = widen_and_gate.weight.chunk(2)
        return _Layer(
            qkv=_folded(torch.cat([query, key[order], value]), attention.norm.g, self._dtype),
            null=torch.cat([null_key, null_value])[None].to(self._dtype),
            out=attention.to_out[0].weight.detach().clone(),
            out_gain=attention.to_out[1].g.detach().clone(),
            widen=_folded(widen, norm.g, self._dtype),
            gate=_folded(gate, norm.g, self._dtype),
            narrow=narrow.weight.detach().clone(),
        )


def _feed_forward(layer: _Layer, x: Tensor) -> Tensor:
    """Maps normalised tokens [B, n, dim] to [B, n, dim] by a gated linear unit (Shazeer 2020, arXiv:2002.05202).

    The widest of all activations are written once: fetching new memory for them takes as long as computing them.
    """
    gate = F.silu(F.linear(x, layer.gate), inplace=True)
    return F.linear(gate.mul_(F.linear(x, layer.widen)), layer.narrow)


def _folded(weight: Tensor, gain: Tensor, dtype: torch.dtype) -> Tensor:
    """Returns a weight [out, in] that no longer needs the gain [in] of the normalisation before it, rounded once."""
    return (weight.detach().double() * gain.detach().double()).to(dtype)


def _norm(x: Tensor) -> Tensor:
    """Returns |x| [..., 1] of x [..., d], in float32 at least and never 0."""
    dtype = torch.promote_types(x.dtype, torch.float32)
    return torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=dtype).clamp_min(1e-12)
