"""Bases: a latent as a mixture of several, which few numbers carry far (Liu et al. 2021, eq. 4)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from clip2latent.latents import expand, reduce

WEIGHTS = ("shared", "each")


class Basis(NamedTuple):
    """The bases of P problems.

    Attributes:
        members: [P, M, K, D].
        logits: what the members' weights are the softmax of, over M: [P, M, 1, 1], or [P, M, K, D] for weights of each
            number of its own.
    """

    members: Tensor
    logits: Tensor


def start_basis(members: Tensor, weights: str = "shared", lead: float | None = None) -> Basis:
    """Returns a basis as it starts: of equal weights, 1/M (Liu et al. 2021, section 3.2), or with one that leads.

    Args:
        members: tokens [P, M, K, D].
        weights: "shared", one for each member, as the paper's equation has it; or "each", one for each of a member's
            numbers, as the paper's code (gnobitab/FuseDream) does.
        lead: the first member's weight, above 0 and below 1; the others share the rest. None for equal weights. Means
            of several members each are much alike, so that several bases of one prompt want each a lead of its own.

    Raises:
        ValueError: for other weights, and another lead.
    """
    if lead is not None and not 0 < lead < 1:
        raise ValueError(f"lead={lead}: expected a weight above 0 and below 1, or none")
    if weights not in WEIGHTS:
        raise ValueError(f"weights={weights!r}: expected one of {', '.join(WEIGHTS)}")
    logits = members.new_zeros(members.shape if weights == "each" else (*members.shape[:2], 1, 1))
    others = members.shape[1] - 1
    if lead is not None and others:
        logits[:, 0] = math.log(lead * others / (1 - lead))
    return Basis(members, logits)


def mixed(basis: Basis) -> Tensor:
    """Returns the mixtures [P, K, D]: sum_i softmax(logits)_i members_i."""
    return (basis.logits.softmax(dim=1) * basis.members).sum(dim=1)


def groups_of(latents: Tensor, groups: Sequence[int] | None) -> tuple[int, ...]:
    """Returns the groups in which latents' rows repeat: those given where they do, else each row by itself.

    Latents of w stay in w; those that have left it, by style mixing say, are in w+.

    Args:
        latents: [..., L, D].
        groups: row counts that sum to L, as a generator or a `LatentSpace` has them; None for each row by itself.
    """
    rows = latents.shape[-2]
    if groups is not None and sum(groups) == rows:
        flat = latents.flatten(end_dim=-3)
        if expand(reduce(flat, groups), groups).equal(flat):
            return tuple(groups)
    return (1,) * rows


def spread(candidates: Sequence[Tensor], num: int, size: int) -> Tensor:
    """Deals candidates out to several bases of each prompt: basis n gets candidates n, n + num, n + 2 num, ...

    Args:
        candidates: of each of P prompts, its latents [N, L, D], best first; prompts may differ in N.
        num: bases of each prompt.
        size: latents of each basis; fewer where a prompt has too few candidates, then in all bases.

    Returns:
        [P * num, M, L, D], a prompt's bases one after the other; member 0 of each is its best.

    Raises:
        ValueError: for fewer candidates than bases, and numbers under 1.
    """
    if num < 1 or size < 1:
        raise ValueError(f"num={num}, basis={size}: expected at least 1")
    fewest = min(len(latents) for latents in candidates)
    if fewest < num:
        raise ValueError(f"num={num}: expected at most {fewest}, the images there are of each prompt to start from")
    members = min(size, fewest // num)
    dealt = [latents[: num * members].unflatten(0, (members, num)).transpose(0, 1) for latents in candidates]
    return torch.cat(dealt)
