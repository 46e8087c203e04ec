import json
import shutil
import tarfile

import numpy as np
import pytest
import torch
from tiny_pairs import write_tiny_dataset

from clip2latent.data import LatentPairs, PairBatches, Pairs, read_dataset, read_pairs, read_shard


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pairs") / "data"
    write_tiny_dataset(folder, count=500, groups=(2, 1), rows_per_shard=200)
    return folder


@pytest.fixture
def folder(original, tmp_path):
    return shutil.copytree(original, tmp_path / "data")


def numbered(count):
    return Pairs(torch.arange(count)[:, None, None].float(), torch.arange(count)[:, None].float())


def rows(batch):
    assert torch.equal(batch.latents.flatten(), batch.embeddings.flatten())
    return batch.embeddings.flatten().int().tolist()


def test_reads_all_pairs_in_order(folder):
    dataset = read_dataset(folder)
    pairs = read_pairs(folder, dataset)
    assert pairs.latents.shape == (500, 2, 4) and pairs.embeddings.shape == (500, 6)
    third = read_shard(folder / "shard-000002.tar")
    assert torch.equal(pairs.latents[400:], third.latents)
    torch.testing.assert_close(pairs.latents.double().mean(0), torch.tensor(dataset["latent_mean"]).double())


def test_a_pass_sees_every_row_once_in_a_new_order():
    batches = PairBatches(numbered(100), batch_size=10, seed=1)
    assert len(batches) == 10
    first, second = [
        [row for index in range(start, start + 10) for row in rows(batches.batch(index))] for start in (0, 10)
    ]
    assert sorted(first) == sorted(second) == list(range(100))
    assert first != second
    assert [row for batch in batches for row in rows(batch)] == first


@pytest.mark.parametrize("world_size", [2, 4])
def test_ranks_share_a_batch_of_one_process(world_size):
    whole = PairBatches(numbered(50), batch_size=8, seed=3)
    ranks = [PairBatches(numbered(50), 8 // world_size, 3, rank, world_size) for rank in range(world_size)]
    assert {len(rank) for rank in ranks} == {len(whole)} == {6}
    for index in range(20):
        assert [row for rank in ranks for row in rows(rank.batch(index))] == rows(whole.batch(index))


def test_order_depends_on_the_seed_and_goes_on_anywhere():
    def order(seed, start=0, length=25):
        batches = PairBatches(numbered(64), 8, seed, length=length, position=lambda: start)
        assert len(batches) == length
        return [rows(batch) for batch in batches]

    assert order(0) == order(0) != order(1)
    assert order(0)[11:] == order(0, start=11, length=14)


def test_too_few_pairs_are_refused():
    with pytest.raises(ValueError, match="needs 64 pairs, the dataset has 50"):
        PairBatches(numbered(50), batch_size=32, world_size=2)


def test_holdout_is_never_trained_on(folder):
    module = LatentPairs(str(folder), batch_size=10, holdout=30)
    module.setup("fit")
    assert module.num_train == 470
    assert LatentPairs(str(folder)).num_train == 450
    held_out = torch.cat([batch.latents for batch in module.val_dataloader()])
    assert torch.equal(held_out, read_pairs(folder, module.dataset).latents[470:])


def write_shard(path, **arrays):
    with tarfile.open(path, "w") as tar:
        for field, array in arrays.items():
            source = path.with_suffix(f".{field}.npy")
            np.save(source, array, allow_pickle=True)
            tar.add(source, f"shard-000000.{field}.npy")


def test_a_pickle_is_never_loaded(tmp_path):
    write_shard(tmp_path / "a.tar", latent=np.array([print], dtype=object), embedding=np.zeros((1, 2), np.float32))
    with pytest.raises(ValueError, match=r"a.tar cannot be read.*allow_pickle"):
        read_shard(tmp_path / "a.tar")


@pytest.mark.parametrize(
    ("latent", "embedding", "message"),
    [
        (np.zeros((3, 1, 2)), np.zeros((2, 4)), "are not"),
        (np.zeros((3, 2)), np.zeros((3, 4)), "are not"),
        (np.full((3, 1, 2), np.nan), np.zeros((3, 4)), "NaN"),
        (np.zeros((3, 1, 2)), np.full((3, 4), np.inf), "infinite"),
    ],
)
def test_foreign_or_broken_arrays_are_refused(tmp_path, latent, embedding, message):
    write_shard(tmp_path / "a.tar", latent=latent.astype(np.float32), embedding=embedding.astype(np.float32))
    with pytest.raises(ValueError, match=f"a.tar cannot be read.*{message}"):
        read_shard(tmp_path / "a.tar")


@pytest.mark.parametrize("length", [0, 100, 2000, -1])
def test_a_truncated_shard_is_named(folder, length):
    shard = folder / "shard-000001.tar"
    content = shard.read_bytes()
    shard.write_bytes(content[:length])
    with pytest.raises(ValueError, match=r"shard-000001.tar is damaged"):
        read_pairs(folder, read_dataset(folder))


def test_a_flipped_bit_is_noticed(folder):
    shard = folder / "shard-000000.tar"
    content = bytearray(shard.read_bytes())
    content[1500] ^= 1
    shard.write_bytes(content)
    with pytest.raises(ValueError, match=r"shard-000000.tar is damaged"):
        LatentPairs(str(folder)).setup("fit")


def test_truncation_is_noticed_without_a_hash(folder):
    shard = folder / "shard-000001.tar"
    shard.write_bytes(shard.read_bytes()[:3000])
    with pytest.raises(ValueError, match=r"shard-000001.tar cannot be read"):
        read_shard(shard)


def test_a_missing_shard_is_named(folder):
    (folder / "shard-000001.tar").unlink()
    with pytest.raises(ValueError, match=r"shard-000001.tar is missing"):
        read_pairs(folder, read_dataset(folder))


def test_a_shard_of_another_dataset_is_refused(folder):
    dataset = read_dataset(folder)
    dataset["groups"] = [3]
    with pytest.raises(ValueError, match=r"shard-000000.tar holds arrays .*\(200, 2, 4\).*promises.*\(200, 1, 4\)"):
        read_pairs(folder, dataset)


def test_wrong_descriptions_are_refused(folder, tmp_path):
    with pytest.raises(ValueError, match="make one: python -m datagen"):
        LatentPairs(str(tmp_path / "none"))
    manifest = folder / "dataset.json"
    dataset = json.loads(manifest.read_text())
    for change, message in (
        ({"format": 2}, "format 2"),
        ({"count": 501}, "says count 501, but its shards hold 500"),
    ):
        manifest.write_text(json.dumps({**dataset, **change}))
        with pytest.raises(ValueError, match=message):
            read_dataset(folder)
    manifest.write_text(json.dumps({name: value for name, value in dataset.items() if name != "groups"}))
    with pytest.raises(ValueError, match="lacks groups"):
        read_dataset(folder)
    manifest.write_text("{")
    with pytest.raises(ValueError, match="not valid JSON"):
        read_dataset(folder)
    manifest.unlink()
    with pytest.raises(ValueError, match="run the same datagen command again"):
        read_dataset(folder)


@pytest.mark.parametrize("storage", ["float32", "float16"])
def test_batches_are_gathered_from_one_table_or_from_two_alike(folder, storage):
    module = LatentPairs(str(folder), batch_size=16, storage=storage)
    module.setup("fit")
    pairs = module._pairs
    together, apart = PairBatches(pairs, 16), PairBatches(Pairs(*(whole.clone() for whole in pairs)), 16)
    assert together._table is not None and apart._table is None
    for index in (0, 3, 40):
        for one, other in zip(together.batch(index), apart.batch(index), strict=True):
            assert one.dtype == torch.float32 and one.shape == other.shape and torch.equal(one, other)
