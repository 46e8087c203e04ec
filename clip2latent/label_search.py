"""Label-guided search: candidates of the classes whose names are nearest to the prompt, and the best of them.

Du, Yin and Gu, "CLIP-guided Zero-Shot Text-to-Image Generation", algorithm 1 (CapFreddy/CSC2516-Course-Project). The
candidates of a class are the rows of that class's bank, so that prompts share what they have in common, and what was
drawn once is not drawn again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from clip2latent.bank import Bank, Banks, Picked, cosines
from clip2latent.interfaces import ClassConditional, Embedder, Generator

LABEL = "An image of {}"
POOL = 16
"""Rows of a class's bank made at once: a hundred candidates of ten classes take about ten of each."""


@dataclass(frozen=True)
class Candidates:
    """The candidates of P prompts, undrawn: number j of prompt p is row `rows[p, j]` of the bank of `classes[p, j]`.

    Attributes:
        classes: [P, num].
        rows: [P, num], how many earlier candidates of the prompt are of the same class.
        seed: of the classes' banks.
    """

    classes: Tensor
    rows: Tensor
    seed: int

    def latents(self, which: Tensor, banks: Banks) -> Tensor:
        """Returns the latents [P, M, L, D] of candidates `which` [P, M]; draws no images."""
        blocks: dict[tuple[int, int], Tensor] = {}

        def latent(index: int, row: int) -> Tensor:
            place = (index, row // POOL)
            if place not in blocks:
                blocks[place] = class_bank(banks, self.seed, index).latents(place[1])
            return blocks[place][row % POOL]

        classes, rows = (table.gather(1, which).flatten().tolist() for table in (self.classes, self.rows))
        return torch.stack([latent(*place) for place in zip(classes, rows, strict=True)]).unflatten(0, which.shape)


class Stopped(KeyboardInterrupt):
    """A user's interruption, with the scores [P, num] of each plan so far; -1 for what was not seen."""

    def __init__(self, tables: list[Tensor]) -> None:
        super().__init__()
        self.tables = tables


def label_embeddings(names: Sequence[str], embedder: Embedder, template: str = LABEL) -> Tensor:
    """Embeds class names as texts, [C, E], unit norm; underscores become spaces.

    Args:
        names: C names.
        embedder: embeds prompts too.
        template: has {} where the name goes.
    """
    with torch.no_grad():
        texts = embedder.embed_text([template.replace("{}", name.replace("_", " ")) for name in names])
    return F.normalize(texts.float().cpu(), dim=-1)


def nearest_classes(targets: Tensor, labels: Tensor, k: int) -> Tensor:
    """Returns the indices [P, k] of the classes whose labels are nearest to each target, nearest first.

    Args:
        targets: embeddings of P prompts [P, E], of any norm.
        labels: embeddings of the C classes' names [C, E].
        k: 1 to C.
    """
    if not 1 <= k <= len(labels):
        raise ValueError(f"k={k}: expected 1 to {len(labels)}, the generator's classes")
    return cosines(targets, labels).sort(dim=1, descending=True, stable=True).indices[:, :k]


def lay_out(nearest: Tensor, num: int, seed: int = 0) -> Candidates:
    """Lays out `num` candidates of each prompt, their classes drawn uniformly from the prompt's own.

    A candidate depends on its prompt's classes, the seed and its number alone, not on `num` or the other prompts.

    Args:
        nearest: the classes to draw of [P, k], as from `nearest_classes`.
        num: candidates of each prompt.
        seed: any integer from 0.
    """
    if num < 1:
        raise ValueError(f"num={num}: expected at least 1 candidate")
    k = nearest.shape[1]
    # numpy's generator draws the first of many as it draws few, which torch's does not promise
    drawn = np.stack([np.random.default_rng([seed, *own]).random(num) for own in nearest.tolist()])
    classes = nearest.gather(1, torch.from_numpy((drawn * k).astype(np.int64)))
    order = classes.argsort(dim=1, stable=True)
    grouped, places = classes.gather(1, order), torch.arange(num).expand_as(order)
    begins = torch.ones_like(grouped, dtype=torch.bool)
    begins[:, 1:] = grouped[:, 1:] != grouped[:, :-1]
    within = places - torch.where(begins, places, 0).cummax(dim=1).values
    return Candidates(classes, torch.empty_like(order).scatter(1, order, within), seed)


def class_bank(banks: Banks, seed: int, index: int) -> Bank:
    """Returns the bank of one class."""
    return banks.of(seed, (index,), POOL)


def rows_of(plans: Sequence[Candidates]) -> dict[int, int]:
    """Returns how many rows of each class's bank several plans of one seed need together, by class."""
    needed: dict[int, int] = {}
    for plan in plans:
        for index in plan.classes.unique().tolist():
            count = int(plan.rows[plan.classes == index].max()) + 1
            needed[index] = max(needed.get(index, 0), count)
    return dict(sorted(needed.items()))


def score_candidates(
    plans: Sequence[Candidates],
    targets: Tensor,
    banks: Banks,
    progress: Callable[[int], Any] = lambda done: None,
    leading: Callable[[Tensor], Any] = lambda scores: None,
) -> list[Tensor]:
    """Returns the scores [P, num] of the candidates of several plans, their images' cosines with the prompts.

    Each class is drawn once for all plans and prompts; memory is that of the scores and of one class's embeddings.

    Args:
        plans: of one seed and the same P prompts.
        targets: [P, E], of any norm.
        banks: the models.
        progress: called with the number of images done since the last call, of the sum of `rows_of(plans)`.
        leading: told after each class the best scores [P] so far, of all plans; -1 for a prompt without any.

    Raises:
        Stopped: for a KeyboardInterrupt, with the scores so far.
    """
    tables = [torch.full(plan.classes.shape, -1.0) for plan in plans]
    try:
        for index, embeddings in _pools(plans, banks, progress):
            scores = cosines(targets, embeddings)  # [P, n]
            for plan, table in zip(plans, tables, strict=True):
                prompts, columns = (plan.classes == index).nonzero(as_tuple=True)
                table[prompts, columns] = scores[prompts, plan.rows[prompts, columns]]
            leading(torch.stack([table.amax(dim=1) for table in tables]).amax(dim=0))
    except KeyboardInterrupt as interrupt:
        raise Stopped(tables) from interrupt
    return tables


def embed_candidates(plan: Candidates, num: int, banks: Banks) -> Tensor:
    """Returns the embeddings [P, num, E] of the first `num` candidates; from the banks, where these are kept."""
    first = Candidates(plan.classes[:, :num], plan.rows[:, :num], plan.seed)
    table = torch.empty(*first.classes.shape, banks.embedder.dim)
    for index, embeddings in _pools([first], banks, lambda done: None):
        own = first.classes == index
        table[own] = embeddings[first.rows[own]]
    return table


def pick_candidates(scores: Tensor, plan: Candidates, banks: Banks, keep: int) -> Picked:
    """Returns the `keep` best candidates of each prompt by scores [P, num]; of equal ones the earlier."""
    if not 1 <= keep <= scores.shape[1]:
        raise ValueError(f"keep={keep}: expected 1 to {scores.shape[1]}, the candidates there are")
    ordered = scores.sort(dim=1, descending=True, stable=True)
    which = ordered.indices[:, :keep]
    return Picked(plan.latents(which, banks), ordered.values[:, :keep], which)


def check_classes(generator: Generator) -> Sequence[str]:
    """Returns the class names of a generator; ValueError where it has none."""
    if not isinstance(generator, ClassConditional):
        raise ValueError(
            f"{type(generator).__name__} has no classes, so that no label can guide a search: search all of its latents"
        )
    return generator.class_names


def _pools(plans: Sequence[Candidates], banks: Banks, progress: Callable[[int], Any]) -> Iterator[tuple[int, Tensor]]:
    """Yields each class that is needed and the embeddings [n, E] of as many of its rows as are."""
    for index, count in rows_of(plans).items():
        blocks = class_bank(banks, plans[0].seed, index).blocks(count, progress)
        yield index, torch.cat([block.embeddings for block in blocks])
