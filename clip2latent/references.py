"""What a prior is measured against: random latents, retrieval among many of them, and real renders."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from clip2latent.images import from_uint8
from clip2latent.interfaces import Generator
from clip2latent.metrics import ANY, NONE
from clip2latent.prompts import Prompt
from clip2latent.search import TopK
from clip2latent.text2image import Chunk, TextToImage

BLOCK = 256
"""Random latents drawn from one seed: results must not depend on the chunk size."""


Seed = tuple[int, ...]
"""A seed and the numbers of the uses it is put to."""


class World(Protocol):
    """A procedural world whose pictures can be drawn from attributes, such as demo.avatars."""

    ATTRIBUTES: Mapping[str, Sequence[str]]

    def sample_attributes(self, rng: np.random.Generator) -> dict[str, str]:
        """Draws a value for every attribute."""
        ...

    def visible(self, attributes: dict[str, str]) -> dict[str, str]:
        """Returns those of the attributes that can be seen."""
        ...

    def draw(self, attributes: dict[str, str], rng: np.random.Generator) -> np.ndarray:
        """Draws uint8 [R, R, 3]."""
        ...


def random_latents(generator: Generator, num: int, seed: Seed) -> Iterator[Tensor]:
    """Yields `num` latents of the generator's own distribution, in blocks [b, L, D] that depend on their number."""
    for index, start in enumerate(range(0, num, BLOCK)):
        entropy = np.random.SeedSequence([*seed, index]).generate_state(1, np.uint64)[0]
        rng = torch.Generator().manual_seed(int(entropy >> np.uint64(1)))
        yield generator.sample_latents(BLOCK, rng)[: num - start]


@torch.no_grad()
def drawn(pipeline: TextToImage, blocks: Iterable[Tensor], per_prompt: int, chunk: int) -> Iterator[Chunk]:
    """Draws and embeds latents, which belong to the prompts in order, `per_prompt` to each.

    Args:
        pipeline: has the generator and the embedder.
        blocks: latents [b, L, D], blocks of any sizes.
        per_prompt: N.
        chunk: images drawn at once.
    """
    start = 0
    for block in blocks:
        for latents in block.split(chunk):
            images = pipeline.draw(latents)
            rows = torch.arange(start, start + len(latents))
            start += len(latents)
            embeddings = pipeline.embedder.embed_images(images).cpu()
            yield Chunk(rows // per_prompt, rows % per_prompt, latents.cpu(), images.cpu(), embeddings)


def best_of_each(chunks: Iterable[Chunk], text: Tensor, repeats: int, candidates: int) -> Tensor:
    """Returns latents [P, repeats, L, D]: of each group of a prompt's candidates the one nearest to its text.

    Args:
        chunks: P * repeats * candidates rows.
        text: the prompts' embeddings [P, E].
        repeats: groups for each prompt.
        candidates: rows in a group.
    """
    best = [[TopK(1) for _ in range(repeats)] for _ in text]
    for chunk in chunks:
        scores = F.cosine_similarity(chunk.embeddings, text[chunk.prompt], dim=-1)
        for row, (prompt, candidate) in enumerate(zip(chunk.prompt.tolist(), chunk.candidate.tolist(), strict=True)):
            best[prompt][candidate // candidates].update(scores[row : row + 1], chunk.latents[row : row + 1])
    return torch.stack([torch.cat([group.items[0] for group in groups]) for groups in best])


def retrieve(
    pipeline: TextToImage,
    text: Tensor,
    num: int,
    keep: int,
    seed: Seed,
    chunk: int,
    progress: Callable[[int], Any] = lambda done: None,
) -> Tensor:
    """Returns for each of P prompts the `keep` of `num` random latents whose images CLIP finds nearest.

    One bank serves all prompts and is drawn once; memory is that of one chunk and of the latents kept.

    Args:
        pipeline: has the generator and the embedder.
        text: the prompts' embeddings [P, E].
        num: latents in the bank.
        keep: latents for each prompt.
        seed: of the bank.
        chunk: images drawn at once.
        progress: called with the number of latents done since the last call.

    Returns:
        Latents [P, keep, L, D], best first.
    """
    if not 1 <= keep <= num:
        raise ValueError(f"keep={keep}: expected 1 to num={num}, the latents in the bank")
    best = [TopK(keep) for _ in text]
    text = F.normalize(text, dim=-1)  # a published prior's embeddings have norms of their own
    for part in drawn(pipeline, random_latents(pipeline.generator, num, seed), num, chunk):
        for prompt, scores in enumerate(text @ F.normalize(part.embeddings, dim=-1).mT):
            best[prompt].update(scores, part.latents)
        progress(len(part.latents))
    return torch.stack([kept.items[0] for kept in best])


@torch.no_grad()
def rendered(pipeline: TextToImage, world: World, prompts: Sequence[Prompt], num: int, seed: Seed) -> Iterator[Chunk]:
    """Draws for each prompt `num` real pictures of what it names, the rest at random, and embeds them.

    The chunks hold no latents. This is the ceiling: what a generator that follows prompts perfectly would score.
    """
    for row, prompt in enumerate(prompts):
        pictures = []
        for index in range(num):
            rng = np.random.default_rng((*seed, row, index))
            pictures.append(world.draw(fitting_attributes(world, prompt.attributes, rng), rng))
        images = from_uint8(np.stack(pictures))
        embeddings = pipeline.embedder.embed_images(images.to(pipeline.device)).cpu()
        yield Chunk(torch.full((num,), row), torch.arange(num), torch.empty(num, 0, 0), images, embeddings)


def fitting_attributes(world: World, named: Mapping[str, str], rng: np.random.Generator) -> dict[str, str]:
    """Draws a world's attributes so that the named ones hold and can be seen; "any" is anything but "none".

    Raises:
        ValueError: where that never happens.
    """
    fixed = {name: value for name, value in named.items() if value != ANY}
    for _ in range(1000):
        attributes = {**world.sample_attributes(rng), **fixed}
        shown = world.visible(attributes)
        if all(name in shown and (value != ANY or shown[name] != NONE) for name, value in named.items()):
            return attributes
    raise ValueError(f"no picture shows {dict(named)}: one of these attributes hides another")
