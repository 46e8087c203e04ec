"""Exported priors: what is in the folder, where its card's facts come from, that it loads as the checkpoint does."""

import json

import pytest
import torch
import yaml
from PIL import Image
from tiny_pairs import write_tiny_dataset

from clip2latent import cli
from clip2latent.checkpoint import load_prior
from clip2latent.training import PriorTraining

PROMPTS = ["a red hat", "night | day", "blue"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run's folder as training leaves it: best.ckpt with the averaged weights, config.yaml beside it."""
    folder = tmp_path_factory.mktemp("run")
    dataset = write_tiny_dataset(tmp_path_factory.mktemp("pairs"), count=50, rows_per_shard=20)
    torch.manual_seed(0)
    size = {"dim": 16, "depth": 1, "heads": 2, "dim_head": 8, "timesteps": 50, "noise_scale": 0.5}
    module = PriorTraining(dataset, **size)
    watched = {"monitor": "val/clip_score", "best": [[0.5, 30], [0.25, 40]]}
    checkpoint = {"state_dict": module.state_dict(), "current_model_state": {}, "global_step": 40}
    checkpoint |= {"callbacks": {"Checkpoints": watched, "PriorAverage": {"updated_at": 3}}}
    module.on_save_checkpoint(checkpoint)
    torch.save(checkpoint, folder / "best.ckpt")
    (folder / "prompts.txt").write_text("\n".join(PROMPTS))
    settings = {"model": {**size, "learning_rate": 0.003}, "data": {"path": "/home/me/data", "batch_size": 32}}
    settings |= {"average": {"decay": 0.99}, "trainer": {"max_steps": 50, "default_root_dir": "/home/me/run"}}
    settings |= {"validation": {"prompts": str(folder / "prompts.txt")}, "seed_everything": 7}
    (folder / "config.yaml").write_text(yaml.safe_dump(settings))
    return folder


@pytest.fixture(scope="module")
def exported(run, tmp_path_factory):
    folder = tmp_path_factory.mktemp("out") / "my-prior"
    assert cli.main(["export", str(run / "best.ckpt"), str(folder), "--num=2", "--licence=cc0-1.0"]) == 0
    return folder


def test_the_folder_is_the_checkpoint(run, exported):
    names = ["README.md", "config.json", "metrics.json", "model.safetensors", "samples.png"]
    assert sorted(path.name for path in exported.iterdir()) == names
    one, other = load_prior(run / "best.ckpt"), load_prior(exported)
    for name, weight in one.prior.state_dict().items():
        assert weight.equal(other.prior.state_dict()[name])
    assert {**other.config, "training": None} == {**one.config, "training": None}
    assert (exported / "model.safetensors").stat().st_mode == (exported / "config.json").stat().st_mode


def test_the_card_says_what_is_known(run, exported):
    card = (exported / "README.md").read_text()
    front = yaml.safe_load(card.split("---\n")[1])
    assert front["license"] == "cc0-1.0" and front["pipeline_tag"] == "text-to-image"
    dataset = load_prior(run / "best.ckpt").config["dataset"]
    assert dataset["num_shards"] == 3 and len(dataset["shards_sha256"]) == 64
    for fact in (
        "# my-prior",
        "| pairs | 50 |",
        "| shards | 3 |",
        dataset["shards_sha256"],
        load_prior(exported).generator.sha256,
        load_prior(exported).embedder.sha256,
        "tiny_pairs.TinyGenerator | ",
        "not recorded: look it up where the weights were published",
        "| `learning_rate` | 0.003 |",
        "| `batch_size` | 32 |",
        "| `average_decay` | 0.99 |",
        "| `steps` | 40 |",
        "| `weights` | moving average |",
        "| `seed` | 7 |",
        "val/clip_score 0.2500",
        "On 3 prompts, 2 images each",
        "chosen by its score on these very prompts",
        "| prior, guidance 2 (recommended) |",
        "(samples.png)",
    ):
        assert fact in card, fact
    assert "/home/me" not in card + (exported / "config.json").read_text() + (exported / "metrics.json").read_text()


def test_scores_and_samples_are_of_the_folder(exported):
    record = json.loads((exported / "metrics.json").read_text())
    assert record["prompts"] == PROMPTS and record["validation"] == {"val/clip_score": 0.25}
    assert {row["key"] for row in record["rows"]} >= {"random", "prior", "prior_1", "prior_best"}
    assert sorted(record["files"]) == sorted(path.name for path in exported.iterdir())
    with Image.open(exported / "samples.png") as picture:
        picture.verify()


def test_an_export_of_an_export_keeps_what_was_known(exported, tmp_path, capsys):
    assert cli.main(["export", str(exported), str(tmp_path / "again")]) == 0
    card = (tmp_path / "again" / "README.md").read_text()
    assert "| `learning_rate` | 0.003 |" in card and "val/clip_score 0.2500" in card and "samples.png" not in card
    assert "no prompts" in capsys.readouterr().err
    first, second = (json.loads((folder / "config.json").read_text()) for folder in (exported, tmp_path / "again"))
    assert first == second
    names = ["README.md", "config.json", "metrics.json", "model.safetensors"]
    assert sorted(path.name for path in (tmp_path / "again").iterdir()) == names


def test_settings_of_another_run_are_not_taken(run, tmp_path):
    (tmp_path / "best.ckpt").write_bytes((run / "best.ckpt").read_bytes())
    settings = yaml.safe_load((run / "config.yaml").read_text())
    settings["model"]["noise_scale"] = 1.0
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(settings))
    assert cli.main(["export", str(tmp_path / "best.ckpt"), str(tmp_path / "out")]) == 0
    card = (tmp_path / "out" / "README.md").read_text()
    assert "learning_rate" not in card and "| `steps` | 40 |" in card


def test_files_go_only_where_they_may(run, exported, tmp_path, capsys):
    assert cli.main(["export", str(run / "best.ckpt"), str(exported)]) == 2
    assert "not empty" in capsys.readouterr().err
    (run / "broken.txt").write_text("\n")
    assert cli.main(["export", str(run / "best.ckpt"), str(tmp_path / "x"), "--prompts", str(run / "broken.txt")]) == 2
    assert cli.main(["export", str(run / "none.ckpt"), str(tmp_path / "x")]) == 2
    assert "none.ckpt does not exist" in capsys.readouterr().err and not any(tmp_path.iterdir())
