"""Refinement: latents optimised for an objective, many problems that do not know of each other in one batch.

Source: Liu et al. 2021 (FuseDream), section 3.2. Its final latent is the last but one; here it is the best one that an
objective of its own saw, such as the same score over augmentations that are held out.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from clip2latent.basis import WEIGHTS, Basis, groups_of, mixed, start_basis
from clip2latent.diffusion import normal
from clip2latent.interfaces import Generator, Objective
from clip2latent.latents import expand, reduce
from clip2latent.refine_state import NOT_A_NUMBER, PLATEAU, State, adam
from clip2latent.sampling import check_at_least

VIEWS, NOISE, HELD_OUT = 1, 2, 3
"""Streams of random numbers, see `entropy`."""
PROGRESS = 1e-3
"""How far a held-out loss must fall within a problem's patience."""


def constant(done: float) -> float:
    """Returns 1: the paper's learning rate (arXiv:2112.01573, section 3.2)."""
    return 1.0


def cosine(done: float) -> float:
    """Returns a learning rate's share that falls along a half-wave to 0 as `done` goes from 0 to 1."""
    return (1 + math.cos(math.pi * done)) / 2


DECAYS: dict[str, Callable[[float], float]] = {"constant": constant, "cosine": cosine}
"""Share of the steps done -> share of the learning rate."""


@dataclass(frozen=True)
class Refining:
    """How latents are refined; the defaults are the paper's, but for the number of steps.

    Attributes:
        steps: of Adam.
        lr: its learning rate, in units of the latents.
        decay: how the rate falls over the steps, see `DECAYS`. A run that goes on for more steps than it began with
            falls anew from there, along the longer way.
        weights: of a basis: "shared" or "each", see `start_basis`.
        lead: the weight that a basis's first member starts with; None for that of the others, see `start_basis`.
        noise: deviation of the noise that is added to the latents at each step, in units; the paper's code has 0.01.
        pull: weight of the mean squared distance from the anchor, in units, in the loss.
        patience: steps after which a problem stops whose held-out loss has not fallen by `PROGRESS`; None for never.
        check: steps from one look at the held-out loss to the next.
        seed: of the noise and of the objective's views; any integer from 0.
        chunk: images drawn at once; where there are more, each chunk is drawn again on the way back.
    """

    steps: int = 100
    lr: float = 5e-3
    decay: str = "constant"
    weights: str = "shared"
    lead: float | None = None
    noise: float = 0.0
    pull: float = 0.0
    patience: int | None = 200
    check: int = 10
    seed: int = 0
    chunk: int = 64

    def __post_init__(self) -> None:
        patience = 1 if self.patience is None else self.patience
        check_at_least(1, check=self.check, chunk=self.chunk, patience=patience)
        check_at_least(0, steps=self.steps, lr=self.lr, noise=self.noise, pull=self.pull, seed=self.seed)
        if self.lead is not None and not 0 < self.lead < 1:
            raise ValueError(f"lead={self.lead}: expected a weight above 0 and below 1, or none")
        for name, known in {"weights": WEIGHTS, "decay": DECAYS}.items():
            if getattr(self, name) not in known:
                raise ValueError(f"{name}={getattr(self, name)!r}: expected one of {', '.join(known)}")


class Refined(NamedTuple):
    """What P problems came to.

    Attributes:
        latents: the best [P, L, D].
        losses: their held-out losses [P].
        interrupted: whether the user ended the run before its last step.
        state: where it ended, from which `refine` goes on.
    """

    latents: Tensor
    losses: Tensor
    interrupted: bool
    state: State


def refine(
    generator: Generator,
    objective: Objective,
    basis: Tensor,
    refining: Refining | None = None,
    held_out: Objective | None = None,
    progress: Callable[[State], Any] | None = None,
    *,
    groups: Sequence[int] | None = None,
    unit: Tensor | None = None,
    anchor: Tensor | None = None,
    rng: torch.Generator | None = None,
    state: State | None = None,
) -> Refined:
    """Optimises P latents, each a mixture of its basis, basis and weights together; returns the best ones seen.

    A problem's result depends on the others through the rounding of numbers only, as long as an image's loss does not
    depend on the batch. One that has stopped stays in the batch, since an objective may hold a target for each row.
    A KeyboardInterrupt ends the run with the best so far; so does, for its problem alone, a loss that is not a number.

    Args:
        generator: draws the images, which are clamped to [-1, 1].
        objective: images [P, 3, R, R] -> loss [P], to optimise.
        basis: latents [P, M, L, D] to start from; the generator's nearest valid ones are taken.
        refining: how.
        held_out: what the best latent is chosen by; None for the objective itself.
        progress: told the state before the first step and after each.
        groups: rows that stay equal, as `LatentSpace.groups`; None for the generator's own, or for each row by itself
            where the basis says otherwise. (1,) * L takes a basis in w to w+.
        unit: [L, D], what learning rate, noise and pull are measured in, such as the data's deviation; None for 1.
        anchor: [L, D] or [P, L, D], where `pull` pulls to; None for the first latent of each basis.
        rng: the stream that the objective draws its views from. It is seeded anew before each step, from the seed and
            the step, so that a run that goes on sees what an uninterrupted one sees.
        state: where to go on from; the basis then gives the anchor only.

    Raises:
        ValueError: for shapes that do not fit, and where a problem has no finite loss to start with.
    """
    refining = refining or Refining()
    _check_basis(basis, generator)
    groups = groups_of(basis, getattr(generator, "groups", None) if groups is None else groups)
    rows, width = basis.shape[-2:]
    unit = basis.new_ones(rows, width) if unit is None else unit.to(basis)
    if unit.shape != (rows, width) or not (unit > 0).all():
        raise ValueError(
            f"unit: expected positive numbers [{rows}, {width}], got {list(unit.shape)}, least {unit.min()}"
        )
    anchor = basis[:, 0] if anchor is None else anchor.to(basis)
    job = _Job(
        generator, objective, held_out or objective, refining, groups, unit, anchor.expand(basis[:, 0].shape), rng
    )
    state = job.begin(basis) if state is None else state
    interrupted = False
    try:
        if progress is not None:
            progress(state)
        while int(state.step) < refining.steps and state.running.any():
            state = job.advance(state)
            if progress is not None:
                progress(state)
    except KeyboardInterrupt:
        interrupted = True
    return Refined(job.expand(state.best), state.losses, interrupted, state)


@dataclass(frozen=True)
class _Job:
    generator: Generator
    objective: Objective
    held_out: Objective
    refining: Refining
    groups: tuple[int, ...]
    unit: Tensor  # [L, D]
    anchor: Tensor  # [P, L, D]
    rng: torch.Generator | None

    def expand(self, tokens: Tensor) -> Tensor:
        """tokens [P, K, D] -> latents [P, L, D]"""
        return expand(tokens, self.groups)

    def draw(self, latents: Tensor) -> Tensor:
        """latents [P, L, D] -> images [P, 3, R, R] in [-1, 1], as a file holds them"""
        parts, synthesize = latents.split(self.refining.chunk), self.generator.synthesize
        if len(parts) > 1 and latents.requires_grad:
            drawn = [checkpoint(synthesize, part, use_reentrant=False, preserve_rng_state=False) for part in parts]
        else:
            drawn = [synthesize(part) for part in parts]
        return torch.cat(drawn).clamp(-1, 1)

    def project(self, members: Tensor) -> Tensor:
        """members [P, M, K, D] -> the nearest valid ones"""
        latents = self.generator.project(self.expand(members.flatten(end_dim=1)))
        return reduce(latents, self.groups).view(members.shape)

    def begin(self, latents: Tensor) -> State:
        """Looks at each member of the bases [P, M, L, D], and at the mixtures."""
        problems, size = latents.shape[:2]
        members = reduce(latents.flatten(end_dim=1), self.groups).unflatten(0, (problems, size))
        basis = start_basis(self.project(members), self.refining.weights, self.refining.lead)
        zeros = Basis(*(torch.zeros_like(part) for part in basis))
        none, endless = (
            torch.zeros(problems, dtype=torch.int64).to(latents.device),
            latents.new_full((problems,), torch.inf),
        )
        best = basis.members[:, 0]
        state = State(
            none.new_zeros(()), basis, zeros, zeros, best, endless, endless, none, endless, endless, none, none
        )
        for member in basis.members.unbind(dim=1):
            state = self.look(state, member)
        state = state._replace(start=state.losses)
        if size > 1:
            state = self.look(state, mixed(basis))
        if not state.losses.isfinite().all():
            lost = (~state.losses.isfinite()).nonzero().flatten().tolist()
            raise ValueError(f"the loss of problems {lost} is not a number for any latent they start from")
        return state._replace(mark=state.losses)

    @torch.no_grad()
    def look(self, state: State, tokens: Tensor) -> State:
        """Keeps tokens [P, K, D] where the held-out loss is the lowest so far, in problems that run."""
        losses = self.held_out(self.draw(self.expand(tokens)))
        better = (losses < state.losses) & state.running
        best = torch.where(better[:, None, None], tokens, state.best)
        found = torch.where(better, state.step, state.found)
        return state._replace(best=best, losses=torch.where(better, losses, state.losses), last=losses, found=found)

    def advance(self, state: State) -> State:
        """Makes a step, and looks at what came of it where that is due."""
        losses, gradients = self.gradients(state)
        finite = losses.isfinite() & torch.stack([part.isfinite().flatten(1).all(1) for part in gradients]).all(0)
        state = state._replace(stopped=torch.where(state.running & ~finite, NOT_A_NUMBER, state.stopped))
        units = Basis(reduce(self.unit[None], self.groups), torch.ones_like(state.basis.logits[:1]))
        rate = self.refining.lr * DECAYS[self.refining.decay](int(state.step) / self.refining.steps)
        state = adam(state, gradients, units, rate)
        state = state._replace(basis=state.basis._replace(members=self.project(state.basis.members)))
        if int(state.step) % self.refining.check and int(state.step) < self.refining.steps:
            return state
        state = self.look(state, mixed(state.basis))
        gained = state.losses < state.mark - PROGRESS
        state = state._replace(
            mark=torch.where(gained, state.losses, state.mark), since=torch.where(gained, state.step, state.since)
        )
        if self.refining.patience is None:
            return state
        stuck = state.running & (state.step - state.since >= self.refining.patience)
        return state._replace(stopped=torch.where(stuck, PLATEAU, state.stopped))

    @torch.enable_grad()
    def gradients(self, state: State) -> tuple[Tensor, Basis]:
        """Returns the losses [P] and their gradients: problems share nothing, so their sum's is each's own."""
        step, seed = int(state.step), self.refining.seed
        if self.rng is not None:
            self.rng.manual_seed(entropy(seed, VIEWS, step))
        basis = Basis(*(part.detach().requires_grad_() for part in state.basis))
        latents = self.expand(mixed(basis))
        if self.refining.noise:
            rngs = [torch.Generator().manual_seed(entropy(seed, NOISE, step, row)) for row in range(len(latents))]
            noise = self.expand(normal(state.best.shape, rngs, latents.device))
            latents = latents + self.refining.noise * self.unit * noise
        losses = self.objective(self.draw(latents))
        if self.refining.pull:
            losses = losses + self.refining.pull * ((latents - self.anchor) / self.unit).square().mean(dim=(1, 2))
        return losses.detach(), Basis(*torch.autograd.grad(losses.sum(), basis))


def entropy(seed: int, stream: int, *numbers: int) -> int:
    """Returns the seed of one of a seed's streams of random numbers."""
    return int(np.random.SeedSequence([seed, stream, *numbers]).generate_state(1, np.uint64)[0] >> np.uint64(1))


def _check_basis(basis: Tensor, generator: Generator) -> None:
    wanted = tuple(generator.latent_shape)
    if basis.ndim != 4 or tuple(basis.shape[2:]) != wanted or not basis.numel():
        raise ValueError(f"basis: expected latents [P, M, {wanted[0]}, {wanted[1]}], got {list(basis.shape)}")
    if not basis.isfinite().all():
        raise ValueError("basis: expected finite latents, got some that are not")
