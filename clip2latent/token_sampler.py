"""TokenSampler: guided sampling from any prior, by the fastest form it has."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from clip2latent.diffusion import Rng, Steps, fresh_noise, guided, sample
from clip2latent.lean_graph import Recorded, Replays, record_on_cuda
from clip2latent.lean_prior import LeanPrior, Memory, PreparedPrior
from clip2latent.prior import LatentPrior

MAX_GRAPH_STEPS = 64


class TokenSampler:
    """Runs `sample` with `guided` for a prior: a frozen `LatentPrior` in its lean form, others as they are.

    The lean form, a second copy of the weights, is made when it is first needed, and again after they have changed. A
    prior with forward hooks or one that is still trained is called itself. On CUDA the whole loop is one graph for each
    table of steps, guidance and size of the batch, with the fresh noise of stochastic samplers, drawn before, among its
    inputs; where the table has more than 64 steps, each step is one.
    """

    def __init__(self, prior: nn.Module, record: Callable[..., Recorded] | None = None) -> None:
        """Stores the prior; without `record` there are recordings on CUDA and none elsewhere, see `Replays`."""
        self._prior, self._record = prior, record
        self._lean: tuple[LeanPrior, Replays | None] | None = None
        self._weights: list[tuple] = []

    def __call__(
        self,
        noise: Tensor,
        condition: Tensor,
        table: Steps,
        rng: Rng,
        scale: float,
        negative: Tensor | None = None,
        **options: Any,
    ) -> Tensor:
        """Samples clean tokens [B, K, D].

        Args:
            noise: standard normal noise [B, K, D].
            condition: [B, E], of which any rows may be equal: each is read once.
            table: the sampler's steps.
            rng: source of the fresh noise of stochastic samplers.
            scale: guidance, see `guided`.
            negative: a condition [B, E] in place of the null branch.
            options: further ones of `guided`.
        """
        made = self._made()
        if made is None:
            return sample(guided(self._prior, condition, scale, negative=negative, **options), noise, table, rng)
        lean, replays = made
        conditions = [condition] if negative is None else [condition, negative]
        distinct, rows = torch.cat(conditions).float().unique(dim=0, return_inverse=True)
        rows = 1 + rows.view(len(conditions), -1).T  # [B, 1 or 2], the condition's and the negative one's
        past, time, place = lean.remember(distinct, table.t)

        def loop(
            x: Tensor, rows: Tensor, past: Tensor, time: Tensor, fresh: Rng | Tensor, follow: Any = lean.follow
        ) -> Tensor:
            prior = PreparedPrior(follow, Memory(past, time, place))
            other = rows[:, 1:] if rows.shape[1] == 2 else None
            return sample(guided(prior, rows[:, :1], scale, negative=other, **options), x, table, fresh)

        if replays is None:
            return loop(noise, rows, past, time, rng)
        if len(table.t) > MAX_GRAPH_STEPS:
            return loop(noise, rows, past, time, rng, partial(replays, "step", lean.follow))
        key = (scale, repr(sorted(options.items())), *(tuple(column.tolist()) for column in table))
        return replays(key, loop, noise, rows, past, time, fresh_noise(table, noise.shape, rng, noise.device))

    def _made(self) -> tuple[LeanPrior, Replays | None] | None:
        """Returns the lean form of the weights as they are now, and its recordings; None for what must be called."""
        prior = self._prior
        weights = list(prior.parameters())
        hooked = any(part._forward_hooks or part._forward_pre_hooks for part in prior.modules())
        if type(prior) is not LatentPrior or hooked or any(weight.requires_grad for weight in weights):
            return None
        state = [(w.data_ptr(), w.dtype, 0 if w.is_inference() else w._version) for w in weights]
        if self._lean is None or state != self._weights:
            record = self._record or (record_on_cuda if weights[0].is_cuda else None)
            self._lean, self._weights = (LeanPrior(prior), Replays(record) if record else None), state
        return self._lean
