"""Composition: a foreground pasted onto a background, both optimised so that the whole shows what a text says.

Source: Liu et al. 2021 (FuseDream), section 3.3 and appendix B, whose authors did not publish their code for it. For
each size and place of the foreground, the fused image's AugCLIP score comes first and its perceptual distance to the
background second; the outer search over sizes and places keeps the better half of them round by round.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from clip2latent.barrier import WAYS, Moments, descend
from clip2latent.basis import Basis, groups_of, mixed, start_basis
from clip2latent.composition import Candidate, Composed, Composing, Fused, Look, Part, fuse
from clip2latent.composition_state import Looks, State, each_tensor, replaced
from clip2latent.halving import SEARCHES, Round, total_steps
from clip2latent.interfaces import Objective
from clip2latent.latents import expand, reduce
from clip2latent.paste import Placement, make_pasting
from clip2latent.perceptual import Distance
from clip2latent.refine import entropy


class Report(NamedTuple):
    """How far a search is: steps done and to do, over all candidates; how many are left; the best so far.

    Attributes:
        done: steps.
        total: steps.
        left: candidates in this round.
        best: the one that is ahead.
        state: what the next step depends on.
    """

    done: int
    total: int
    left: int
    best: Candidate
    state: State


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
    state: State | None = None,
) -> Composed:
    """Searches the size, the place and the latents of a composition.

    A candidate's way depends on its placement and the seed only, up to the rounding of numbers: not on the other
    candidates, nor on how many are optimised at once. A KeyboardInterrupt ends the search with the best so far, and a
    search that goes on from its state ends as one that was never stopped.

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
        state: where to go on from; everything else as it was.

    Raises:
        ValueError: for bases that do not fit their generators, malformed placements, a first loss that is not a
            number, and the state of another search.
    """
    composing = composing or Composing()
    for name, part in (("foreground", foreground), ("background", background)):
        wanted = tuple(part.generator.latent_shape)
        if part.basis.ndim != 3 or tuple(part.basis.shape[1:]) != wanted or not part.basis.numel():
            raise ValueError(f"{name}: expected a basis [M, {wanted[0]}, {wanted[1]}], got {list(part.basis.shape)}")
    make_pasting(placements, foreground.generator.resolution, background.generator.resolution)
    search = _Search(foreground, background, objective, held_out or objective, distance, list(placements), composing)
    rounds = SEARCHES[composing.search](len(placements), composing.steps)
    if state is not None and len(state.steps) != len(placements):
        raise ValueError(f"state: it is of {len(state.steps)} sizes and places, expected {len(placements)}")
    return search.run(rounds, progress or (lambda report: None), rng, state)


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

    def run(
        self,
        rounds: Sequence[Round],
        progress: Callable[[Report], Any],
        rng: torch.Generator | None,
        state: State | None,
    ) -> Composed:
        """Runs the rounds that are left and returns the candidates."""
        total, interrupted = total_steps(rounds), False
        state = self.begin() if state is None else state
        try:
            while True:
                turn = rounds[int(state.round)]
                for some in state.rows.split(self.composing.chunk):
                    # Rows of a chunk have done as many steps each; those of a chunk that is done, the round's.
                    for step in range(int(state.steps[some[0]]), turn.steps):
                        if rng is not None:
                            rng.manual_seed(entropy(self.composing.seed, step))
                        state = self.advance(some, state)
                        if (step + 1) % self.composing.check == 0 or step + 1 == turn.steps:
                            state = self.look(some, state)
                        best = self.candidate(state, self.order(state)[0])
                        progress(Report(int(state.steps.sum()), total, len(state.rows), best, state))
                sound = [row for row in state.rows.tolist() if not state.broken[row]]
                if int(state.round) + 1 == len(rounds) or not sound:
                    break
                kept = sorted(sound, key=self.merits(state).__getitem__)[: rounds[int(state.round) + 1].left]
                rows = torch.tensor(kept, device=state.rows.device)
                state = state._replace(round=state.round + 1, rows=rows, begun=replaced(state.begun, rows, turn.steps))
        except KeyboardInterrupt:
            interrupted = True
        broken = [self.placements[row] for row in state.broken.nonzero().flatten().tolist()]
        return Composed([self.candidate(state, row) for row in self.order(state)], interrupted, broken, state)

    def begin(self) -> State:
        """Gives each placement its bases, and looks at what they are."""
        number, bases = len(self.placements), []
        for part, side in zip(self.parts, self.sides, strict=True):
            members = side.tokens(part.basis).expand(number, -1, -1, -1).contiguous()
            bases.append(start_basis(members, self.composing.weights))
        numbers = _flat([*bases[0], *bases[1]])
        none = torch.zeros(number, dtype=torch.int64, device=numbers.device)
        endless = torch.full((number,), torch.inf, dtype=torch.float64, device=numbers.device)
        latents = [side.latents(basis) for side, basis in zip(self.sides, bases, strict=True)]
        looks = Looks(endless, endless, endless, none, *latents)
        rows = torch.arange(number, device=numbers.device)
        state = State(none.sum(), rows, none, none, none.bool(), *bases, Moments.zeros_like(numbers), looks)
        for some in rows.split(self.composing.chunk):
            state = self.look(some, state)
        if not (state.best.primary + state.best.secondary).isfinite().all():
            raise ValueError("the losses are not numbers before the first step: look at the generators' images")
        return state._replace(rows=torch.tensor(self.order(state), device=numbers.device))

    def fuse(self, rows: Tensor, bases: Sequence[Basis]) -> Fused:
        """Draws rows' compositions."""
        front, back = (side.latents(basis) for side, basis in zip(self.sides, bases, strict=True))
        places = [self.placements[row] for row in rows.tolist()]
        return fuse(self.sides[0].generator, self.sides[1].generator, front, back, places, self.composing.edges)

    def advance(self, rows: Tensor, state: State) -> State:
        """Makes a step in some rows; one whose losses or gradients are not numbers stays where it is."""
        own = each_tensor(lambda part: part[rows], (state.foreground, state.background, state.moments))
        numbers = [part.detach().requires_grad_() for basis in own[:2] for part in basis]
        with torch.enable_grad():
            fused = self.fuse(rows, (Basis(*numbers[:2]), Basis(*numbers[2:])))
            losses = self.objective(fused.images), self.distance(fused.images, fused.backgrounds)
            # The rows share nothing, so that the gradient of their sum is each row's own.
            primary, secondary = (_flat(torch.autograd.grad(loss.sum(), numbers, retain_graph=True)) for loss in losses)
        how = self.composing
        step = descend(own[2], primary, secondary, self.way.direction, how.weight, how.lr)
        finite = torch.cat([primary, secondary, step.change], dim=1).isfinite().all(dim=1)
        for loss in losses:
            finite &= loss.detach().isfinite()
        moments = each_tensor(lambda new, old: torch.where(finite[:, None], new, old), step.moments, own[2])
        moved = torch.where(finite[:, None], step.change, 0).split([part[0].numel() for part in numbers], dim=1)
        parts = [part.detach() + change.view(part.shape) for part, change in zip(numbers, moved, strict=True)]
        bases = [side.project(Basis(*pair)) for side, pair in zip(self.sides, (parts[:2], parts[2:]), strict=True)]
        whole = (state.foreground, state.background, state.moments)
        foreground, background, moments = (
            each_tensor(lambda old, new: replaced(old, rows, new), old, new)
            for old, new in zip(whole, (*bases, moments), strict=True)
        )
        return state._replace(
            steps=replaced(state.steps, rows, state.steps[rows] + 1),
            broken=replaced(state.broken, rows, state.broken[rows] | ~finite),
            foreground=foreground,
            background=background,
            moments=moments,
        )

    @torch.no_grad()
    def look(self, rows: Tensor, state: State) -> State:
        """Keeps compositions that are better than their rows' best.

        Of the loss that comes first, the best may lie by the tolerance over the least seen; among such compositions
        the other loss decides.
        """
        bases = each_tensor(lambda part: part[rows], (state.foreground, state.background))
        fused = self.fuse(rows, bases)
        losses = [
            each.double() for each in (self.held_out(fused.images), self.distance(fused.images, fused.backgrounds))
        ]
        first, second = self.way.merits(*losses, self.composing.weight)
        old = each_tensor(lambda part: part[rows], state.best)
        old_first, old_second = self.way.merits(old.primary, old.secondary, self.composing.weight)
        finite = losses[0].isfinite() & losses[1].isfinite()
        least = torch.where(finite, torch.minimum(old.least, first), old.least)
        bound = least + self.composing.tolerance
        ahead = (old_first > bound) | ((first <= bound) & (second < old_second))
        better = finite & (ahead | ~old.primary.isfinite())
        latents = [side.latents(basis) for side, basis in zip(self.sides, bases, strict=True)]
        new = Looks(*losses, least, state.steps[rows], *latents)

        def chosen(new: Tensor, old: Tensor) -> Tensor:
            return torch.where(better.view(-1, *[1] * (new.ndim - 1)), new, old)

        kept = each_tensor(chosen, new, old)._replace(least=least)
        return state._replace(best=each_tensor(lambda whole, part: replaced(whole, rows, part), state.best, kept))

    def merits(self, state: State) -> list[tuple[float, float]]:
        """What the rows' best are compared by."""
        losses = zip(state.best.primary.tolist(), state.best.secondary.tolist(), strict=True)
        return [self.way.merits(*pair, self.composing.weight) for pair in losses]

    def order(self, state: State) -> list[int]:
        """The rows, those that got furthest first, the better first among them."""
        merits, begun = self.merits(state), state.begun.tolist()
        return sorted(range(len(self.placements)), key=lambda row: (-begun[row], merits[row]))

    def candidate(self, state: State, row: int) -> Candidate:
        """A row's best, and what it had."""
        best = state.best
        losses = float(best.primary[row]), float(best.secondary[row])
        look = Look(*losses, int(best.step[row]), best.foreground[row], best.background[row])
        return Candidate(self.placements[row], look, int(state.steps[row]))


def _flat(parts: Sequence[Tensor]) -> Tensor:
    """Joins tensors [P, ...] to [P, F]."""
    return torch.cat([part.flatten(1) for part in parts], dim=1)
