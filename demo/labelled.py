"""Renders with the labels of their attributes, for a generator that knows them."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch

from demo.data import UNKNOWN, labels, visible


def label_shares(world: str) -> list[list[float]]:
    """Returns how often the world draws each value of each attribute."""
    module = importlib.import_module(f"demo.{world}")
    return [list(module.SHARES.get(name, [1 / len(v)] * len(v))) for name, v in module.ATTRIBUTES.items()]


class Render(NamedTuple):
    """A render, uint8 [3, 64, 64], its attributes' labels [A], and the same with -1 for those that cannot be seen."""

    image: np.ndarray
    labels: np.ndarray
    shown: np.ndarray


class Renders(torch.utils.data.IterableDataset):
    """An endless stream of renders: the world's first `pool` over and over, from a given index on.

    They are kept once drawn, so that drawing costs nothing from the second round on; workers share the pool out.
    """

    def __init__(self, world: str, seed: int, first: int, pool: int):
        self.world, self.seed, self.first, self.pool = world, seed, first, pool

    def __iter__(self) -> Iterator[Render]:
        worker = torch.utils.data.get_worker_info()
        index, step = self.first + (worker.id if worker else 0), worker.num_workers if worker else 1
        drawn: dict[int, Render] = {}
        while True:
            place = index % self.pool
            if place not in drawn:
                drawn[place] = self._draw(place)
            yield drawn[place]
            index += step

    def _draw(self, index: int) -> Render:
        world = importlib.import_module(f"demo.{self.world}")
        example = world.example(self.seed, index)
        rows = [example.attributes, visible(world, example.attributes)]
        both = torch.stack(list(labels(world.ATTRIBUTES, rows).values()), dim=1)
        both[both == UNKNOWN] = -1
        return Render(np.ascontiguousarray(example.image.transpose(2, 0, 1)), *both.numpy())
