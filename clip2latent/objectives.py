"""Objectives: images [B, 3, R, R] in [-1, 1] -> loss [B], lower is better, differentiable."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from math import ceil
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from clip2latent.augment import Augment, Views, apply_views
from clip2latent.interfaces import Embedder, Objective


def clip_objective(embedder: Embedder, targets: Tensor) -> Objective:
    """Returns the objective 1 - cosine between an image's embedding and its target.

    Args:
        embedder: embeds the images; the same that embedded the targets.
        targets: [E], of all images, or [B, E], of each of B images.

    Raises:
        ValueError: for targets of another shape; the objective raises it for another number of images than targets.
    """
    targets = _unit(targets, embedder)

    def loss(images: Tensor) -> Tensor:
        return 1 - (F.normalize(embedder.embed_images(images), dim=-1) * _checked(targets, images)).sum(-1)

    return loss


def augclip_objective(
    embedder: Embedder,
    targets: Tensor,
    augment: Augment = Augment(),  # noqa: B008 - frozen
    views: int = 16,
    *,
    rng: torch.Generator,
    chunk: int = 64,
    fixed: bool = False,
) -> Objective:
    """Returns AugCLIP as an objective: 1 - mean cosine between an image's random views and its target.

    All images of a call are seen in the same views. The gradient is taken chunk by chunk with the loss itself, so that
    memory is that of one chunk; it is exact, and can be taken once.

    Args:
        embedder: embeds the views, at the side `resolution` where it has that attribute, else at the images' own.
        targets: [E], of all images, or [B, E], of each of B images.
        augment: draws the views.
        views: how many.
        rng: draws new views at each call.
        chunk: views embedded at once; no more than the embedder's own `chunk`, where it has one.
        fixed: draw the views now, for all calls.

    Raises:
        ValueError: for targets of another shape, or fewer than one view or chunk; the objective raises it for another
            number of images than targets.

    Source: FuseDream, arXiv:2112.01573, eq. 3.
    """
    if chunk < 1:
        raise ValueError(f"chunk={chunk}: expected at least 1")
    targets = _unit(targets, embedder)
    kept = augment.draw(views, rng) if fixed else None
    # An embedder that is given more than its own chunk encodes all of it a second time on the way back.
    chunk = min(chunk, getattr(embedder, "chunk", chunk))

    def term(images: Tensor, targets: Tensor, part: Views, size: int) -> Tensor:
        embeddings = F.normalize(embedder.embed_images(apply_views(images, part, size).flatten(0, 1)), dim=-1)
        return (embeddings.unflatten(0, (len(images), -1)) * targets[:, None]).sum((1, 2)) / -views

    def loss(images: Tensor) -> Tensor:
        each = _checked(targets, images).expand(len(images), -1)
        drawn = augment.draw(views, rng) if kept is None else kept
        size = getattr(embedder, "resolution", images.shape[-1])
        # As many parts as there must be, of nearly the same size: a remainder of a few views is slow.
        parts = drawn.split(ceil(views / ceil(views / chunk)))
        num, losses = max(1, chunk // views), []
        for some, own in zip(images.split(num), each.split(num), strict=True):
            losses.append(1 + _summed(some, [partial(term, targets=own, part=part, size=size) for part in parts]))
        return torch.cat(losses)

    return loss


def _unit(targets: Tensor, embedder: Embedder) -> Tensor:
    if targets.ndim not in (1, 2) or targets.shape[-1] != embedder.dim:
        raise ValueError(
            f"targets: expected shape ({embedder.dim},) or (B, {embedder.dim}), got {tuple(targets.shape)}"
        )
    return F.normalize(targets, dim=-1)


def _checked(targets: Tensor, images: Tensor) -> Tensor:
    if targets.ndim == 2 and len(targets) != len(images):
        raise ValueError(f"images: expected {len(targets)}, one for each target, got {len(images)}")
    return targets


def _summed(images: Tensor, terms: Sequence[Objective]) -> Tensor:
    """Returns the sum of terms [B] at images [B, 3, R, R], with the memory of one term."""
    if torch.is_grad_enabled() and images.requires_grad:
        return _SummedWithGradient.apply(images, terms)
    return torch.stack([term(images) for term in terms]).sum(0)


class _SummedWithGradient(torch.autograd.Function):
    """Sums terms and takes the gradient of each before the next one is made; what is kept is the gradients' sum."""

    @staticmethod
    def forward(ctx: Any, images: Tensor, terms: Sequence[Objective]) -> Tensor:
        leaf = images.detach().requires_grad_()
        losses, gradient = [], torch.zeros_like(images)
        for term in terms:
            with torch.enable_grad():
                loss = term(leaf)
                gradient += torch.autograd.grad(loss.sum(), leaf)[0]
            losses.append(loss.detach())
        ctx.save_for_backward(gradient)
        return torch.stack(losses).sum(0)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, outer: Tensor) -> tuple[Tensor, None]:
        (gradient,) = ctx.saved_tensors
        return outer.view(-1, 1, 1, 1) * gradient, None
