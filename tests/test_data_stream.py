"""PairStream: the same order for any number of processes, from shards that are read as they are needed."""

import numpy as np
import pytest
import torch
from pytorch_lightning import LightningModule, Trainer
from tiny_pairs import write_description, write_members, write_original_shards, write_tiny_dataset

from clip2latent.data import LatentPairs, PairStream
from clip2latent.pair_sources import Shard


def numbered(folder, *counts):
    """Shards whose n-th row, over all of them, holds n."""
    shards, first = [], 0
    for index, count in enumerate(counts):
        rows = np.arange(first, first + count, dtype="f4")
        members = {"a.latent.npy": rows[:, None, None], "a.embedding.npy": rows[:, None]}
        write_members(folder / f"{index}.tar", members)
        shards.append(Shard(f"{index}.tar", str(folder / f"{index}.tar"), count))
        first += count
    return shards


def rows(batch):
    assert torch.equal(batch.latents.flatten(), batch.embeddings.flatten())
    return batch.embeddings.flatten().int().tolist()


@pytest.mark.parametrize("counts", [(103,), (40, 40, 23), (10,) * 11])
@pytest.mark.parametrize("world_size", [2, 4, 8])
def test_union_of_processes_is_the_batch_of_one(tmp_path, counts, world_size):
    """Also where there are fewer shards than processes, and where the last shard is cut by the holdout."""
    shards, total = numbered(tmp_path, *counts), sum(counts) - 3
    whole = PairStream(shards, total, 16, seed=3, length=14, pool=30)
    ranks = [
        PairStream(shards, total, 16 // world_size, 3, rank, world_size, length=14, pool=30)
        for rank in range(world_size)
    ]
    assert {rank.per_pass for rank in ranks} == {whole.per_pass} == {6}
    expected = [rows(batch) for batch in whole]
    assert len(expected) == 14 and max(map(max, expected)) < total
    assert [[row for part in parts for row in rows(part)] for parts in zip(*ranks, strict=True)] == expected


def test_a_pass_sees_a_row_at_most_once_and_in_another_order_than_the_next(tmp_path):
    shards = numbered(tmp_path, *[16] * 8)
    stream = PairStream(shards, 128, 16, seed=1, length=16, pool=40)
    batches = [rows(batch) for batch in stream]
    first, second = ([row for batch in batches[start : start + 8] for row in batch] for start in (0, 8))
    assert sorted(first) == sorted(second) == list(range(128))
    assert first != second and first != sorted(first)
    assert [rows(batch) for batch in stream] == batches
    assert rows(next(iter(PairStream(shards, 128, 16, seed=2)))) != batches[0]


@pytest.mark.parametrize("start", [1, 5, 8, 13])
def test_goes_on_anywhere(tmp_path, start):
    shards = numbered(tmp_path, 30, 30, 30, 20)
    whole = [rows(batch) for batch in PairStream(shards, 110, 12, length=20, pool=20)]
    rest = PairStream(shards, 110, 12, length=20 - start, pool=20, position=lambda: start)
    assert [rows(batch) for batch in rest] == whole[start:]


def test_processes_share_out_the_reading(tmp_path):
    shards = numbered(tmp_path, *[10] * 32)
    read = []
    for rank in range(4):
        stream = PairStream(shards, 320, 4, rank=rank, world_size=4)
        read.append({segment.shard for lane in stream.own for pool in stream.pools(0, lane) for segment in pool})
    assert sum(map(len, read)) == 32 and set.union(*read) == set(range(32))


@pytest.mark.parametrize("pool", [8, 1000])
def test_a_damaged_shard_is_refused_or_its_places_are_filled(tmp_path, pool):
    shards = numbered(tmp_path, *[40] * 4)
    (tmp_path / "2.tar").write_bytes(b"")
    with pytest.raises(ValueError, match=r"2.tar cannot be read"):
        list(PairStream(shards, 160, 16))
    streams = [PairStream(shards, 160, 8, 0, rank, 2, pool=pool, skip_damaged=True) for rank in (0, 1)]
    whole = PairStream(shards, 160, 16, pool=pool, skip_damaged=True)
    with pytest.warns(UserWarning, match="skipped 1 of 4 shards so far: shard 2.tar"):
        parts = [[rows(batch) for batch in stream] for stream in streams]
        assert [a + b for a, b in zip(*parts, strict=True)] == [rows(batch) for batch in whole]
    assert len(parts[0]) == len(parts[1]) == 10
    assert not {row for part in parts for batch in part for row in batch} & set(range(80, 120))


def test_too_few_pairs_are_refused(tmp_path):
    with pytest.raises(ValueError, match="needs 64 pairs, the dataset has 50"):
        PairStream(numbered(tmp_path, 50), 50, batch_size=32, world_size=2)


class Recorder(LightningModule):
    """Notes the batches it is given."""

    def __init__(self):
        super().__init__()
        self.weight, self.seen = torch.nn.Parameter(torch.zeros(())), []

    def training_step(self, batch, batch_idx):
        self.seen.append(batch.latents)
        return self.weight * batch.latents.sum()

    def validation_step(self, batch, batch_idx):
        assert batch.embeddings.dtype == torch.float32

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.0)


def fitted(module, tmp_path, **options):
    recorder = Recorder()
    quiet = {name: False for name in ("logger", "enable_progress_bar", "enable_model_summary", "enable_checkpointing")}
    trainer = Trainer(accelerator="cpu", devices=1, default_root_dir=tmp_path, **quiet, **options)
    trainer.fit(recorder, module)
    return recorder.seen


@pytest.mark.parametrize("ours", [True, False])
def test_lightning_trains_on_a_stream(tmp_path, ours):
    folder = tmp_path / "data"
    write_tiny_dataset(folder, 500) if ours else write_original_shards(folder, 500)
    options = {} if ours else {"description": write_description(tmp_path / "pairs.yaml")}
    memory = LatentPairs(str(folder), batch_size=32, holdout=20, **options)
    stream = LatentPairs(str(folder), batch_size=32, holdout=20, stream=True, **options)
    in_memory = fitted(memory, tmp_path, max_epochs=1)
    seen = fitted(stream, tmp_path, max_epochs=1)
    assert len(seen) == len(in_memory) == 15 and stream.num_train == memory.num_train == 480
    assert stream.dataset == memory.dataset
    for one, other in zip(stream.val_dataloader(), memory.val_dataloader(), strict=True):
        assert torch.equal(one.latents, other.latents) and torch.equal(one.embeddings, other.embeddings)
    union = [torch.cat(parts).flatten(1).sort(dim=0).values for parts in (seen, in_memory)]
    assert torch.equal(*union)
    assert len(fitted(stream, tmp_path, max_steps=40)) == 40


def test_what_does_not_fit_into_memory_streams(tmp_path, monkeypatch):
    write_tiny_dataset(tmp_path / "data", 500)
    module = LatentPairs(str(tmp_path / "data"), batch_size=32)
    for free, expected in ((2 * 500 * 40, False), (2 * 500 * 40 - 2, True)):
        monkeypatch.setattr("clip2latent.data.available_memory", lambda free=free: free)
        assert module._streams() is expected
    fitted(module, tmp_path, max_steps=2)
    assert isinstance(module.train_dataloader(), PairStream)
