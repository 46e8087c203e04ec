"""Label-guided search: candidates of the classes whose names are nearest to the prompt, and the best of them.

Du, Yin and Gu, "CLIP-guided Zero-Shot Text-to-Image Generation", algorithm 1 (CapFreddy/CSC2516-Course-Project). The
candidates of a class are the rows of that class's bank, so that prompts share what they have in common, and what was
drawn once is not drawn again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

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
    """The candidates of P prompts, undrawn: number j of prompt p is row `numbers[j]` of class `classes[p, ranks[j]]`.

    Attributes:
        classes: [P, k], the classes nearest to each prompt, nearest first.
        ranks: [num], which of them each candidate is of: uniform, the same for every prompt.
        numbers: [num], how many earlier candidates are of the same rank.
        seed: of the ranks and of the classes' banks.
    """

    classes: Tensor
    ranks: Tensor
    numbers: Tensor
    seed: int

    def rows(self) -> dict[int, int]:
        """Returns how many rows of each class's bank are needed, by class."""
        counts = self.ranks.bincount(minlength=self.classes.shape[1]).tolist()
        needed: Counter[int] = Counter()
        for own in self.classes.tolist():
            for index, count in zip(own, counts, strict=True):
                needed[index] = max(needed[index], count)
        return {index: count for index, count in sorted(needed.items()) if count}


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


def lay_out(classes: Tensor, num: int, seed: int = 0) -> Candidates:
    """Lays out `num` candidates of each prompt, classes drawn uniformly from the prompt's own [P, k].

    A candidate depends on its prompt's classes, the seed and its number alone, not on `num` or the other prompts.
    """
    if num < 1:
        raise ValueError(f"num={num}: expected at least 1 candidate")
    k = classes.shape[1]
    # numpy's generator draws the first of many as it draws few, which torch's does not promise
    ranks = np.random.default_rng([seed, k]).random(num) * k
    ranks = torch.from_numpy(ranks.astype(np.int64))
    numbers = torch.empty_like(ranks)
    for own in _columns(ranks, k):
        numbers[own] = torch.arange(len(own))
    return Candidates(classes, ranks, numbers, seed)


def class_bank(banks: Banks, seed: int, index: int) -> Bank:
    """Returns the bank of one class."""
    return banks.of(seed, (index,), POOL)


def rows_of(plans: Sequence[Candidates]) -> dict[int, int]:
    """Returns how many rows of each class's bank several plans of one seed need together, by class."""
    needed: Counter[int] = Counter()
    for one in plans:
        needed |= Counter(one.rows())  # the larger of both
    return dict(sorted(needed.items()))


def score_candidates(
    plans: Sequence[Candidates], targets: Tensor, banks: Banks, progress: Callable[[int], Any] = lambda done: None
) -> list[Tensor]:
    """Returns the scores [P, num] of the candidates of several plans, their images' cosines with the prompts.

    Each class is drawn once for all plans and prompts; memory is that of the scores and of one class's embeddings.

    Args:
        plans: of one seed and the same P prompts.
        targets: [P, E], of any norm.
        banks: the models.
        progress: called with the number of images done since the last call, of the sum of `rows_of(plans)`.
    """
    tables = [torch.full((len(targets), len(plan.ranks)), -1.0) for plan in plans]
    for place in _places(plans, banks, progress):
        table = tables[place.plan]
        table[place.prompts[:, None], place.columns] = cosines(targets[place.prompts], place.embeddings)
    return tables


def candidate_embeddings(plan: Candidates, num: int, banks: Banks) -> Tensor:
    """Returns the embeddings [P, num, E] of the first `num` candidates; from the banks, where these are kept."""
    first = Candidates(plan.classes, plan.ranks[:num], plan.numbers[:num], plan.seed)
    table = torch.empty(len(plan.classes), len(first.ranks), banks.embedder.dim)
    for place in _places([first], banks, lambda done: None):
        table[place.prompts[:, None], place.columns] = place.embeddings
    return table


def pick_candidates(scores: Tensor, plan: Candidates, banks: Banks, keep: int) -> Picked:
    """Returns the `keep` best candidates of each prompt by scores [P, num]; of equal ones the earlier."""
    if not 1 <= keep <= scores.shape[1]:
        raise ValueError(f"keep={keep}: expected 1 to {scores.shape[1]}, the candidates there are")
    ordered = scores.sort(dim=1, descending=True, stable=True)
    candidates = ordered.indices[:, :keep]
    return Picked(candidate_latents(plan, candidates, banks), ordered.values[:, :keep], candidates)


def candidate_latents(plan: Candidates, candidates: Tensor, banks: Banks) -> Tensor:
    """Returns the latents [P, M, L, D] of candidates [P, M]; draws no images."""
    blocks: dict[tuple[int, int], Tensor] = {}

    def latent(index: int, number: int) -> Tensor:
        place = (index, number // POOL)
        if place not in blocks:
            blocks[place] = class_bank(banks, plan.seed, index).latents(place[1])
        return blocks[place][number % POOL]

    classes, numbers = candidate_classes(plan, candidates).tolist(), plan.numbers[candidates].tolist()
    return torch.stack(
        [
            torch.stack([latent(*place) for place in zip(*row, strict=True)])
            for row in zip(classes, numbers, strict=True)
        ]
    )


def candidate_classes(plan: Candidates, candidates: Tensor) -> Tensor:
    """Returns the classes [P, M] of candidates [P, M]."""
    return plan.classes.gather(1, plan.ranks[candidates])


def check_classes(generator: Generator) -> Sequence[str]:
    """Returns the class names of a generator; ValueError where it has none."""
    if not isinstance(generator, ClassConditional):
        raise ValueError(
            f"{type(generator).__name__} has no classes, so that no label can guide a search: search all of its latents"
        )
    return generator.class_names


class _Place(NamedTuple):
    """Where a class's embeddings [m, E] belong: candidates `columns` [m] of `prompts` [n] of a plan, by its number."""

    plan: int
    prompts: Tensor
    columns: Tensor
    embeddings: Tensor


def _places(plans: Sequence[Candidates], banks: Banks, progress: Callable[[int], Any]) -> Iterator[_Place]:
    """Goes through the classes that are needed, each read once, and all the places each fills."""
    columns = [_columns(plan.ranks, plan.classes.shape[1]) for plan in plans]
    for index, count in rows_of(plans).items():
        blocks = class_bank(banks, plans[0].seed, index).blocks(count, progress)
        embeddings = torch.cat([block.embeddings for block in blocks])
        for number, plan in enumerate(plans):
            prompts, ranks = (plan.classes == index).nonzero(as_tuple=True)
            for rank in ranks.unique().tolist():
                own = columns[number][rank]
                yield _Place(number, prompts[ranks == rank], own, embeddings[: len(own)])


def _columns(ranks: Tensor, k: int) -> tuple[Tensor, ...]:
    """Returns the candidates of each of k ranks, in order."""
    return ranks.argsort(stable=True).split(ranks.bincount(minlength=k).tolist())
