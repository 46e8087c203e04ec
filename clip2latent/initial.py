"""Initial bases: the latents that a refinement starts from, the best M of many candidates for each prompt.

FuseDream takes the best k of M random ones (arXiv:2112.01573, section 3.2); candidates of label-guided classes and the
prior's own samples are ours. A source of bases is a function of prompts and targets, so that any can stand for another.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from clip2latent.bank import Banks, Interrupted, Picked
from clip2latent.interfaces import Objective
from clip2latent.label_search import (
    Stopped,
    check_classes,
    label_embeddings,
    lay_out,
    nearest_classes,
    pick_candidates,
    rows_of,
    score_candidates,
)

if TYPE_CHECKING:
    from clip2latent.text2image import TextToImage

Initial = Callable[[Sequence[str], Tensor], Picked]
"""P prompts and what their images should be near, targets [P, E] -> the M best latents of each prompt.

A search that the user interrupts raises `bank.Interrupted`, which holds the best so far.
"""

Bar = Callable[[str, int], AbstractContextManager[Any]]
"""(name, total) -> a context whose value has update(done) and set_postfix_str(text), such as tqdm's."""


@dataclass(frozen=True)
class Picking:
    """How many candidates, and how many of them are kept.

    Attributes:
        keep: M, latents kept for each prompt.
        candidates: for each prompt.
        seed: any integer from 0.
    """

    keep: int = 5
    candidates: int = 1000
    seed: int = 0

    def __post_init__(self) -> None:
        if not 1 <= self.keep <= self.candidates:
            raise ValueError(f"keep={self.keep}: expected 1 to candidates={self.candidates}")


def no_bar(name: str, total: int) -> AbstractContextManager[Any]:
    """Shows nothing."""
    return contextlib.nullcontext(SimpleNamespace(update=lambda done: None, set_postfix_str=lambda text: None))


def tell_best(progress: Any) -> Callable[[Tensor], None]:
    """Returns what shows the mean of the prompts' best scores [P] beside a bar; a prompt without any has -1."""

    def tell(scores: Tensor) -> None:
        known = scores[scores > -1]
        if len(known):
            progress.set_postfix_str(f"best {float(known.mean()):.3f}")

    return tell


def from_random(banks: Banks, picking: Picking, bar: Bar = no_bar) -> Initial:
    """Returns the source of the generator's own distribution: one bank for all prompts."""

    def initial(prompts: Sequence[str], targets: Tensor) -> Picked:
        with bar("searching", picking.candidates) as progress:
            numbers = (picking.candidates, picking.keep)
            return banks.of(picking.seed).pick(targets, *numbers, progress.update, tell_best(progress))

    return initial


def from_labels(banks: Banks, picking: Picking, k: int = 10, bar: Bar = no_bar) -> Initial:
    """Returns the source of the k classes whose names are nearest to the prompt.

    Args:
        banks: of a ClassConditional generator.
        picking: how many.
        k: 1 to the generator's number of classes.
        bar: makes progress bars.

    Raises:
        ValueError: for a generator without classes.
    """
    names = check_classes(banks.generator)

    def initial(prompts: Sequence[str], targets: Tensor) -> Picked:
        nearest = nearest_classes(targets, label_embeddings(names, banks.embedder), k)
        plan = lay_out(nearest, picking.candidates, picking.seed)
        with bar("searching", sum(rows_of([plan]).values())) as progress:
            try:
                (scores,) = score_candidates([plan], targets, banks, progress.update, tell_best(progress))
            except Stopped as stopped:
                (scores,), seen = stopped.tables, int((stopped.tables[0] > -1).sum(dim=1).min())
                if not seen:
                    raise
                raise Interrupted(pick_candidates(scores, plan, banks, min(seen, picking.keep))) from stopped
        return pick_candidates(scores, plan, banks, picking.keep)

    return initial


def from_prior(pipeline: TextToImage, picking: Picking, bar: Bar = no_bar, **drawing: Any) -> Initial:
    """Returns the source of the prior's samples.

    Args:
        pipeline: draws the prompts; what their images should be near is its own matter.
        picking: how many.
        bar: makes progress bars.
        **drawing: further arguments of `TextToImage.generate`, such as guidance and steps.
    """

    def initial(prompts: Sequence[str], targets: Tensor) -> Picked:
        with bar("drawing", len(prompts) * picking.candidates) as progress:
            numbers = {"num": picking.keep, "candidates": picking.candidates, "seed": picking.seed}
            samples = pipeline.generate(prompts, **numbers, progress=progress.update, **drawing)
        return Picked(samples.latents, samples.scores, samples.candidates)

    return initial


def rechecked(
    initial: Initial, objective_of: Callable[[Tensor], Objective], banks: Banks, keep: int, bar: Bar = no_bar
) -> Initial:
    """Returns a source that ranks another's latents anew, such as plain CLIP's best by AugCLIP, and keeps the best.

    Args:
        initial: gives `keep` latents for each prompt, or better some times as many.
        objective_of: a target [E] -> the objective of its images; 1 - loss is their score.
        banks: draws the images.
        keep: latents kept for each prompt.
        bar: makes progress bars.
    """

    def ranked(prompts: Sequence[str], targets: Tensor) -> Picked:
        found = initial(prompts, targets)
        if not 1 <= keep <= found.scores.shape[1]:
            raise ValueError(f"keep={keep}: expected 1 to {found.scores.shape[1]}, the latents to choose from")
        with bar("checking", found.scores.numel()) as progress:
            scores, leading = torch.full_like(found.scores, -1.0), tell_best(progress)
            for row, target in enumerate(targets):
                scores[row] = 1 - banks.losses(found.latents[row], objective_of(target))
                progress.update(scores.shape[1])
                leading(scores.nan_to_num(nan=-1.0).amax(dim=1))
        scores = scores.nan_to_num(nan=-torch.inf)
        order = scores.sort(dim=1, descending=True, stable=True).indices[:, :keep]
        rows = torch.arange(len(order))[:, None]
        return Picked(found.latents[rows, order], scores[rows, order], found.candidates[rows, order])

    return ranked
