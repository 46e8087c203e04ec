"""Rendered examples as training batches: every batch is a pure function of the world, a seed and a step."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import IterableDataset, get_worker_info

from clip2latent.images import from_uint8
from demo.pen import Example

UNKNOWN = -100
"""The label of an attribute that is not visible or not named: the index that cross entropy ignores."""


class World(Protocol):
    """A module that draws: `demo.avatars`, `demo.objects`."""

    ATTRIBUTES: dict[str, tuple[str, ...]]
    WORDS: frozenset[str]

    def sample_attributes(self, rng: np.random.Generator) -> dict[str, str]:
        """Draws a value for every attribute."""
        ...

    def draw(self, attributes: dict[str, str], rng: np.random.Generator) -> np.ndarray:
        """Draws the attributes as uint8 [R, R, 3]."""
        ...

    def caption(self, attributes: dict[str, str], rng: np.random.Generator) -> str:
        """Names some of the attributes in words."""
        ...

    def parse(self, caption: str) -> dict[str, str]:
        """Returns the attributes a caption names."""
        ...

    def example(self, seed: int, index: int) -> Example:
        """Returns the example of a seed and an index."""
        ...


class Batch(NamedTuple):
    """B rendered examples.

    Attributes:
        images: [B, 3, R, R] in [-1, 1].
        attributes: what each was drawn from.
        captions: one of each.
    """

    images: Tensor
    attributes: list[dict[str, str]]
    captions: list[str]


def render(world: World, seed: int, indices: Sequence[int]) -> Batch:
    """Renders the examples of a seed with the given indices."""
    return collate([world.example(seed, index) for index in indices])


def collate(examples: Sequence[Example]) -> Batch:
    """Stacks examples into a batch."""
    images, attributes, captions = zip(*examples, strict=True)
    return Batch(from_uint8(np.stack(images)), list(attributes), list(captions))


class Renders(IterableDataset):
    """An endless stream of batches of fresh renders; batch number `step` holds indices step * B to (step + 1) * B.

    A DataLoader with batch_size=None yields the batches in this order, with any number of workers.
    """

    def __init__(self, world: World, seed: int, batch_size: int, start: int = 0) -> None:
        """Begins at batch number `start`, which is how a training resumes.

        Args:
            world: draws the examples.
            seed: of the examples; another seed gives other examples (a held-out set, say).
            batch_size: B.
            start: number of the first batch.
        """
        self.world, self.seed, self.batch_size, self.start = world, seed, batch_size, start

    def __iter__(self) -> Iterator[Batch]:
        worker = get_worker_info()
        step, stride = (self.start, 1) if worker is None else (self.start + worker.id, worker.num_workers)
        while True:
            yield render(self.world, self.seed, range(step * self.batch_size, (step + 1) * self.batch_size))
            step += stride


def visible(world: World, attributes: Mapping[str, str]) -> Mapping[str, str]:
    """Returns the attributes that can be seen; all of them where the world hides none."""
    return world.visible(attributes) if hasattr(world, "visible") else attributes


def labels(values: Mapping[str, Sequence[str]], rows: Sequence[Mapping[str, str]]) -> dict[str, Tensor]:
    """Numbers attributes for cross entropy.

    Args:
        values: attribute -> its possible values.
        rows: B descriptions, each naming some of the attributes.

    Returns:
        attribute -> [B] indices into its values, `UNKNOWN` where a row does not name it or names no single value.
    """
    numbers = {name: {value: index for index, value in enumerate(known)} for name, known in values.items()}
    return {
        name: torch.tensor([known.get(row.get(name, ""), UNKNOWN) for row in rows]) for name, known in numbers.items()
    }
