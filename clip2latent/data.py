"""LatentPairs: the pairs that datagen wrote, decoded once, shuffled as a pure function of (seed, step)."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from pytorch_lightning import LightningDataModule
from torch import Tensor
from tqdm import tqdm

MANIFEST = "dataset.json"
_KEYS = {
    "generator",
    "embedder",
    "latent_shape",
    "groups",
    "embedding_dim",
    "count",
    "shards",
    "latent_mean",
    "latent_std",
}


class Pairs(NamedTuple):
    """Generator latents and the embeddings of their images, row by row.

    Attributes:
        latents: [B, K, D], the first row of each group, not standardised.
        embeddings: [B, E], unit norm.
    """

    latents: Tensor
    embeddings: Tensor


def read_dataset(path: str | Path) -> dict[str, Any]:
    """Reads and checks a dataset's description.

    Args:
        path: the folder that `python -m datagen` wrote.

    Returns:
        dataset.json's content.

    Raises:
        ValueError: where there is no dataset, an unfinished one, or one of another format.
    """
    folder = Path(path)
    manifest = folder / MANIFEST
    if not manifest.is_file():
        started = folder.is_dir() and any(folder.glob("*.tar*"))
        fix = (
            "run the same datagen command again, it goes on where it stopped"
            if started
            else "make one: python -m datagen"
        )
        raise ValueError(f"no {'finished ' if started else ''}dataset in {folder} ({manifest} is missing): {fix}")
    try:
        dataset = json.loads(manifest.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{manifest} is not valid JSON: {error}") from error
    if not isinstance(dataset, dict) or dataset.get("format") != 1:
        found = dataset.get("format") if isinstance(dataset, dict) else None
        raise ValueError(f"{manifest} has format {found!r}, this version reads format 1")
    missing = _KEYS - set(dataset)
    if missing:
        raise ValueError(f"{manifest} lacks {', '.join(sorted(missing))}")
    counts = sum(shard["count"] for shard in dataset["shards"])
    if counts != dataset["count"]:
        raise ValueError(f"{manifest} says count {dataset['count']}, but its shards hold {counts} pairs together")
    return dataset


def read_shard(path: str | Path, sha256: str = "") -> Pairs:
    """Decodes one shard: tar members {key}.latent.npy [n, K, D] and {key}.embedding.npy [n, E].

    Nothing in a shard is ever unpickled or run.

    Args:
        path: the shard.
        sha256: the file's recorded hash; "" leaves it unchecked.

    Raises:
        ValueError: for a damaged, truncated or foreign shard, named with its path.
    """
    try:
        content = Path(path).read_bytes()
    except FileNotFoundError:
        raise ValueError(f"shard {path} is missing") from None
    if sha256 and hashlib.sha256(content).hexdigest() != sha256:
        raise ValueError(
            f"shard {path} is damaged: it holds {len(content)} bytes whose hash is not the one in {MANIFEST};"
            " delete it and run the same datagen command again"
        )
    arrays: dict[str, list[np.ndarray]] = {"latent": [], "embedding": []}
    try:
        with tarfile.open(fileobj=io.BytesIO(content), mode="r:") as tar:
            for member in tar:
                field = member.name.split(".", 1)[-1].removesuffix(".npy")
                stream = tar.extractfile(member)
                if field not in arrays or stream is None:
                    raise ValueError(f"unexpected member {member.name!r}")
                arrays[field].append(np.load(io.BytesIO(stream.read()), allow_pickle=False))
        latents, embeddings = (np.concatenate(parts).astype(np.float32, copy=False) for parts in arrays.values())
        if latents.ndim != 3 or embeddings.ndim != 2 or len(latents) != len(embeddings):
            raise ValueError(f"latents {latents.shape} and embeddings {embeddings.shape} are not [n, K, D] and [n, E]")
        if not (np.isfinite(latents).all() and np.isfinite(embeddings).all()):
            raise ValueError("NaN or infinite values")
    except (tarfile.TarError, ValueError, EOFError, OSError) as error:
        raise ValueError(f"shard {path} cannot be read: {error}") from error
    return Pairs(torch.from_numpy(latents), torch.from_numpy(embeddings))


def read_pairs(path: str | Path, dataset: dict[str, Any]) -> Pairs:
    """Decodes all shards of a dataset into memory.

    Args:
        path: the dataset's folder.
        dataset: its description, from `read_dataset`.

    Raises:
        ValueError: for a shard that is not what the description says, named with its path.
    """
    count, num_tokens, width = dataset["count"], len(dataset["groups"]), dataset["latent_shape"][1]
    pairs = Pairs(torch.empty(count, num_tokens, width), torch.empty(count, dataset["embedding_dim"]))
    start = 0
    for record in tqdm(dataset["shards"], desc="reading shards", unit="shard", leave=False, delay=1):
        shard_path = Path(path, record["name"])
        shard = read_shard(shard_path, record.get("sha256", ""))
        stop = start + record["count"]
        expected = [tuple(whole[start:stop].shape) for whole in pairs]
        if [tuple(part.shape) for part in shard] != expected:
            found = [tuple(part.shape) for part in shard]
            raise ValueError(f"shard {shard_path} holds arrays {found}, {MANIFEST} promises {expected}")
        for whole, part in zip(pairs, shard, strict=True):
            whole[start:stop] = part
        start = stop
    return pairs


class PairBatches:
    """An endless order of batches cut into lengths that Lightning sees as epochs.

    Batch i is a pure function of (seed, i): rank r of W takes the r-th part of the i-th global batch. Each pass over
    the data has its own permutation; the rows that do not fill a global batch wait for another pass. So every rank has
    the same number of batches, the union over ranks depends on batch_size * W only, and training can go on anywhere.
    """

    def __init__(
        self,
        pairs: Pairs,
        batch_size: int,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        length: int | None = None,
        position: Callable[[], int] = lambda: 0,
    ) -> None:
        """Builds the order.

        Args:
            pairs: all pairs.
            batch_size: rows in a batch, on each rank.
            seed: of the permutations.
            rank: this process among `world_size`.
            world_size: number of processes.
            length: batches in one iteration; None is one pass over the data.
            position: called at the start of an iteration, the index of its first batch.
        """
        count = len(pairs.embeddings)
        self.pairs, self.batch_size, self.seed, self.rank = pairs, batch_size, seed, rank
        self.global_batch = batch_size * world_size
        self.per_pass = count // self.global_batch
        if not self.per_pass:
            raise ValueError(
                f"batch_size {batch_size} on {world_size} process(es) needs {self.global_batch} pairs, the dataset has"
                f" {count} to train on: lower data.batch_size or make more pairs"
            )
        self.length = length or self.per_pass
        self.position = position
        self._shuffled = (-1, torch.empty(0, dtype=torch.int64))

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[Pairs]:
        start = self.position()
        for index in range(start, start + self.length):
            yield self.batch(index)

    def batch(self, index: int) -> Pairs:
        """Returns this rank's part of the global batch `index`."""
        number, offset = divmod(index, self.per_pass)
        if self._shuffled[0] != number:
            entropy = np.random.SeedSequence([self.seed, number]).generate_state(1, np.uint64)[0]
            rng = torch.Generator().manual_seed(int(entropy >> np.uint64(1)))
            self._shuffled = (number, torch.randperm(len(self.pairs.embeddings), generator=rng))
        first = offset * self.global_batch + self.rank * self.batch_size
        rows = self._shuffled[1][first : first + self.batch_size]
        return Pairs(*(whole.index_select(0, rows) for whole in self.pairs))


class _InOrder:
    """Batches of all pairs in their own order; every rank has the same ones."""

    def __init__(self, pairs: Pairs, batch_size: int) -> None:
        self.parts = [Pairs(*parts) for parts in zip(*(whole.split(batch_size) for whole in pairs), strict=True)]

    def __len__(self) -> int:
        return len(self.parts)

    def __iter__(self) -> Iterator[Pairs]:
        return iter(self.parts)


class LatentPairs(LightningDataModule):
    """The pairs of a dataset for training, and the last few of them held out for validation."""

    def __init__(self, path: str, batch_size: int = 512, holdout: int = 1024, seed: int = 0) -> None:
        """Reads the description of a dataset; the pairs are read when training starts.

        Args:
            path: the folder that datagen wrote (dataset.json and shards).
            batch_size: pairs in a batch, on each process.
            holdout: pairs kept for val/loss, at most a tenth of all, one at least.
            seed: of the order of the pairs.
        """
        super().__init__()
        if batch_size < 1 or holdout < 1:
            raise ValueError(f"batch_size and holdout must be positive, got {batch_size} and {holdout}")
        self.path, self.batch_size, self.holdout, self.seed = path, batch_size, holdout, seed
        self.dataset = read_dataset(path)
        self._pairs: Pairs | None = None

    def setup(self, stage: str) -> None:
        """Decodes the shards, once."""
        if self._pairs is None:
            self._pairs = read_pairs(self.path, self.dataset)

    @property
    def num_train(self) -> int:
        """Pairs to train on."""
        return self.dataset["count"] - max(1, min(self.holdout, self.dataset["count"] // 10))

    def train_dataloader(self) -> PairBatches:
        """Returns shuffled batches that go on where the trainer stands.

        One Lightning epoch is all of max_steps, so that the progress bar counts to the end, or else one pass.
        """
        trainer = self.trainer
        in_epochs = trainer.max_epochs not in (None, -1) or trainer.max_steps < 0
        return PairBatches(
            Pairs(*(whole[: self.num_train] for whole in self._pairs)),
            self.batch_size,
            self.seed,
            trainer.global_rank,
            trainer.world_size,
            length=None if in_epochs else trainer.max_steps * trainer.accumulate_grad_batches,
            position=lambda: trainer.global_step * trainer.accumulate_grad_batches,
        )

    def val_dataloader(self) -> _InOrder:
        """Returns the held-out pairs in order."""
        return _InOrder(Pairs(*(whole[self.num_train :] for whole in self._pairs)), self.batch_size)
