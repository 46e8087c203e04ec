"""The network of the authors' published priors: that of dalle2-pytorch 0.2.38, which no later release can load.

It differs from `LatentPrior` in three things. Attention is a plain scaled dot product; the null branch has no learned
embedding, the embedding's token is masked instead; and every width is one width. The last normalisation is an ordinary
one, too.
"""

from __future__ import annotations

import math
import re

import torch
from torch import Tensor, nn
from torch.nn import functional as F

MAX_ROTARY_DIMS = 32
NUM_BUCKETS, MAX_DISTANCE = 32, 128
FEED_FORWARD_FACTOR = 4


class ReleasedPrior(nn.Module):
    """The prior of the original clip2latent over 2 + 2K tokens; called as a `LatentPrior` is.

    The sequence is: embedding, timestep, K noised latent tokens, K learned queries; the outputs at the queries are x0.
    Source: dalle2-pytorch 0.2.38, DiffusionPriorNetwork, and for K > 1 justinpinkney/clip2latent, WPlusPriorNetwork.

    Attributes:
        config: sizes, plain numbers, under the names of `LatentPrior`'s arguments.
        embedding_scale: what embeddings are multiplied by.
    """

    def __init__(
        self,
        dim: int,
        depth: int,
        heads: int,
        dim_head: int,
        timesteps: int,
        num_tokens: int = 1,
        embedding_scale: float = 1.0,
    ) -> None:
        """Builds a prior with random weights.

        Args:
            dim: width of the transformer, of the embedding and of the latents.
            depth: number of layers.
            heads: attention heads.
            dim_head: width of a head.
            timesteps: T.
            num_tokens: K.
            embedding_scale: what embeddings are multiplied by.
        """
        super().__init__()
        sizes = {"dim": dim, "depth": depth, "heads": heads, "dim_head": dim_head, "timesteps": timesteps}
        self.config = {"embedding_dim": dim, "latent_dim": dim, "num_tokens": num_tokens, **sizes}
        wrong = {name: value for name, value in self.config.items() if value < 1}
        if wrong:
            raise ValueError(f"sizes of a prior must be at least 1, got {wrong}")
        self.embedding_scale = float(embedding_scale)
        self.queries = nn.Parameter(torch.randn((num_tokens, dim) if num_tokens > 1 else dim))
        self.time = nn.Embedding(timesteps, dim)
        self.position_bias = nn.Embedding(NUM_BUCKETS, heads)
        self.layers = nn.ModuleList(_Layer(dim, heads, dim_head) for _ in range(depth))
        self.norm = _Norm(dim)
        self.out = nn.Linear(dim, dim, bias=False)

    def forward(self, x: Tensor, t: Tensor, embedding: Tensor, keep: Tensor | None = None) -> Tensor:
        """Predicts x0 [B, K, D].

        Args:
            x: noised standardised tokens [B, K, D].
            t: timesteps [B], int64 in 0..T-1.
            embedding: condition [B, E], with the norm that CLIP gave it.
            keep: bool [B], where False nothing attends to the embedding; None keeps all.
        """
        batch, num_tokens, width = x.shape
        sequence = [
            self.embedding_scale * embedding[:, None],  # [B, 1, D]
            self.time(t)[:, None],  # [B, 1, D]
            x,  # [B, K, D]
            self.queries.view(num_tokens, width).expand(batch, -1, -1),  # [B, K, D]
        ]
        tokens = torch.cat(sequence, dim=1)  # [B, N, D], N = 2 + 2K
        bias = self._attention_bias(tokens.shape[1])  # [heads, N, 1 + N]
        if keep is not None:
            is_embedding = torch.arange(bias.shape[-1], device=x.device) == 1
            dropped = ~keep[:, None, None, None] & is_embedding  # [B, 1, 1, 1 + N]
            bias = bias.masked_fill(dropped, -torch.inf)  # [B, heads, N, 1 + N]
        for layer in self.layers:
            tokens = layer(tokens, bias)
        return self.out(self.norm(tokens[:, -num_tokens:]))

    def _attention_bias(self, length: int) -> Tensor:
        """Returns what is added to the scores of N queries and 1 + N keys, the null key first: [heads, N, 1 + N].

        Query i attends to the null key and to tokens 0..i. Distances are counted as if the null key were token 0,
        which makes them one too small; the weights were trained so.
        """
        device = self.position_bias.weight.device
        query, key = torch.arange(length, device=device)[:, None], torch.arange(length + 1, device=device)
        bias = self.position_bias(_distance_buckets((query - key).clamp(min=0)))  # [N, 1 + N, heads]
        return bias.permute(2, 0, 1).masked_fill(key > query + 1, -torch.inf)


def official_name(name: str) -> str:
    """Returns what dalle2-pytorch calls a `ReleasedPrior`'s weight."""
    for own, official in _OFFICIAL_NAMES:
        name, found = re.subn(own, official, name)
        if found:
            return name
    raise AssertionError(f"{name} has no official name")


class _Layer(nn.Module):
    """x + attention(x), then x + gated linear unit of x (SwiGLU: Shazeer 2020, arXiv:2002.05202)."""

    def __init__(self, dim: int, heads: int, dim_head: int) -> None:
        super().__init__()
        self.attention = _Attention(dim, heads, dim_head)
        self.norm = _Norm(dim)
        self.widen = nn.Linear(dim, 2 * FEED_FORWARD_FACTOR * dim, bias=False)
        self.narrow = nn.Linear(FEED_FORWARD_FACTOR * dim, dim, bias=False)

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        """Maps tokens [B, N, D] to tokens [B, N, D]."""
        x = x + self.attention(x, bias)
        value, gate = self.widen(self.norm(x)).chunk(2, dim=-1)
        return x + self.narrow(value * F.silu(gate))


class _Attention(nn.Module):
    """Attention of many query heads to one head of keys and values (Shazeer 2019), a learned null key among them."""

    def __init__(self, dim: int, heads: int, dim_head: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = _Norm(dim)
        self.null_key_value = nn.Parameter(torch.randn(2, dim_head))
        self.query = nn.Linear(dim, heads * dim_head, bias=False)
        self.key_value = nn.Linear(dim, 2 * dim_head, bias=False)
        self.out = nn.Linear(heads * dim_head, dim, bias=False)
        self.norm_out = _Norm(dim)
        rotated = min(MAX_ROTARY_DIMS, dim_head)
        self.register_buffer("frequencies", 10000.0 ** (-torch.arange(0, rotated, 2) / rotated))

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        """Maps tokens [B, N, D] to tokens [B, N, D]; bias is [heads, N, 1 + N] or [B, heads, N, 1 + N]."""
        x = self.norm(x)
        query = self.query(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)  # [B, heads, N, dim_head]
        key, value = self.key_value(x).chunk(2, dim=-1)  # [B, N, dim_head] each
        query, key = _rotate(query, self.frequencies), _rotate(key, self.frequencies)
        key, value = (
            torch.cat([null.expand(len(x), 1, -1), row], dim=1)[:, None].expand(-1, self.heads, -1, -1)
            for null, row in zip(self.null_key_value, (key, value), strict=True)
        )  # [B, heads, 1 + N, dim_head] each
        attended = F.scaled_dot_product_attention(query, key, value, bias.to(query.dtype))
        return self.norm_out(self.out(attended.transpose(1, 2).flatten(2)))


class _Norm(nn.Module):
    """Layer normalisation with a learned gain; the offset is a constant that the checkpoints hold as zeros."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(dim))
        self.register_buffer("beta", torch.zeros(dim))

    def forward(self, x: Tensor) -> Tensor:
        return F.layer_norm(x, x.shape[-1:], self.gamma, self.beta)


def _rotate(x: Tensor, frequencies: Tensor) -> Tensor:
    """Turns neighbouring pairs of the first dimensions of x [..., N, dim_head] by position times frequency.

    Rotary embeddings (Su et al. 2021, arXiv:2104.09864, eq. 34); dimensions beyond twice the frequencies stay.
    """
    angles = torch.arange(x.shape[-2], device=x.device, dtype=torch.float32)[:, None] * frequencies.float()
    cos, sin = angles.cos().to(x.dtype), angles.sin().to(x.dtype)  # [N, pairs]
    turned, rest = x.split([2 * len(frequencies), x.shape[-1] - 2 * len(frequencies)], dim=-1)
    even, odd = turned.unflatten(-1, (-1, 2)).unbind(dim=-1)
    pairs = torch.stack([even * cos - odd * sin, odd * cos + even * sin], dim=-1)
    return torch.cat([pairs.flatten(-2), rest], dim=-1)


def _distance_buckets(distance: Tensor) -> Tensor:
    """Maps distances from 0 to buckets: the first half one by one, the others by their logarithm (T5, section 2.1)."""
    exact = NUM_BUCKETS // 2
    share = (distance.clamp(min=1) / exact).log() / math.log(MAX_DISTANCE / exact)
    far = (exact + (share * (NUM_BUCKETS - exact)).long()).clamp(max=NUM_BUCKETS - 1)
    return torch.where(distance < exact, distance, far)


_OFFICIAL_NAMES = [
    (r"^queries$", "learned_query"),
    (r"^time\.", "to_time_embeds.0."),
    (r"^position_bias\.", "causal_transformer.rel_pos_bias.relative_attention_bias."),
    (r"^norm\.", "causal_transformer.norm."),
    (r"^out\.", "causal_transformer.project_out."),
    (r"^layers\.(\d+)\.attention\.null_key_value$", r"causal_transformer.layers.\1.0.null_kv"),
    (r"^layers\.(\d+)\.attention\.query\.", r"causal_transformer.layers.\1.0.to_q."),
    (r"^layers\.(\d+)\.attention\.key_value\.", r"causal_transformer.layers.\1.0.to_kv."),
    (r"^layers\.(\d+)\.attention\.out\.", r"causal_transformer.layers.\1.0.to_out.0."),
    (r"^layers\.(\d+)\.attention\.norm_out\.", r"causal_transformer.layers.\1.0.to_out.1."),
    (r"^layers\.(\d+)\.attention\.norm\.", r"causal_transformer.layers.\1.0.norm."),
    (r"^layers\.(\d+)\.attention\.frequencies$", r"causal_transformer.layers.\1.0.rotary_emb.freqs"),
    (r"^layers\.(\d+)\.norm\.", r"causal_transformer.layers.\1.1.0."),
    (r"^layers\.(\d+)\.widen\.", r"causal_transformer.layers.\1.1.1."),
    (r"^layers\.(\d+)\.narrow\.", r"causal_transformer.layers.\1.1.5."),
]
