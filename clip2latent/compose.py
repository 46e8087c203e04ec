"""Composition: a foreground pasted onto a background, both optimised so that the whole shows what a text says.

Source: Liu et al. 2021 (FuseDream), section 3.3 and appendix B, whose authors did not publish their code for it. For
each size and place of the foreground, the fused image's AugCLIP score comes first and its perceptual distance to the
background second; the outer search over sizes and places keeps the better half of them round by round.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from clip2latent.barrier import WAYS, Moments, descend
from clip2latent.basis import Basis, groups_of, mixed, start_basis
from clip2latent.composition import Candidate, Composed, Composing, Fused, Look, Part, Report, fuse
from clip2latent.halving import SEARCHES, Round, total_steps
from clip2latent.interfaces import Objective
from clip2latent.latents import expand, reduce
from clip2latent.paste import Placement, make_pasting
from clip2latent.perceptual import Distance
from clip2latent.refine import entropy


def compose(
    foreground: Part,
    background: Part,
    objective: Objective,
    distance: Distance,
    placements: Sequence[Placement],
    composing: Composing | None = None,
    held_out: Objective | None = None,
    progress: Callable[[Report], Any] | None = None,
    rng: torch.Generator | None = None,
) -> Composed:
    """Searches the size, the place and the latents of a composition.

    A candidate's way depends on its placement and the seed only, up to the rounding of numbers: not on the other
    candidates, nor on how many are optimised at once. A KeyboardInterrupt ends the search with the best so far.

    Args:
        foreground: what is pasted.
        background: what it is pasted onto; the generator may be the same.
        objective: images [B, 3, R, R] -> loss [B] of any number of fused images, such as 1 - AugCLIP.
        distance: of the fused images to their backgrounds.
        placements: the sizes and places to try, each once.
        composing: how.
        held_out: what compositions are compared by, in place of the objective; None for the objective itself.
        progress: told after every step of a chunk.
        rng: the stream that the objective draws its views from: it is seeded from (seed, step) before each step.

    Raises:
        ValueError: for bases that do not fit their generators, malformed placements, and a first loss that is not a
            number.
    """
    composing = composing or Composing()
    for name, part in (("foreground", foreground), ("background", background)):
        wanted = tuple(part.generator.latent_shape)
        if part.basis.ndim != 3 or tuple(part.basis.shape[1:]) != wanted or not part.basis.numel():
            raise ValueError(f"{name}: expected a basis [M, {wanted[0]}, {wanted[1]}], got {list(part.basis.shape)}")
    make_pasting(placements, foreground.generator.resolution, background.generator.resolution)
    search = _Search(foreground, background, objective, held_out or objective, distance, list(placements), composing)
    rounds = SEARCHES[composing.search](len(placements), composing.steps)
    return search.run(rounds, progress or (lambda report: None), rng)


class _State(NamedTuple):
    """The numbers being optimised, members in units of the latents, and Adam's."""

    foreground: Basis
    background: Basis
    moments: Moments


class _Side:
    """A part with its latents' groups: what maps bases of tokens in units to latents."""

    def __init__(self, part: Part) -> None:
        self.generator = part.generator
        self.groups = groups_of(part.basis, getattr(part.generator, "groups", None))
        unit = torch.ones_like(part.basis[0]) if part.unit is None else part.unit.to(part.basis)
        self.unit = reduce(unit[None], self.groups)  # [1, K, D]

    def latents(self, basis: Basis) -> Tensor:
        """[P, M, K, D] in units -> [P, L, D]"""
        return expand(mixed(basis) * self.unit, self.groups)

    def tokens(self, latents: Tensor) -> Tensor:
        """The nearest valid latents [B, L, D] -> tokens [B, K, D] in units"""
        return reduce(self.generator.project(latents), self.groups) / self.unit

    def project(self, basis: Basis) -> Basis:
        """The nearest valid basis"""
        members = self.tokens(expand(basis.members.flatten(0, 1) * self.unit, self.groups))
        return basis._replace(members=members.view(basis.members.shape))


class _Search:
    def __init__(
        self,
        foreground: Part,
        background: Part,
        objective: Objective,
        held_out: Objective,
        distance: Distance,
        placements: list[Placement],
        composing: Composing,
    ) -> None:
        self.sides = (_Side(foreground), _Side(background))
        self.parts = (foreground, background)
        self.objective, self.held_out, self.distance = objective, held_out, distance
        self.placements, self.composing = placements, composing
        self.way = WAYS[composing.way]
        self.best: dict[int, Look] = {}  # of each row
        self.least: dict[int, float] = {}  # the lowest loss, of the kind that comes first, that a row has shown
        self.steps = [0] * len(placements)
        self.rounds: dict[int, int] = {}  # the steps after which a row's last round began
        self.broken: set[int] = set()

    def run(self, rounds: Sequence[Round], progress: Callable[[Report], Any], rng: torch.Generator | None) -> Composed:
        """Runs the rounds and returns the candidates."""
        chunk, done, interrupted = self.composing.chunk, 0, False
        starts, total = [0, *(turn.steps for turn in rounds)], total_steps(rounds)
        rows, state = list(range(len(self.placements))), self.begin()
        for at in range(0, len(rows), chunk):
            self.look(rows[at : at + chunk], _rows(state, slice(at, at + chunk)))
        if not all(np.isfinite(self.merits(row)).all() for row in rows):
            raise ValueError("the losses are not numbers before the first step: look at the generators' images")
        try:
            for start, turn in zip(starts, rounds, strict=False):
                order = sorted((row for row in rows if row not in self.broken), key=self.merits)[: turn.left]
                if not order:
                    break
                state, rows, parts = _rows(state, [rows.index(row) for row in order]), order, []
                self.rounds.update({row: start for row in rows})
                for at in range(0, len(rows), chunk):
                    some, part = rows[at : at + chunk], _rows(state, slice(at, at + chunk))
                    for step in range(start, turn.steps):
                        if rng is not None:
                            rng.manual_seed(entropy(self.composing.seed, step))
                        part = self.advance(some, part)
                        if (step + 1) % self.composing.check == 0 or step + 1 == turn.steps:
                            self.look(some, part)
                        done += len(some)
                        progress(Report(done, total, len(rows), self.ranked()[0]))
                    parts.append(part)
                state = _each(lambda *each: torch.cat(each), *parts)
        except KeyboardInterrupt:
            interrupted = True
        return Composed(self.ranked(), interrupted, [self.placements[row] for row in sorted(self.broken)])

    def begin(self) -> _State:
        """Gives each placement its bases."""
        bases = []
        for part, side in zip(self.parts, self.sides, strict=True):
            members = side.tokens(part.basis).expand(len(self.placements), -1, -1, -1).contiguous()
            bases.append(start_basis(members, self.composing.weights))
        return _State(*bases, Moments.zeros_like(_flat([*bases[0], *bases[1]])))

    def fuse(self, rows: Sequence[int], bases: Sequence[Basis]) -> Fused:
        """Draws rows' compositions."""
        front, back = (side.latents(basis) for side, basis in zip(self.sides, bases, strict=True))
        return fuse(
            self.sides[0].generator, self.sides[1].generator, front, back, [self.placements[row] for row in rows]
        )

    def advance(self, rows: Sequence[int], state: _State) -> _State:
        """Makes a step in every row; one whose losses or gradients are not numbers stays where it is."""
        numbers = [part.detach().requires_grad_() for basis in state[:2] for part in basis]
        with torch.enable_grad():
            fused = self.fuse(rows, (Basis(*numbers[:2]), Basis(*numbers[2:])))
            losses = self.objective(fused.images), self.distance(fused.images, fused.backgrounds)
            # The rows share nothing, so that the gradient of their sum is each row's own.
            primary, secondary = (_flat(torch.autograd.grad(loss.sum(), numbers, retain_graph=True)) for loss in losses)
        how = self.composing
        step = descend(state.moments, primary, secondary, self.way.direction, how.weight, how.lr)
        finite = torch.cat([primary, secondary, step.change], dim=1).isfinite().all(dim=1)
        for loss in losses:
            finite &= loss.detach().isfinite()
        self.broken |= {row for row, fine in zip(rows, finite.tolist(), strict=True) if not fine}
        moments = _each(lambda new, old: torch.where(finite[:, None], new, old), step.moments, state.moments)
        moved = torch.where(finite[:, None], step.change, 0).split([part[0].numel() for part in numbers], dim=1)
        parts = [part.detach() + change.view(part.shape) for part, change in zip(numbers, moved, strict=True)]
        for row in rows:
            self.steps[row] += 1
        return _State(self.sides[0].project(Basis(*parts[:2])), self.sides[1].project(Basis(*parts[2:])), moments)

    @torch.no_grad()
    def look(self, rows: Sequence[int], state: _State) -> None:
        """Keeps compositions that are better than their rows' best.

        Of the loss that comes first, the best may lie by the tolerance over the least seen; among such compositions
        the other loss decides.
        """
        fused = self.fuse(rows, state[:2])
        primary, secondary = self.held_out(fused.images), self.distance(fused.images, fused.backgrounds)
        latents = [side.latents(basis) for side, basis in zip(self.sides, state[:2], strict=True)]
        for number, row in enumerate(rows):
            losses = float(primary[number]), float(secondary[number])
            if row in self.best and not np.isfinite(losses).all():
                continue
            new = Look(*losses, self.steps[row], *(each[number].clone() for each in latents))
            first, second = self.way.merits(*losses, self.composing.weight)
            least = self.least[row] = min(first, self.least.get(row, first))
            bound = least + self.composing.tolerance
            if row not in self.best or self.merits(row)[0] > bound or (first <= bound and second < self.merits(row)[1]):
                self.best[row] = new

    def merits(self, row: int) -> tuple[float, float]:
        """What a row's best is compared by."""
        best = self.best[row]
        return self.way.merits(best.primary, best.secondary, self.composing.weight)

    def ranked(self) -> list[Candidate]:
        """The candidates, those that got furthest first."""
        order = sorted(self.best, key=lambda row: (-self.rounds.get(row, 0), self.merits(row)))
        return [Candidate(self.placements[row], self.best[row], self.steps[row]) for row in order]


def _each(function: Callable[..., Tensor], *states: Any) -> Any:
    """Applies a function to the corresponding tensors of nested tuples."""
    if isinstance(states[0], Tensor):
        return function(*states)
    return type(states[0])(*(_each(function, *parts) for parts in zip(*states, strict=True)))


def _rows(state: Any, rows: slice | list[int]) -> Any:
    """Picks rows of all tensors."""
    return _each(lambda part: part[rows], state)


def _flat(parts: Sequence[Tensor]) -> Tensor:
    """Joins tensors [P, ...] to [P, F]."""
    return torch.cat([part.flatten(1) for part in parts], dim=1)
