"""LatentPairs: where pairs may come from, what describes them, what is kept on disk, what is refused."""

import json
import os
import shutil
import time
import warnings

import numpy as np
import pytest
import torch
from loopback import empty_cache, running, send
from tiny_pairs import write_description, write_members, write_original_shards, write_tiny_dataset

from clip2latent import data, pair_cache
from clip2latent.data import LatentPairs
from clip2latent.moments import Moments
from clip2latent.pair_sources import expand_braces


@pytest.fixture
def original(tmp_path):
    """Three shards of the original layout, of 200, 200 and 100 rows, and all their rows."""
    folder = tmp_path / "original"
    return folder, write_original_shards(folder, 500)


@pytest.fixture
def description(tmp_path):
    return write_description(tmp_path / "pairs.yaml")


def all_rows(module):
    module.setup("fit")
    parts = (module._pairs, module._holdout)
    return [torch.cat([getattr(part, field).float() for part in parts]) for field in ("latents", "embeddings")]


def test_original_shards_are_described_with_exact_statistics(original, description):
    folder, (latents, embeddings) = original
    module = LatentPairs(str(folder), description=description)
    dataset = module.dataset
    embeddings = torch.nn.functional.normalize(embeddings, dim=-1)
    for name, expected in (("latent_mean", latents.double().mean(0)), ("latent_std", latents.double().std(0, False))):
        np.testing.assert_allclose(dataset[name], expected, rtol=1e-12)
    np.testing.assert_allclose(dataset["embedding_mean"], embeddings.double().mean(0), rtol=1e-5, atol=1e-8)
    assert (dataset["count"], dataset["latent_shape"], dataset["embedding_dim"]) == (500, [1, 4], 6)
    assert [shard["count"] for shard in dataset["shards"]] == [200, 200, 100]
    assert all(len(shard["sha256"]) == 64 for shard in dataset["shards"])
    assert dataset["generator"]["class_path"] == "tiny_pairs.TinyGenerator"
    found = all_rows(module)
    assert torch.equal(found[0], latents)
    torch.testing.assert_close(found[1], embeddings)


def test_moments_of_blocks_are_those_of_all_rows():
    rows = np.random.default_rng(0).normal(1e5, 1e-3, size=(1000, 3))
    moments = Moments()
    for block in (rows[:1], rows[1:300], rows[300:300], rows[300:]):
        moments.add(Moments.of(block))
    np.testing.assert_allclose(moments.mean, rows.mean(axis=0), rtol=1e-14)
    np.testing.assert_allclose(moments.std, rows.std(axis=0), rtol=1e-6)


def test_braces_expand_as_in_a_shell():
    assert expand_braces("a/{08..11}.tar") == [f"a/{number:02d}.tar" for number in range(8, 12)]
    assert expand_braces("{b,a}{1..2}") == ["b1", "b2", "a1", "a2"]
    assert expand_braces("{00000..99}")[-1] == "00099" and expand_braces("{2..0}") == ["2", "1", "0"]
    assert expand_braces("plain.tar") == ["plain.tar"]
    for wrong in ("{a}", "{..}", "{0..99999999}"):
        with pytest.raises(ValueError, match="path"):
            expand_braces(wrong)


def test_patterns_choose_shards(original, description, tmp_path):
    folder, (latents, _) = original
    chosen = LatentPairs(f"{folder}/{{00001..2}}.tar".replace("{00001..2}", "{00001..00002}"), description=description)
    assert torch.equal(all_rows(chosen)[0], latents[200:])
    single = LatentPairs(f"{folder}/00001.tar", description=description)
    assert torch.equal(all_rows(single)[0], latents[200:400])
    whole = write_tiny_dataset(tmp_path / "ours", 500)
    some = LatentPairs(f"{tmp_path}/ours/shard-{{000000..000001}}.tar")
    assert some.dataset["count"] == 400 and some.dataset["latent_mean"] == whole["latent_mean"]
    assert torch.equal(all_rows(some)[0], all_rows(LatentPairs(str(tmp_path / "ours")))[0][:400])
    with pytest.raises(ValueError, match=r"1 of 4 file\(s\) are missing, the first is .*00003.tar"):
        LatentPairs(f"{folder}/{{00000..00003}}.tar", description=description)


def test_addresses_and_commands_need_leave(original, description):
    folder, (latents, _) = original
    command = f"pipe:cat {folder}/{{00000..00002}}.tar"
    with pytest.raises(ValueError, match="allow_pipes"):
        LatentPairs(command, description=description)
    assert torch.equal(all_rows(LatentPairs(command, description=description, allow_pipes=True))[0], latents)
    with pytest.raises(ValueError, match=r"cannot be read"):
        all_rows(LatentPairs("pipe:false", description=description, allow_pipes=True))
    for address in ("http://127.0.0.1:9/{0..3}.tar", "https://127.0.0.1:9/folder", "hf://a/b/0.tar"):
        with pytest.raises(ValueError, match="allow_urls"):
            LatentPairs(address, description=description)


server, cache = pytest.fixture(running), pytest.fixture(empty_cache)


@pytest.mark.parametrize("ours", [True, False])
def test_addresses_are_fetched_where_allowed(ours, tmp_path, description, server, cache):
    folder = tmp_path / "served"
    write_tiny_dataset(folder, 100, rows_per_shard=50) if ours else write_original_shards(
        folder, 100, rows_per_shard=50
    )
    server.script = [lambda handler: send((folder / handler.path.rpartition("/")[2]).read_bytes())(handler)]
    options = {} if ours else {"description": description}
    path = server.url if ours else f"{server.url}/{{00000..00001}}.tar"
    for _ in range(2):
        module = LatentPairs(path, allow_urls=True, **options)
        local = LatentPairs(str(folder), **options)
        assert all(torch.equal(a, b) for a, b in zip(all_rows(module), all_rows(local), strict=True))
        assert len(server.requests) == (3 if ours else 2)


def test_descriptions_must_fit(original, tmp_path):
    folder, _ = original
    path = tmp_path / "pairs.yaml"
    with pytest.raises(ValueError, match=r"run the same datagen command again.*data.description"):
        LatentPairs(str(folder))
    with pytest.raises(ValueError, match=r"give --data.description"):
        LatentPairs(f"{folder}/00000.tar")
    with pytest.raises(ValueError, match=r"groups .* are 2 rows of latents, the shards hold 1"):
        _ = LatentPairs(str(folder), description=write_description(path, (2, 1))).dataset
    with pytest.raises(ValueError, match="text_mean has 2 numbers"):
        _ = LatentPairs(str(folder), description=write_description(path, text_mean=[0.1, 0.2])).dataset
    for changed, message in (
        ({"groups": []}, "groups must be"),
        ({"colour": 1}, "must have"),
        ({"generator": 3}, "generator"),
    ):
        with pytest.raises(ValueError, match=message):
            LatentPairs(str(folder), description=write_description(path, **changed))
    write_tiny_dataset(tmp_path / "ours", 50)
    with pytest.raises(ValueError, match=r"leave data.description out"):
        LatentPairs(str(tmp_path / "ours"), description=write_description(path))


def test_models_of_a_description_may_be_files(original, tmp_path):
    (tmp_path / "generator.yaml").write_text("{class_path: tiny_pairs.TinyGenerator, init_args: {rows: 1}}")
    description = write_description(tmp_path / "pairs.yaml", generator=str(tmp_path / "generator.yaml"))
    module = LatentPairs(str(original[0]), description=description)
    assert module.dataset["generator"]["init_args"] == {"rows": 1}


def test_w3_as_the_original_stored_it_is_warned_of(tmp_path):
    latents = np.random.default_rng(0).normal(size=(20, 3, 4)).astype("f4")[:, [1, 1, 2]]
    rows = {f"{i}.{f}.npy": a for i in range(20) for f, a in (("img_feat", np.ones(6)), ("latent", latents[i]))}
    write_members(tmp_path / "w3" / "0.tar", rows)
    module = LatentPairs(
        str(tmp_path / "w3"), description=write_description(tmp_path / "d.yaml", (4, 4, 10), space="w3")
    )
    with pytest.warns(UserWarning, match="never stored the coarse row"):
        assert module.dataset["space"] == "w3"


def test_half_precision_is_stored_and_full_given(original, description):
    folder, (latents, _) = original
    module = LatentPairs(str(folder), description=description, storage="float16", batch_size=50)
    assert torch.equal(all_rows(module)[0], latents.half().float())
    assert module._pairs.latents.dtype == torch.float16
    assert next(iter(module.val_dataloader())).latents.dtype == torch.float32
    write_members(folder / "00001.tar", {"a.latent.npy": np.full(4, 1e6, "f4"), "a.img_feat.npy": np.ones(6)})
    with pytest.raises(ValueError, match=r"00001.tar .*float16"):
        all_rows(LatentPairs(str(folder), description=description, storage="float16"))


@pytest.mark.parametrize("ours", [True, False])
def test_damaged_shards_are_refused_or_skipped_and_counted(tmp_path, description, ours):
    folder = tmp_path / "data"
    write_tiny_dataset(folder, 500) if ours else write_original_shards(folder, 500)
    options = {} if ours else {"description": description}
    whole = all_rows(LatentPairs(str(folder), **options))[0]
    middle = sorted(folder.glob("*.tar"))[1]
    middle.write_bytes(middle.read_bytes()[:5000])
    with pytest.raises(ValueError, match=middle.name):
        all_rows(LatentPairs(str(folder), **options))
    module = LatentPairs(str(folder), damaged="skip", **options)
    with pytest.warns(UserWarning, match=rf"skipped 1 of 3 shards; the first: shard .*{middle.name}"):
        rows = all_rows(module)[0]
    assert torch.equal(rows, torch.cat([whole[:200], whole[400:]])) and module.num_train == 270
    assert len(module.skipped) == 1
    for shard in folder.glob("*.tar"):
        shard.write_bytes(b"")
    with pytest.raises(ValueError, match=r"none of the 3 shard\(s\) can be used"):
        all_rows(LatentPairs(str(folder), damaged="skip", **options))


@pytest.fixture
def decodings(monkeypatch):
    """Counts how often shards are read."""
    calls = []
    read = pair_cache.read_shards

    def counted(*args, **options):
        calls.append(args)
        return read(*args, **options)

    monkeypatch.setattr(pair_cache, "read_shards", counted)
    return calls


def test_decoded_pairs_are_kept_while_shards_stay_the_same(original, description, tmp_path, decodings):
    folder, (latents, _) = original

    def rows(**options):
        return all_rows(LatentPairs(str(folder), description=description, cache=str(tmp_path / "cache"), **options))

    first = rows()
    assert all(torch.equal(a, b) for a, b in zip(rows(), first, strict=True)) and len(decodings) == 1
    shard = folder / "00001.tar"
    os.utime(shard, ns=(0, time.time_ns() + 10**9))  # another time, the same content
    assert torch.equal(rows()[0], latents) and len(decodings) == 1
    rows(storage="float16")
    assert len(decodings) == 2
    content = bytearray(shard.read_bytes())
    content[2048 + 1536 + 128 + 2] ^= 1  # in the first latent
    shard.write_bytes(content)
    assert len(decodings) == 2 and not torch.equal(rows()[0], latents) and len(decodings) == 3
    for kept in (tmp_path / "cache").glob("*/values"):
        kept.write_bytes(kept.read_bytes()[:-1] + b"\x01")
    rows()
    assert len(decodings) == 4


def test_a_kept_copy_does_not_hide_a_shard_that_was_changed(tmp_path, decodings):
    folder = tmp_path / "data"
    write_tiny_dataset(folder, 500)
    all_rows(LatentPairs(str(folder), cache=str(tmp_path / "cache")))
    shard = folder / "shard-000000.tar"
    content = bytearray(shard.read_bytes())
    content[1500] ^= 1
    shard.write_bytes(content)
    with pytest.raises(ValueError, match=r"shard-000000.tar is damaged"):
        all_rows(LatentPairs(str(folder), cache=str(tmp_path / "cache")))


def test_large_data_is_kept_beside_the_shards_and_small_is_not(original, description, monkeypatch, decodings):
    folder, _ = original
    all_rows(LatentPairs(str(folder), description=description))
    assert not (folder / pair_cache.FOLDER).exists()
    monkeypatch.setattr(data, "WORTH_KEEPING", 1000)
    all_rows(LatentPairs(str(folder), description=description, cache="off"))
    assert not (folder / pair_cache.FOLDER).exists() and len(decodings) == 2
    for _ in range(2):
        all_rows(LatentPairs(str(folder), description=description))
    assert (folder / pair_cache.FOLDER).exists() and len(decodings) == 3


def test_where_nothing_can_be_kept_training_goes_on(original, description, tmp_path, monkeypatch):
    (tmp_path / "taken").write_text("a file")
    with pytest.warns(UserWarning, match="are not kept in"):
        all_rows(LatentPairs(str(original[0]), description=description, cache=str(tmp_path / "taken")))

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pair_cache, "_keep", full)
    with pytest.warns(UserWarning, match="No space left"):
        all_rows(LatentPairs(str(original[0]), description=description, cache=str(tmp_path / "cache")))


def test_a_manifest_cannot_point_elsewhere(tmp_path):
    write_tiny_dataset(tmp_path / "data", 50)
    shutil.copy(tmp_path / "data" / "shard-000000.tar", tmp_path / "other.tar")
    manifest = tmp_path / "data" / "dataset.json"
    record = json.loads(manifest.read_text())
    record["shards"][0]["name"] = "../other.tar"
    manifest.write_text(json.dumps(record))
    with pytest.raises(ValueError, match=r"outside its folder: '../other.tar'"):
        LatentPairs(str(tmp_path / "data"))


def test_nothing_warns_where_nothing_is_wrong(original, description):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        all_rows(LatentPairs(str(original[0]), description=description))
