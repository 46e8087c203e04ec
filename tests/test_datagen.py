"""datagen: shards as a pure function of (seed, index), and a folder that survives anything."""

import errno
import json
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_models import TinyEmbedder, TinyGenerator

from clip2latent.data import read_dataset
from datagen import shards
from datagen.__main__ import main
from datagen.shards import read_shard

TESTS = Path(__file__).parent
CONFIG = """
generator: {class_path: tiny_models.TinyGenerator, init_args: {seed: 3, delay: DELAY}}
embedder: {class_path: tiny_models.TinyEmbedder}
count: 230
rows_per_shard: 20
batch_size: 8
"""


@pytest.fixture
def config(tmp_path) -> str:
    path = tmp_path / "config.yaml"
    path.write_text(CONFIG.replace("DELAY", "0.0"))
    return str(path)


@pytest.fixture
def slow_config(tmp_path) -> str:
    path = tmp_path / "slow.yaml"
    path.write_text(CONFIG.replace("DELAY", "0.01"))
    return str(path)


def run(config: str, out: Path, *options: str) -> dict[str, bytes]:
    assert main(["--config", config, "--out", str(out), "--device", "cpu", *options]) == 0
    return contents(out)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def refused(capsys, *arguments: str) -> str:
    """Runs a command that must fail for a user's reason; returns its one line."""
    assert main([*arguments]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert lines[-1].startswith("error: ") and not any(line.startswith("Traceback") for line in lines)
    return lines[-1]


def test_pairs_belong_together_and_are_described(config, tmp_path):
    out = tmp_path / "out"
    run(config, out)
    dataset = read_dataset(out)
    assert [shard["count"] for shard in dataset["shards"]] == [20] * 11 + [10]
    assert (dataset["latent_shape"], dataset["groups"], dataset["embedding_dim"]) == ([3, 4], [3], 5)
    rows = [read_shard(out / shard["name"]) for shard in dataset["shards"]]
    latents, embeddings = (np.concatenate(parts).astype(np.float64) for parts in zip(*rows, strict=True))
    assert latents.shape == (230, 1, 4) and embeddings.shape == (230, 5)
    images = TinyGenerator(3).synthesize(torch.tensor(latents).float().repeat(1, 3, 1))
    torch.testing.assert_close(TinyEmbedder().embed_images(images).double(), torch.tensor(embeddings))
    np.testing.assert_allclose(dataset["latent_mean"], latents.mean(axis=0), rtol=1e-12, atol=1e-15)
    np.testing.assert_allclose(dataset["latent_std"], latents.std(axis=0), rtol=1e-12)
    np.testing.assert_allclose(dataset["embedding_mean"], embeddings.mean(axis=0), rtol=1e-12, atol=1e-15)
    assert len(np.unique(latents[:, 0, 0])) == 230


def test_shard_is_a_function_of_seed_and_index(config, tmp_path):
    whole = run(config, tmp_path / "whole")
    assert run(config, tmp_path / "again") == whole
    shorter = run(config, tmp_path / "shorter", "--count", "60")
    assert all(shorter[f"shard-00000{index}.tar"] == whole[f"shard-00000{index}.tar"] for index in range(3))
    reseeded = run(config, tmp_path / "reseeded", "--seed", "1", "--count", "60")
    assert all(reseeded[f"shard-00000{index}.tar"] != whole[f"shard-00000{index}.tar"] for index in range(3))


def test_entries_of_a_model_can_be_changed(config, tmp_path):
    inline = "{class_path: tiny_models.TinyGenerator, init_args: {seed: 5, delay: 0.0}}"
    expected = run(config, tmp_path / "inline", "--count=20", "--generator", inline)
    assert run(config, tmp_path / "entry", "--count=20", "--generator.init_args.seed=5") == expected
    assert run(config, tmp_path / "words", "--generator.init_args.seed", "5", "--count", "20") == expected


def test_groups_choose_the_tokens(config, tmp_path):
    run(config, tmp_path / "out", "--groups", "[1,2]", "--count", "20")
    assert read_shard(tmp_path / "out" / "shard-000000.tar").latents.shape == (20, 2, 4)
    assert np.shape(read_dataset(tmp_path / "out")["latent_std"]) == (2, 4)


def test_the_mean_of_texts_is_recorded_where_texts_are_given(config, tmp_path, capsys):
    texts = ["a red hat", "a man at night"]
    (tmp_path / "texts.txt").write_text("\n".join(texts))
    plain = run(config, tmp_path / "plain", "--count", "20")
    run(config, tmp_path / "out", "--count", "20", "--texts", str(tmp_path / "texts.txt"))
    mean = TinyEmbedder().embed_text(texts).double().mean(dim=0)
    torch.testing.assert_close(torch.tensor(read_dataset(tmp_path / "out")["text_mean"], dtype=torch.float64), mean)
    assert "text_mean" not in read_dataset(tmp_path / "plain")
    assert contents(tmp_path / "out")["shard-000000.tar"] == plain["shard-000000.tar"]
    (tmp_path / "texts.txt").write_text("other texts")
    options = ["--config", config, "--count", "20", "--device", "cpu", "--texts", str(tmp_path / "texts.txt")]
    assert "texts_sha256" in refused(capsys, *options, "--out", str(tmp_path / "out"))


def test_the_generators_space_chooses_the_tokens_and_is_recorded(config, tmp_path):
    sizes = "z_dim: 2, c_dim: 0, w_dim: 4, img_resolution: 8, img_channels: 3, channel_max: 2"
    for space, groups in (("w", [4]), ("w3", [1, 1, 2]), ("z", [1])):
        path = "clip2latent.generators.stylegan2.StyleGAN2"
        model = f"{{class_path: {path}, init_args: {{{sizes}, space: {space}}}}}"
        run(config, tmp_path / space, "--count", "20", "--generator", model)
        dataset = read_dataset(tmp_path / space)
        assert dataset["groups"] == groups
        assert dataset.get("space", "w") == space and ("space" in dataset) == (space != "w")
        assert read_shard(tmp_path / space / "shard-000000.tar").latents.shape == (
            20,
            len(groups),
            2 if space == "z" else 4,
        )


def test_another_space_is_refused(config, tmp_path, capsys):
    run(config, tmp_path / "out")
    manifest = tmp_path / "out" / "datagen.json"
    record = json.loads(manifest.read_text())
    manifest.write_text(json.dumps({**record, "settings": {**record["settings"], "space": "w3"}}))
    line = refused(capsys, "--config", config, "--out", str(tmp_path / "out"))
    assert "space: " in line and '"w3"' in line


def test_processes_share_a_folder(config, tmp_path, capsys):
    alone = run(config, tmp_path / "alone")
    shared = tmp_path / "shared"
    assert "dataset.json" not in run(config, shared, "--world_size", "2", "--rank", "1")
    assert "rank 1 are done" in capsys.readouterr().out
    assert run(config, shared, "--world_size", "2", "--rank", "0") == alone


def test_killed_at_random_moments_ends_with_the_same_bytes(config, slow_config, tmp_path):
    """Real SIGKILLs. The processes come from a server that has torch loaded, so that a start takes no seconds."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torch", "datagen.generate", "datagen.__main__", "tiny_models"])
    expected = run(slow_config, tmp_path / "expected")
    out, moments, kills = tmp_path / "out", random.Random(0), 0
    for _ in range(40):
        command = ["--config", slow_config, "--out", str(out), "--device", "cpu"]
        process = context.Process(target=main, args=(command,))
        process.start()
        before = len(list(out.glob("*.tar"))) if out.exists() else 0
        while kills >= 3 and process.is_alive() and len(list(out.glob("*.tar"))) == before:
            time.sleep(0.001)  # from the fourth on, kill one that has got to work
        time.sleep(moments.uniform(0.0, 0.08))
        process.kill()
        process.join()
        kills += process.exitcode == -signal.SIGKILL
        if (out / "dataset.json").exists():
            break
    assert kills >= 5
    assert run(slow_config, out) == expected


def test_interrupted_by_ctrl_c(slow_config, config, tmp_path):
    out = tmp_path / "out"
    command = [sys.executable, "-m", "datagen", "--config", slow_config, "--out", str(out), "--device", "cpu"]
    paths = os.pathsep.join([str(TESTS.parent), str(TESTS)])
    environment = {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        command,
        env=environment,
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # where the tests run in a background job
    )
    while not list(out.glob("*.tar")) and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130 and "same command" in errors and "Traceback" not in errors
    assert not list(out.glob("*.partial")) and not (out / "dataset.json").exists()
    assert run(slow_config, out) == run(slow_config, tmp_path / "uninterrupted")


def test_full_disk_leaves_nothing_half_written(config, tmp_path, monkeypatch, capsys):
    out, sync, calls = tmp_path / "out", os.fsync, []

    def full(descriptor: int) -> None:
        calls.append(descriptor)
        if len(calls) > 7:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        sync(descriptor)

    monkeypatch.setattr(shards.os, "fsync", full)
    assert "disk is full" in refused(capsys, "--config", config, "--out", str(out))
    monkeypatch.undo()
    assert not list(out.glob("*.partial")) and len(list(out.glob("*.tar"))) == 3
    assert run(config, out) == run(config, tmp_path / "expected")


def test_finished_shards_are_kept_and_broken_ones_remade(config, tmp_path):
    out = tmp_path / "out"
    expected = run(config, out)
    kept, cut, gone = (out / f"shard-00000{index}.tar" for index in (1, 2, 3))
    modified = kept.stat().st_mtime_ns
    cut.write_bytes(expected[cut.name][:1000])
    gone.unlink()
    (out / "shard-000005.tar.rank0.partial").write_bytes(b"left by a kill")
    assert run(config, out) == expected
    assert kept.stat().st_mtime_ns == modified


@pytest.mark.parametrize("option", [("--seed", "1"), ("--count", "231"), ("--batch_size", "9"), ("--groups", "[1,2]")])
def test_other_settings_are_refused(config, tmp_path, capsys, option):
    before = run(config, tmp_path / "out")
    line = refused(capsys, "--config", config, "--out", str(tmp_path / "out"), *option)
    assert option[0].lstrip("-") in line and option[1].replace(",", ", ") in line
    assert contents(tmp_path / "out") == before


def test_other_weights_are_refused(config, tmp_path, capsys):
    run(config, tmp_path / "out")
    model = "{class_path: tiny_models.TinyGenerator, init_args: {seed: 4}}"
    assert "generator" in refused(capsys, "--config", config, "--out", str(tmp_path / "out"), "--generator", model)


def test_foreign_files_are_refused(config, tmp_path, capsys):
    out = tmp_path / "out"
    out.mkdir()
    (out / "thesis.txt").write_text("do not touch")
    assert "thesis.txt" in refused(capsys, "--config", config, "--out", str(out))
    assert contents(out) == {"thesis.txt": b"do not touch"}
    assert "is a file" in refused(capsys, "--config", config, "--out", str(out / "thesis.txt"))
    run(config, tmp_path / "begun")
    foreign = tmp_path / "begun" / "shard-000001.tar"
    foreign.write_bytes(b"something else")
    assert foreign.name in refused(capsys, "--config", config, "--out", str(tmp_path / "begun"))
    assert foreign.read_bytes() == b"something else"


def test_rows_that_are_not_finite_name_their_shard(config, tmp_path, capsys):
    model = "{class_path: tiny_models.TinyGenerator, init_args: {broken_after: 2.5}}"
    line = refused(capsys, "--config", config, "--out", str(tmp_path / "out"), "--generator", model)
    assert "NaN" in line and "shard-00000" in line
    assert not list((tmp_path / "out").glob("*.partial"))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--seed", "x"], "seed"),
        (["--count", "0"], "count"),
        (["--sede", "1"], "sede"),
        (["--device", "abacus"], "abacus"),
        (["--groups", "[2,2]"], "sum to the generator's 3"),
        (["--generator", "missing.yaml"], "missing.yaml"),
        (["--generator", "{class_path: os.system}"], "os.system"),
        (["--generator", "{class_path: tiny_models.TinyEmbedder}"], "not a Generator"),
        (["--generator.init_args.sede", "4"], "sede"),
        (["--generator.class_path.x=4"], "class_path.x"),
        (["--generator.class_path"], "needs a value"),
        (["--config", "missing.yaml"], "missing.yaml"),
        (["--rank", "2", "--world_size", "2"], "rank"),
    ],
)
def test_mistakes_are_one_line(config, tmp_path, capsys, options, words):
    assert words in refused(capsys, "--config", config, "--out", str(tmp_path / "out"), *options)
    assert not (tmp_path / "out").exists()


def test_manifest_of_another_program_is_refused(config, tmp_path, capsys):
    run(config, tmp_path / "out")
    (tmp_path / "out" / "datagen.json").write_text(json.dumps({"format": 2}))
    assert "datagen.json" in refused(capsys, "--config", config, "--out", str(tmp_path / "out"))
