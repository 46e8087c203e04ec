"""LeanPrior: a frozen LatentPrior for sampling, the same function without the work that its causal order repeats.

The sequence is embedding, timestep, K noised tokens, K queries, and no token sees a later one. So the embedding's keys
and values are those of a condition, the timestep's those of a condition and a step, whatever the noised tokens are:
both are computed before the loop, for all steps at once. A sampling step then runs 2 K tokens through the layers, of
which the last layer computes the K queries alone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from clip2latent.causal_transformer import EPS
from clip2latent.lean_transformer import LeanTransformer
from clip2latent.prior import LatentPrior

ROWS_AT_ONCE = 1024
MAX_TABLES = 8


class Memory(NamedTuple):
    """Keys and values of what comes before the noised tokens, of the null condition (row 0) and P conditions.

    Attributes:
        past: of the null token and of conditions [1 + P, layers, 2, 2 d].
        time: of the timesteps after them [1 + P, S, layers, 1, 2 d].
        place: where in `time` each timestep is [T], S for those that are not there.
    """

    past: Tensor
    time: Tensor
    place: Tensor


class LeanPrior:
    """A prior's weights in the form that sampling wants: `remember` before the loop, `follow` in it.

    Copies the weights: later changes of the prior do not count.
    """

    def __init__(self, prior: LatentPrior) -> None:
        """Prepares a prior, in its type and on its device."""
        self._transformer = LeanTransformer(prior.transformer, 2 + 2 * prior.config["num_tokens"])
        self._time, self._queries = prior.time.weight.detach().clone(), prior.queries.detach().clone()
        self._embedding_in, self._latent_in = _affine(prior.embedding_in), _affine(prior.latent_in)
        weight, bias = _affine(prior.latent_out) or (None, None)
        head = self._transformer.head if weight is None else weight.double() @ self._transformer.head
        self._head = head.to(self._time.dtype), bias
        self._null = self._past(prior.null_embedding.detach()[None])  # [1, layers, 2, 2 d]
        # The null condition's timesteps are the same for every prompt. They are kept by table, not by timestep: which
        # timesteps share a batch decides their last bits, and those must not depend on what was sampled before.
        self._null_times: dict[tuple[int, ...], Tensor] = {}

    @torch.no_grad()
    def remember(self, conditions: Tensor, times: Tensor) -> Memory:
        """Returns what conditions [P, E] and timesteps [S] contribute: 6 kB for each pair at the paper's size."""
        key, times = tuple(times.tolist()), times.to(self._time.device)
        tokens = conditions.to(self._time)
        past = self._past(F.linear(tokens, *self._embedding_in) if self._embedding_in else tokens)
        if key not in self._null_times:
            if len(self._null_times) == MAX_TABLES:
                del self._null_times[next(iter(self._null_times))]
            self._null_times[key] = self._times(self._null, times)
        time = torch.cat([self._null_times[key], self._times(past, times)])
        place = torch.full((len(self._time),), len(times), device=times.device)
        place[times] = torch.arange(len(times), device=times.device)
        return Memory(torch.cat([self._null, past]), time, place)

    def follow(self, x: Tensor, past: Tensor) -> Tensor:
        """Predicts x0 [B, K, D] from x [B, K, D] and the keys and values of what is before [B, layers, 3, 2 d]."""
        tokens = x.to(self._time.dtype)
        tokens = F.linear(tokens, *self._latent_in) if self._latent_in else tokens
        tokens = torch.cat([tokens, self._queries.expand(len(x), -1, -1)], dim=1)  # [B, 2 K, dim]
        out, _ = self._transformer(tokens, past, len(self._queries))  # [B, K, dim]
        out = F.layer_norm(out / out.amax(dim=-1, keepdim=True), out.shape[-1:], eps=EPS)
        return F.linear(out, *self._head).to(x.dtype)

    def _past(self, tokens: Tensor) -> Tensor:
        """Returns keys and values of the null token and of embedding tokens [P, dim]: [P, layers, 2, 2 d]."""
        start = self._transformer.null.expand(len(tokens), -1, -1, -1)
        return torch.cat([start, self._transformer.remember(tokens[:, None], start)], dim=2)

    def _times(self, past: Tensor, times: Tensor) -> Tensor:
        """Returns keys and values of timesteps [S] after P conditions' `_past`: [P, S, layers, 1, 2 d]."""
        blocks = []
        for block in times.split(max(1, ROWS_AT_ONCE // len(past))):
            tokens = self._time[block].repeat(len(past), 1)[:, None]  # [P * S, 1, dim]
            found = self._transformer.remember(tokens, past.repeat_interleave(len(block), dim=0))
            blocks.append(found.unflatten(0, (-1, len(block))))
        return torch.cat(blocks, dim=1)


class PreparedPrior:
    """A prior that has read its conditions and timesteps: called as a `LatentPrior` is, with rows for conditions."""

    def __init__(self, follow: Callable[[Tensor, Tensor], Tensor], memory: Memory) -> None:
        """Stores who goes on (`LeanPrior.follow`) and from what."""
        self._follow, self._memory = follow, memory

    def __call__(self, x: Tensor, t: Tensor, condition: Tensor, keep: Tensor | None = None) -> Tensor:
        """Predicts x0 [B, K, D].

        Args:
            x: noised standardised tokens [B, K, D].
            t: timesteps [B], of those remembered; IndexError for others.
            condition: rows [B, 1] of the memory, 1 to P.
            keep: bool [B], where False the null condition takes the condition's place; None keeps all.
        """
        past, time, place = self._memory
        row = condition[:, 0] if keep is None else condition[:, 0] * keep
        return self._follow(x, torch.cat([past[row], time[row, place[t]]], dim=2))


def _affine(projection: nn.Module) -> tuple[Tensor, Tensor] | None:
    """Returns a projection's weight and bias, None where there is none."""
    if isinstance(projection, nn.Identity):
        return None
    return projection.weight.detach().clone(), projection.bias.detach().clone()
