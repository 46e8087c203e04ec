"""LatentPairs: pairs of latents and embeddings for training, from memory or, where they do not fit, as a stream."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from pytorch_lightning import LightningDataModule

from clip2latent import pair_cache
from clip2latent.memory import available_memory
from clip2latent.pair_cache import Loaded, Wanted, load
from clip2latent.pair_dataset import describe_shards, find_dataset, listed_shards, read_dataset, read_description
from clip2latent.pair_order import InOrder, PairBatches
from clip2latent.pair_reading import Reader, read_shards
from clip2latent.pair_shards import Pairs, Table, read_shard
from clip2latent.pair_sources import Access, Shard
from clip2latent.pair_stream import PairStream

__all__ = ["LatentPairs", "PairBatches", "PairStream", "Pairs", "read_dataset", "read_pairs", "read_shard"]

WORTH_KEEPING = 1 << 28  # bytes of shards whose decoding takes seconds


def read_pairs(path: str | Path, dataset: dict[str, Any]) -> Pairs:
    """Decodes all shards of a dataset into memory, in float32.

    Args:
        path: the dataset's folder.
        dataset: its description, from `read_dataset`.

    Raises:
        ValueError: for a shard that is not what the description says, named with its path.
    """
    return _pairs(read_shards(listed_shards(dataset, str(path)), _shape(dataset)).table)


class LatentPairs(LightningDataModule):
    """The pairs of a dataset for training, and the last few of them held out for validation."""

    def __init__(
        self,
        path: str,
        batch_size: int = 512,
        holdout: int = 1024,
        seed: int = 0,
        description: str | None = None,
        storage: Literal["float32", "float16"] = "float32",
        place: Literal["auto", "ram", "device"] = "auto",
        stream: bool | None = None,
        pool: int = 1 << 18,
        damaged: Literal["refuse", "skip"] = "refuse",
        cache: str = "auto",
        allow_urls: bool = False,
        allow_pipes: bool = False,
    ) -> None:
        """Reads the description of a dataset; the pairs are read when training starts.

        Args:
            path: the folder that datagen wrote (dataset.json and shards), some of its shards, or shards without
                dataset.json: a folder, a file, or a pattern such as data/{00000..00099}.tar.
            batch_size: pairs in a batch, on each process.
            holdout: pairs kept for val/loss, at most a tenth of all, one at least.
            seed: of the order of the pairs.
            description: for shards without dataset.json, as the original clip2latent made them: a yaml file with the
                generator, embedder and groups they are of.
            storage: type of the pairs in memory; float16 takes half of it. Batches are float32.
            place: where the pairs are kept: on the training's device, in RAM, or the former if it has plenty of memory.
            stream: whether shards are read again in each pass instead of being kept; by itself where they would take
                more than half of the free memory.
            pool: pairs that a stream shuffles together, over all processes.
            damaged: whether a shard that cannot be used is an error or skipped with a warning.
            cache: folder for decoded pairs, which are used again while the shards stay the same; off for none; auto
                keeps those of large local data beside the shards.
            allow_urls: whether path may be an address (http, https, hf).
            allow_pipes: whether path may be "pipe:" and a command, which a shell runs.
        """
        super().__init__()
        if batch_size < 1 or holdout < 1 or pool < 1:
            raise ValueError(f"batch_size, holdout and pool must be positive, got {batch_size}, {holdout} and {pool}")
        self.path, self.batch_size, self.holdout, self.seed = path, batch_size, holdout, seed
        self.storage, self.place, self.stream, self.pool = storage, place, stream, pool
        self.skip_damaged, self.cache = damaged == "skip", cache
        self.skipped: list[str] = []
        self._description = read_description(description) if description else {}
        self._dataset, self._shards = find_dataset(path, bool(description), Access(allow_urls, allow_pipes))
        self._loaded: Loaded | None = None
        self._pairs: Pairs | None = None
        self._holdout: Pairs | None = None

    @property
    def dataset(self) -> dict[str, Any]:
        """The content of dataset.json; for shards without one they are gone through, once, for their statistics."""
        if self._dataset is None:
            loaded = self._load(keep=not self._streams())
            self._dataset = describe_shards(self._description, loaded.shards, loaded.statistics)
        return self._dataset

    @property
    def num_train(self) -> int:
        """Pairs to train on."""
        count = self.dataset["count"] if self._loaded is None else sum(s.count for s in self._loaded.shards)
        return count - max(1, min(self.holdout, count // 10))

    def setup(self, stage: str) -> None:
        """Decodes the shards, once; of a stream only the pairs held out."""
        if self._holdout is not None:
            return
        strategy = self.trainer.strategy if self.trainer else None
        streams = self._streams()
        streams = strategy.broadcast(streams) if strategy else streams
        _ = self.dataset  # goes through shards without dataset.json
        if streams:
            shards = self._loaded.shards if self._loaded else self._shards
            self._loaded = Loaded(None, shards, self.skipped, {})
            self._holdout = _last_rows(shards, self.num_train, self.skip_damaged)
            return
        if self._loaded is None or self._loaded.table is None:
            self._load(keep=True)
        device = strategy.root_device if strategy else torch.device("cpu")
        pairs = _pairs(self._loaded.table, device if self._goes_to(device, self._loaded.table) else None)
        self._loaded = self._loaded._replace(table=None)
        self._pairs = Pairs(*(whole[: self.num_train] for whole in pairs))
        self._holdout = Pairs(*(whole[self.num_train :] for whole in pairs))

    def train_dataloader(self) -> PairBatches | PairStream:
        """Returns shuffled batches that go on where the trainer stands.

        One Lightning epoch is all of max_steps, so that the progress bar counts to the end, or else one pass.
        """
        trainer = self.trainer
        in_epochs = trainer.max_epochs not in (None, -1) or trainer.max_steps < 0
        order = {
            "batch_size": self.batch_size,
            "seed": self.seed,
            "rank": trainer.global_rank,
            "world_size": trainer.world_size,
            "length": None if in_epochs else trainer.max_steps * trainer.accumulate_grad_batches,
            "position": lambda: trainer.global_step * trainer.accumulate_grad_batches,
        }
        counts = [shard.count for shard in self._loaded.shards]
        if trainer.world_size > 1 and trainer.strategy.broadcast(counts) != counts:
            raise ValueError(
                f"process {trainer.global_rank} could use {len(counts)} shards with {sum(counts)} pairs, process 0"
                " others: do all of them see the same files?"
            )
        if self._pairs is not None:
            return PairBatches(self._pairs, **order)
        shards = self._loaded.shards
        return PairStream(shards, self.num_train, **order, pool=self.pool, skip_damaged=self.skip_damaged)

    def val_dataloader(self) -> InOrder:
        """Returns the held-out pairs in order."""
        return InOrder(self._holdout, self.batch_size)

    def test_dataloader(self) -> InOrder:
        """Returns the held-out pairs in order: what a test has of its own is its prompts."""
        return self.val_dataloader()

    def _load(self, keep: bool) -> Loaded:
        known = self._dataset is not None
        shape = _shape(self._dataset) if known else None
        wanted = Wanted(shape, self.storage, self.skip_damaged, keep, statistics=not known, hashed=not known)
        self._loaded = load(self._shards, wanted, self._cache_folder())
        self.skipped = self._loaded.skipped
        return self._loaded

    def _cache_folder(self) -> Path | None:
        if self.cache == "off":
            return None
        if self.cache != "auto":
            return Path(self.cache)
        files = [Path(shard.location) for shard in self._shards if Path(shard.location).is_file()]
        if len(files) < len(self._shards) or sum(file.stat().st_size for file in files) < WORTH_KEEPING:
            return None
        return files[0].parent / pair_cache.FOLDER

    def _goes_to(self, device: torch.device, table: Table) -> bool:
        """Whether pairs are kept on a GPU: when told so, or where they take a quarter of its free memory at most."""
        if device.type != "cuda" or self.place == "ram":
            return False
        return self.place == "device" or table.values.nbytes <= torch.cuda.mem_get_info(device)[0] // 4

    def _streams(self) -> bool:
        if self.stream is not None:
            return self.stream
        if self._dataset is not None:
            tokens, width, dim = _shape(self._dataset)
            needed = self._dataset["count"] * (tokens * width + dim) * (2 if self.storage == "float16" else 4)
        else:
            files = [Path(shard.location) for shard in self._shards if Path(shard.location).is_file()]
            needed = sum(file.stat().st_size for file in files)
        processes = self.trainer.num_devices if self.trainer else 1
        return needed * processes > available_memory() // 2


def _shape(dataset: dict[str, Any]) -> tuple[int, int, int]:
    """K, D and E."""
    return len(dataset["groups"]), dataset["latent_shape"][1], dataset["embedding_dim"]


def _pairs(table: Table, device: torch.device | None = None) -> Pairs:
    """Views of one tensor, which a batch is gathered from at once."""
    values, columns = torch.from_numpy(table.values).to(device or "cpu"), table.tokens * table.width
    return Pairs(values[:, :columns].unflatten(1, (table.tokens, table.width)), values[:, columns:])


def _last_rows(shards: list[Shard], first: int, skip_damaged: bool) -> Pairs:
    """Reads the rows from `first` on; of shards that are skipped there are none."""
    reader, parts, end = Reader(skip_damaged), [], 0
    for shard in shards:
        begin, end = end, end + shard.count
        rows = reader.read(shard)[0] if end > first else None
        if rows is not None:
            parts.append([array[max(first - begin, 0) :] for array in rows])
    if not parts:
        raise ValueError(f"the last shard, {shards[-1].name}, cannot be used, and holds the pairs to validate with")
    return Pairs(*(torch.from_numpy(np.concatenate(field)) for field in zip(*parts, strict=True)))
