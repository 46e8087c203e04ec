"""LatentPrior: a causal transformer that predicts clean latent tokens from noised ones, a timestep and an embedding."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class LatentPrior(nn.Module):
    """The diffusion prior (Ramesh et al. 2022, section 2.2) over 2 + 2K tokens, without text encodings.

    The sequence is: embedding, timestep, K noised latent tokens, K learned queries; the outputs at the queries are x0.
    The transformer is dalle2-pytorch's. With K = 1 and equal widths this is the function of its DiffusionPriorNetwork
    with max_text_len 0; the default of 256 would put 256 constant tokens in front and cost 65 times the arithmetic.
    Linear projections exist only where widths differ.

    Attributes:
        config: the constructor's arguments, plain numbers.
    """

    def __init__(
        self,
        embedding_dim: int,
        latent_dim: int,
        num_tokens: int = 1,
        dim: int = 512,
        depth: int = 12,
        heads: int = 12,
        dim_head: int = 64,
        timesteps: int = 1000,
    ) -> None:
        """Builds a prior with random weights; the defaults are the paper's size.

        Args:
            embedding_dim: E.
            latent_dim: D.
            num_tokens: K.
            dim: width of the transformer.
            depth: number of layers.
            heads: attention heads.
            dim_head: width of a head.
            timesteps: T.
        """
        super().__init__()
        self.config = {
            "embedding_dim": embedding_dim,
            "latent_dim": latent_dim,
            "num_tokens": num_tokens,
            "dim": dim,
            "depth": depth,
            "heads": heads,
            "dim_head": dim_head,
            "timesteps": timesteps,
        }
        wrong = {name: value for name, value in self.config.items() if value < 1}
        if wrong:
            raise ValueError(f"sizes of a prior must be at least 1, got {wrong}")
        # Imported here because it takes seconds: what only reads configurations does not wait for it.
        from clip2latent.causal_transformer import CausalTransformer

        self.embedding_in = _linear_where_needed(embedding_dim, dim)
        self.latent_in = _linear_where_needed(latent_dim, dim)
        self.latent_out = _linear_where_needed(dim, latent_dim)
        self.null_embedding = nn.Parameter(torch.randn(dim))
        self.time = nn.Embedding(timesteps, dim)
        self.queries = nn.Parameter(torch.randn(num_tokens, dim))
        self.transformer = CausalTransformer(dim=dim, depth=depth, dim_head=dim_head, heads=heads)
        if embedding_dim != dim:
            # A unit-norm embedding then enters with unit variance, as the time token and the queries do.
            nn.init.normal_(self.embedding_in.weight)

    def forward(self, x: Tensor, t: Tensor, embedding: Tensor, keep: Tensor | None = None) -> Tensor:
        """Predicts x0 [B, K, D].

        Args:
            x: noised standardised tokens [B, K, D].
            t: timesteps [B], int64 in 0..T-1.
            embedding: condition [B, E], unit norm.
            keep: bool [B], where False the learned null embedding takes the embedding's place; None keeps all.
        """
        batch, num_tokens = x.shape[:2]
        condition = self.embedding_in(embedding)  # [B, dim]
        if keep is not None:
            condition = torch.where(keep[:, None], condition, self.null_embedding.to(condition.dtype))
        sequence = [
            condition[:, None],  # [B, 1, dim]
            self.time(t)[:, None],  # [B, 1, dim]
            self.latent_in(x),  # [B, K, dim]
            self.queries.expand(batch, -1, -1),  # [B, K, dim]
        ]
        out = self.transformer(torch.cat(sequence, dim=1), num_tokens)  # [B, K, dim]
        return self.latent_out(out)


def _linear_where_needed(width_in: int, width_out: int) -> nn.Module:
    return nn.Identity() if width_in == width_out else nn.Linear(width_in, width_out)
