"""A shard as a file, and exact statistics of rows that come in blocks."""

import tarfile

import numpy as np
import pytest

from datagen.shards import Pairs, PairShape, is_complete, read_shard, write_shard


def test_shard_round_trip_and_check(tmp_path):
    rng = np.random.default_rng(0)
    pairs = Pairs(rng.normal(size=(7, 2, 3)).astype("f4"), rng.normal(size=(7, 5)).astype("f4"))
    path, shape = tmp_path / "shard-000004.tar", PairShape(2, 3, 5)
    write_shard(path, pairs)
    assert all(np.array_equal(a, b) for a, b in zip(read_shard(path), pairs, strict=True))
    with tarfile.open(path) as tar:
        assert [(member.name, member.mtime, member.uid) for member in tar] == [
            ("shard-000004.latent.npy", 0, 0),
            ("shard-000004.embedding.npy", 0, 0),
        ]
    assert is_complete(path, 7, shape) and not is_complete(tmp_path / "shard-000005.tar", 7, shape)
    whole = path.read_bytes()
    for length in range(0, len(whole), 97):
        path.write_bytes(whole[:length])
        assert not is_complete(path, 7, shape)
    for other in (whole + b"\0", b"\0" + whole[1:], b"text"):
        path.write_bytes(other)
        with pytest.raises(ValueError, match="shard-000004"):
            is_complete(path, 7, shape)
    path.write_bytes(whole)
    with pytest.raises(ValueError, match="shard-000004"):
        is_complete(path, 8, shape)


def test_webdataset_reads_shards(tmp_path):
    webdataset = pytest.importorskip("webdataset")
    pairs = Pairs(np.ones((4, 1, 3), "f4"), np.zeros((4, 2), "f4"))
    write_shard(tmp_path / "shard-000000.tar", pairs)
    (sample,) = webdataset.WebDataset(str(tmp_path / "shard-000000.tar"), shardshuffle=False).decode()
    assert np.array_equal(sample["latent.npy"], pairs.latents)
    assert np.array_equal(sample["embedding.npy"], pairs.embeddings)
