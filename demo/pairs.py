"""Images with captions for contrastive training, among them groups that differ in one attribute only."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from torch.utils.data import IterableDataset, get_worker_info

from demo.data import Batch, World, collate, visible
from demo.pen import Example

GROUP = 4
"""Pairs of a group."""
_ATTEMPTS = 24


@dataclass(frozen=True)
class Source:
    """A world's part in every batch.

    Attributes:
        world: draws and describes.
        rows: pairs in a batch.
        groups: how many times `GROUP` of them differ in one attribute only, which their captions name.
        varied: attribute -> weight with which it is the one that differs.
    """

    world: World
    rows: int
    groups: int
    varied: Mapping[str, float]


class Pairs(IterableDataset):
    """An endless stream of batches, each a list with one part for each source; a batch is a function of seed and step.

    Images come from a pool that is drawn as it is needed and kept, since drawing costs as much as training on the
    result; captions are written anew each time.
    """

    def __init__(self, sources: list[Source], seed: int, pool: int, start: int = 0) -> None:
        """Begins at batch number `start`.

        Args:
            sources: the worlds and their shares.
            seed: of everything.
            pool: number of different images of each world; groups have an eighth of it beside.
            start: number of the first batch.
        """
        self.sources, self.seed, self.pool, self.start = sources, seed, pool, start

    def __iter__(self) -> Iterator[list[Batch]]:
        worker = get_worker_info()
        step, stride = (self.start, 1) if worker is None else (self.start + worker.id, worker.num_workers)
        kept: list[dict[int, list[Example]]] = [{} for _ in self.sources]
        while True:
            rng = np.random.default_rng((self.seed, step))
            yield [self._batch(source, known, rng) for source, known in zip(self.sources, kept, strict=True)]
            step += stride

    def _batch(self, source: Source, kept: dict[int, list[Example]], rng: np.random.Generator) -> Batch:
        world, examples = source.world, []
        singles = source.rows - GROUP * source.groups
        for index in rng.integers(self.pool, size=singles).tolist():
            if index not in kept:
                kept[index] = [world.example(self.seed, index)]
            example = kept[index][0]
            examples.append(example._replace(caption=world.caption(example.attributes, rng)))
        for number in rng.integers(max(self.pool // (2 * GROUP), 1), size=source.groups).tolist():
            key = -1 - number
            if key not in kept:
                kept[key] = draw_group(source, self.seed, number)
            examples += describe(world, kept[key], rng)
        return collate(examples)


def draw_group(source: Source, seed: int, number: int) -> list[Example]:
    """Draws a group of `GROUP` examples, without captions, that differ in one visible attribute only (and in pose)."""
    world, rng = source.world, np.random.default_rng((seed, number, GROUP))
    weights = np.array(list(source.varied.values()), dtype=float)
    name = str(rng.choice(list(source.varied), p=weights / weights.sum()))
    base = world.sample_attributes(rng)
    for _ in range(_ATTEMPTS):
        if name in visible(world, base):
            break
        base = world.sample_attributes(rng)
    values = world.ATTRIBUTES[name]
    rows = [base | {name: str(value)} for value in rng.choice(values, size=GROUP, replace=len(values) < GROUP)]
    return [Example(world.draw(attributes, rng), attributes, "") for attributes in rows]


def describe(world: World, group: list[Example], rng: np.random.Generator) -> list[Example]:
    """Writes a group's captions, in the same words but for what differs, and if possible naming what differs."""
    differing = {name for name, value in group[0].attributes.items() if any(e.attributes[name] != value for e in group)}
    captions: list[str] = []
    for _ in range(_ATTEMPTS):
        seed = int(rng.integers(2**32))
        captions = []
        for example in group:
            captions.append(world.caption(example.attributes, np.random.default_rng(seed)))
            if not differing <= set(world.parse(captions[-1])):
                break
        else:
            break
    captions += [world.caption(example.attributes, rng) for example in group[len(captions) :]]
    return [example._replace(caption=caption) for example, caption in zip(group, captions, strict=True)]
