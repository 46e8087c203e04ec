"""Banks: latents of a generator with their images' embeddings, made once, kept on disk and searched by any prompt.

FuseDream's search draws its candidates without looking at the prompt (arXiv:2112.01573, section 3.2), so they are drawn
and embedded once; the search of a prompt is then a product of the bank's embeddings with the prompt's.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from clip2latent.bank_files import read_block, write_block, write_record
from clip2latent.chunking import in_chunks
from clip2latent.downloads import cache_folder
from clip2latent.interfaces import Embedder, Generator, Objective
from clip2latent.spec import identity_of, weights_sha256

BLOCK = 256


class Block(NamedTuple):
    """Rows of a bank, on the CPU: latents [b, L, D] and the embeddings [b, E] of their images, unit norm."""

    latents: Tensor
    embeddings: Tensor


class Picked(NamedTuple):
    """What a search kept for each of P prompts, best first, on the CPU.

    Attributes:
        latents: [P, M, L, D].
        scores: [P, M], what they were picked by, descending.
        candidates: [P, M], the number of each among its prompt's candidates.
    """

    latents: Tensor
    scores: Tensor
    candidates: Tensor


class Interrupted(KeyboardInterrupt):
    """A user's interruption of a search, with the best until then; fewer than asked for where there were fewer."""

    def __init__(self, found: Picked) -> None:
        super().__init__()
        self.found = found


def bank_folder() -> Path:
    """Returns the folder that banks are kept in unless another is named."""
    return cache_folder() / "banks"


class Banks:
    """All banks of one generator and one embedder.

    Attributes:
        folder: where these models' banks are kept; None where nothing is kept, and each use draws again.
    """

    def __init__(
        self,
        generator: Generator,
        embedder: Embedder,
        folder: Path | None = None,
        device: torch.device | str = "cpu",
        chunk: int = 64,
    ) -> None:
        """Takes the models.

        Args:
            generator: on `device`.
            embedder: on `device`.
            folder: for banks of any models, such as `bank_folder()`; None keeps none.
            device: where the models are.
            chunk: images drawn at once.

        Raises:
            ValueError: for a chunk under 1, and for models to be kept apart on disk that nothing tells apart.
        """
        if chunk < 1:
            raise ValueError(f"chunk={chunk}: expected at least 1")
        self.generator, self.embedder, self.device, self.chunk = generator, embedder, device, chunk
        self.folder = None
        if folder is not None:
            self._record = {"generator": _told_apart(generator), "embedder": _told_apart(embedder)}
            self.folder = Path(folder) / _digest(self._record)

    def of(self, seed: int = 0, classes: Sequence[int] | None = None, block: int = BLOCK) -> Bank:
        """Returns the bank of a seed, unmade.

        Args:
            seed: any integer from 0.
            classes: indices of a ClassConditional generator's classes, drawn uniformly; None for the generator's own
                distribution.
            block: rows made, written and read at once.
        """
        return Bank(self, seed, None if classes is None else tuple(map(int, classes)), block)

    @torch.no_grad()
    def draw(self, latents: Tensor) -> Tensor:
        """Maps latents [B, L, D] to images [B, 3, R, R] in [-1, 1] on the CPU: clamped, as files hold them."""
        parts = in_chunks(len(latents), self.chunk, lambda start, stop: self._images(latents[start:stop]).cpu())
        return torch.cat(list(parts))

    @torch.no_grad()
    def embed(self, latents: Tensor) -> Tensor:
        """Maps latents [B, L, D] to the embeddings [B, E] of their images, on the CPU."""

        def embedded(start: int, stop: int) -> Tensor:
            return self.embedder.embed_images(self._images(latents[start:stop])).float().cpu()

        return torch.cat(list(in_chunks(len(latents), self.chunk, embedded)))

    @torch.no_grad()
    def losses(self, latents: Tensor, objective: Objective) -> Tensor:
        """Maps latents [B, L, D] to an objective's losses [B] of their images, on the CPU."""

        def lost(start: int, stop: int) -> Tensor:
            return objective(self._images(latents[start:stop])).float().cpu()

        return torch.cat(list(in_chunks(len(latents), self.chunk, lost)))

    def _keep(self, path: Path, block: Block) -> None:
        """Writes a block below `folder`, and beside it once, for people, what the models are."""
        write_record(path.parents[1] / "models.json", self._record)
        write_block(path, block.latents, block.embeddings)

    def _images(self, latents: Tensor) -> Tensor:
        return self.generator.synthesize(latents.to(self.device)).clamp(-1, 1)


@dataclass(frozen=True)
class Bank:
    """Latents drawn from a seed; block i depends on the seed, the classes and i alone, so that a bank can grow.

    Attributes:
        banks: the models, and where blocks are kept.
        seed: any integer from 0.
        classes: drawn uniformly; None for the generator's own distribution.
        block: rows made, written and read at once.
    """

    banks: Banks
    seed: int = 0
    classes: tuple[int, ...] | None = None
    block: int = BLOCK

    def __post_init__(self) -> None:
        if self.seed < 0:
            raise ValueError(f"seed={self.seed}: expected an integer from 0")
        if self.block < 1:
            raise ValueError(f"block={self.block}: expected at least 1 row")
        names = getattr(self.banks.generator, "class_names", None)
        if self.classes is not None and names is None:
            raise ValueError(f"classes={self.classes}: this generator draws no classes, give None")
        if self.classes is not None and not (self.classes and 0 <= min(self.classes) <= max(self.classes) < len(names)):
            raise ValueError(f"classes={self.classes}: expected indices from 0 to {len(names) - 1}")

    def latents(self, index: int) -> Tensor:
        """Draws the latents [block, L, D] of block `index`; no image is made."""
        marks = [] if self.classes is None else [1, *self.classes]
        entropy = np.random.SeedSequence([self.seed, index, *marks]).generate_state(1, np.uint64)[0]
        rng = torch.Generator().manual_seed(int(entropy >> np.uint64(1)))
        if self.classes is None:
            return self.banks.generator.sample_latents(self.block, rng).float().cpu()
        chosen = torch.tensor(self.classes)[torch.randint(len(self.classes), (self.block,), generator=rng)]
        return self.banks.generator.sample_latents(self.block, rng, chosen).float().cpu()

    def read(self, index: int, rows: int | None = None) -> Block:
        """Returns the first `rows` rows of block `index`: from disk, or else made and kept.

        What is kept is made whole; a damaged file is made again.
        """
        rows = self.block if rows is None else rows
        if self.banks.folder is None:
            latents = self.latents(index)[:rows]
            return Block(latents, self.banks.embed(latents))
        path = self.banks.folder / self._name() / f"{index:08d}.safetensors"
        kept = read_block(path, (self.block, *self.banks.generator.latent_shape), self.banks.embedder.dim)
        if kept is not None:
            return Block(*(part[:rows] for part in kept))
        latents = self.latents(index)
        made = Block(latents, self.banks.embed(latents))
        self.banks._keep(path, made)
        return Block(*(part[:rows] for part in made))

    def blocks(self, num: int, progress: Callable[[int], Any] = lambda done: None) -> Iterator[Block]:
        """Yields the bank's first `num` rows, a block at a time.

        Args:
            num: rows.
            progress: called with the number of rows done since the last call.
        """
        for index, start in enumerate(range(0, num, self.block)):
            block = self.read(index, min(self.block, num - start))
            progress(len(block.latents))
            yield block

    def pick(
        self,
        targets: Tensor,
        num: int,
        keep: int,
        progress: Callable[[int], Any] = lambda done: None,
        leading: Callable[[Tensor], Any] = lambda scores: None,
    ) -> Picked:
        """Returns of the first `num` rows the `keep` whose images are nearest to each of P targets.

        Memory is that of one block, its scores and what is kept. Of equal scores the earlier row stays; a score that is
        not a number is -1, the least cosine.

        Args:
            targets: [P, E], of any norm.
            num: rows.
            keep: latents for each target, at most `num`.
            progress: as for `blocks`.
            leading: told after each block the best scores [P] so far.

        Raises:
            Interrupted: for a KeyboardInterrupt after the first block, with the best of the blocks so far.
        """
        if not 1 <= keep <= num:
            raise ValueError(f"keep={keep}: expected 1 to {num}, the candidates there are")
        best: Picked | None = None
        start = 0
        try:
            for latents, embeddings in self.blocks(num, progress):
                scores = cosines(targets, embeddings)  # [P, b]
                rows = torch.arange(start, start + len(latents)).expand_as(scores)
                start += len(latents)
                order = scores.sort(dim=1, descending=True, stable=True).indices[:, :keep]
                found = Picked(latents[order], scores.gather(1, order), rows.gather(1, order))
                best = found if best is None else _merged(best, found, keep)
                leading(best.scores[:, 0])
        except KeyboardInterrupt as interrupt:
            if best is None:
                raise
            raise Interrupted(best) from interrupt
        return best

    def _name(self) -> str:
        which = "all" if self.classes is None else f"classes-{'-'.join(map(str, self.classes))}"
        which = which if len(which) < 40 else f"classes-{_digest(self.classes)}"
        return f"seed-{self.seed}-{which}-{self.block}"


def cosines(targets: Tensor, embeddings: Tensor) -> Tensor:
    """Returns the cosines [P, b] of targets [P, E] and embeddings [b, E], on the CPU; -1 for what is not a number."""
    product = F.normalize(targets.float().cpu(), dim=-1) @ F.normalize(embeddings, dim=-1).mT
    return product.nan_to_num(nan=-1.0)


def _merged(best: Picked, found: Picked, keep: int) -> Picked:
    latents, scores, candidates = (torch.cat(pair, dim=1) for pair in zip(best, found, strict=True))
    order = scores.sort(dim=1, descending=True, stable=True).indices[:, :keep]
    rows = torch.arange(len(order))[:, None]
    return Picked(latents[rows, order], scores[rows, order], candidates[rows, order])


def _told_apart(model: object) -> dict[str, Any]:
    """Returns what tells a model from every other: class, arguments, identity and weights, as plain types."""
    identity, arguments = identity_of(model), getattr(model, "init_args", {})
    if not isinstance(model, nn.Module) and not identity:
        raise ValueError(
            f"a bank of {type(model).__name__} cannot be kept: it is no nn.Module and has no `identity` (see"
            " spec.identity_of), so that nothing tells it from another; give folder=None"
        )
    sha256 = weights_sha256(model) if isinstance(model, nn.Module) else ""
    name = f"{type(model).__module__}.{type(model).__qualname__}"
    return {"class": name, "init_args": arguments, "identity": identity, "sha256": sha256}


def _digest(record: object) -> str:
    return hashlib.sha256(json.dumps(record, sort_keys=True, default=str).encode()).hexdigest()[:16]
