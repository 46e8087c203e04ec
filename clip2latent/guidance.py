"""Guidance: how strongly a condition is followed, as a wrapper that makes a prior a denoiser."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from clip2latent.interfaces import Denoiser


def guided(
    prior: Callable[..., Tensor],
    embedding: Tensor,
    scale: float,
    *,
    negative: Tensor | None = None,
    guidance_rescale: float = 0.0,
    guidance_interval: Sequence[int] | None = None,
    guidance_limit: float | None = None,
) -> Denoiser:
    """Wraps a prior into a denoiser with classifier-free guidance (Ho and Salimans 2022, eq. 6, for x0).

    Both branches run in one batched call. The null branch keeps the noised tokens and drops only the embedding.

    Args:
        prior: (x, t, embedding, keep) -> x0, as a `LatentPrior` is called.
        embedding: the condition [B, E].
        scale: 1 is the plain conditional prediction, 0 the unconditional one; the options below act above 1.
        negative: a condition [B, E] to lead away from, in place of the null branch.
        guidance_rescale: and the following: see `extrapolate`.
        guidance_interval: the timesteps (low, high) between which guidance acts.
        guidance_limit: standard deviations.

    Raises:
        ValueError: for a negative of another shape than the embedding, and for options out of range.
    """
    check_guidance(guidance_rescale, guidance_interval, guidance_limit)
    if negative is not None and negative.shape != embedding.shape:
        raise ValueError(
            f"negative must have the embedding's shape {tuple(embedding.shape)}, got {tuple(negative.shape)}:"
            " repeat it for every row"
        )

    def conditional(x: Tensor, t: Tensor) -> Tensor:
        return prior(x, t, embedding)

    def unconditional(x: Tensor, t: Tensor) -> Tensor:
        if negative is not None:
            return prior(x, t, negative)
        return prior(x, t, embedding, torch.zeros(len(x), dtype=torch.bool, device=x.device))

    def both(x: Tensor, t: Tensor) -> Tensor:
        second, keep = negative, None
        if second is None:
            second, keep = embedding, torch.arange(2 * len(x), device=x.device) < len(x)
        doubled = prior(x.repeat(2, 1, 1), t.repeat(2), torch.cat([embedding, second]), keep)
        with_text, without = doubled.chunk(2)
        return extrapolate(with_text, without, t, scale, guidance_rescale, guidance_interval, guidance_limit)

    return {1.0: conditional, 0.0: unconditional}.get(float(scale), both)


def extrapolate(
    conditional: Tensor,
    null: Tensor,
    t: Tensor,
    scale: float,
    guidance_rescale: float = 0.0,
    guidance_interval: Sequence[int] | None = None,
    guidance_limit: float | None = None,
) -> Tensor:
    """Returns x0 [B, K, D] = null + scale (conditional - null), by request held back where scale is above 1.

    A large scale makes predictions larger than any data are. Each row is treated by itself, nothing waits for the
    device, and up to scale 1, where nothing is extrapolated, the options do nothing. On the embedded demo at scale 5
    the interval 300..970 raises variety most; with 8 steps, too few for such a scale, a limit of 1 gives back most of
    the score that is lost, rescale less. At scale 3 no option gained, at the recommended 2 none was tried.

    Args:
        conditional: x0 [B, K, D] of the condition.
        null: x0 [B, K, D] without it, or of the negative one.
        t: timesteps [B].
        scale: how far to go from `null` (0) through `conditional` (1) and beyond.
        guidance_rescale: phi in [0, 1], 0 for off: multiplies x0 by 1 - phi + phi std(conditional) / std(x0), with
            deviations over a row's K x D numbers (Lin et al. 2024, arXiv:2305.08891, section 3.4, eq. 16; there 0.7).
        guidance_interval: low and high; at timesteps outside low..high x0 is `conditional`, as if scale were 1
            (Kynkäänniemi et al. 2024, arXiv:2404.07724, who leave out the noisiest steps, where guidance costs variety,
            and the cleanest, where it does nothing). Their bounds are noise levels sigma, here exp(-lambda) at t, see
            `Schedule.log_snr`. A step costs two branches all the same.
        guidance_limit: in standard deviations of the data, channel by channel of the standardised latents: a channel is
            clamped to +-limit, or to where the branches themselves are when that is farther out. The clamp of Imagen's
            dynamic thresholding (Saharia et al. 2022, section 2.3), whose bound is one percentile over all pixels; here
            every channel has its own, and nothing is divided afterwards, since latents have no range to return to.
    """
    x0 = null + scale * (conditional - null)
    if scale <= 1:
        return x0
    if guidance_rescale:
        wanted, found = (value.std(dim=(1, 2), keepdim=True, correction=0) for value in (conditional, x0))
        ratio = wanted / found.clamp(min=torch.finfo(found.dtype).tiny)
        x0 = x0 * (1 - guidance_rescale + guidance_rescale * ratio)
    if guidance_limit is not None:
        bound = torch.maximum(conditional.abs(), null.abs()).clamp(min=guidance_limit)
        x0 = x0.clamp(-bound, bound)
    if guidance_interval is not None:
        low, high = guidance_interval
        x0 = torch.where(((t >= low) & (t <= high))[:, None, None], x0, conditional)
    return x0


def check_guidance(
    guidance_rescale: float, guidance_interval: Sequence[int] | None, guidance_limit: float | None
) -> None:
    """Raises ValueError for options of `extrapolate` that are out of range."""
    if not 0 <= guidance_rescale <= 1:
        raise ValueError(f"guidance_rescale={guidance_rescale}: expected 0 (off) to 1, usually 0.7")
    if guidance_interval is not None:
        whole = len(guidance_interval) == 2 and all(isinstance(bound, int) for bound in guidance_interval)
        if not whole or not 0 <= guidance_interval[0] <= guidance_interval[1]:
            raise ValueError(
                f"guidance_interval={guidance_interval}: expected two timesteps, low and high, such as (100, 900)"
            )
    if guidance_limit is not None and not 0 < guidance_limit < float("inf"):
        raise ValueError(
            f"guidance_limit={guidance_limit}: expected a positive number of standard deviations, such as 3"
        )
