"""What validation draws, scores and logs, by the averaged weights."""

import csv
import shutil

import pytest
import torch
from launched import SIZES, options
from tiny_pairs import TinyEmbedder, TinyGenerator, write_tiny_dataset

from clip2latent import cli_train
from clip2latent.checkpoint import load_prior
from clip2latent.data import Pairs
from clip2latent.prompt_validation import PromptValidation, score_name
from clip2latent.training import PriorTraining

PROMPTS = ["red", "green", "blue"]
SCORES = ("clip_score", "clip_score_g2", "clip_score_random", "clip_score_shuffled", "image_score", "loss")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The folders of a dataset and of a training with validation on prompts; its prompt file."""
    folder = tmp_path_factory.mktemp("run")
    write_tiny_dataset(folder / "data", count=800, groups=(2, 1))
    prompts = folder / "prompts.txt"
    prompts.write_text("\n".join(PROMPTS))
    validation = (f"--validation.prompts={prompts}", "--validation.grid_rows=2", "--validation.chunk=5")
    more = ("--checkpoints.top_k=2", "--checkpoints.every_n_steps=4", "--average.decay=0.9", "--trainer.devices=1")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["train.py"])
        assert cli_train.main(options(folder / "data", folder / "run", 9, 3, *validation, *more)) == 0
    return folder


def rows(run):
    with open(run / "run" / "metrics.csv", newline="") as file:
        return list(csv.DictReader(file))


def test_scores_and_baselines_are_logged_at_every_validation(run):
    validated = [row for row in rows(run) if row["val/clip_score"]]
    assert len(validated) == 3
    for row in validated:
        assert all(-1 <= float(row[f"val/{name}"]) <= 1 for name in SCORES if name != "loss")
    assert len({row["val/clip_score_random"] for row in validated}) == 1
    assert len({row["val/clip_score"] for row in validated}) == 3


def test_speed_and_what_validation_costs_are_logged(run):
    timed = [row for row in rows(run) if row["train/samples_per_s"]]
    assert timed and all(float(row["train/samples_per_s"]) == 64 * float(row["train/steps_per_s"]) for row in timed)
    assert 0 < float(timed[-1]["train/validation_share"]) < 1


def test_a_grid_for_every_validation_and_the_configuration_are_in_the_runs_folder(run):
    names = {path.name for path in (run / "run" / "grids").iterdir()}
    assert names == {f"step-{step:07d}.png" for step in (3, 6, 9)}
    assert (run / "run" / "config.yaml").exists()


def test_the_best_the_last_and_every_nth_checkpoint_are_kept(run):
    folder = run / "run"
    by_score = sorted((float(row["val/clip_score"]), int(row["step"]) + 1) for row in rows(run) if row["val/loss"])
    best = [step for _, step in reversed(by_score)][:2]
    kept = {int(path.stem.removeprefix("step-")) for path in (folder / "checkpoints").iterdir()}
    assert kept == {4, 8, *best}
    assert torch.load(folder / "best.ckpt", weights_only=True)["global_step"] == best[0]
    assert torch.load(folder / "last.ckpt", weights_only=True)["global_step"] == 9
    same = (folder / "checkpoints" / f"step-{best[0]:07d}.ckpt").stat()
    assert same.st_ino == (folder / "best.ckpt").stat().st_ino
    assert not list(folder.rglob("*.partial")) and not list(folder.glob(".fresh*"))


@pytest.mark.parametrize("command", ["validate", "test"])
def test_a_checkpoint_is_scored_by_its_averaged_weights(run, command, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["train.py"])
    seen = []
    loss = PriorTraining.loss
    monkeypatch.setattr(
        PriorTraining, "loss", lambda self, *a: seen.append(self.prior.queries.clone()) or loss(self, *a)
    )
    arguments = [
        command,
        f"--data.path={run / 'data'}",
        f"--trainer.default_root_dir={run / 'run'}",
        f"--validation.prompts={run / 'prompts.txt'}",
        *SIZES,
    ]
    assert cli_train.main(arguments) == 2 and "--ckpt_path" in capsys.readouterr().err
    before = (run / "run" / "metrics.csv").read_bytes(), (run / "run" / "last.ckpt").read_bytes()
    assert cli_train.main([*arguments, "--ckpt_path=last"]) == 0
    assert before == ((run / "run" / "metrics.csv").read_bytes(), (run / "run" / "last.ckpt").read_bytes())
    assert all(torch.equal(weights, load_prior(run / "run" / "last.ckpt").prior.queries) for weights in seen) and seen
    stage = {"validate": "val", "test": "test"}[command]
    assert f"{stage}/clip_score" in capsys.readouterr().out


class Trainer:
    is_global_zero, sanity_checking, global_step, loggers = True, False, 5, ()

    class strategy:
        @staticmethod
        def broadcast(scores):
            return scores

    def __init__(self, folder):
        self.default_root_dir = folder


@pytest.fixture
def drawn(run, tmp_path, monkeypatch):
    """What the prior is conditioned on while validation draws, and the scores it logs."""
    dataset = cli_train.LatentPairs(str(run / "data")).dataset
    model = PriorTraining(dataset, dim=16, depth=1, heads=2, dim_head=8, centre=True).eval()
    validation = PromptValidation(str(run / "prompts.txt"), images_per_prompt=2, guidance=[1.0], held_out=4)
    conditions, scores = [], {}
    model.prior.register_forward_pre_hook(lambda module, args: conditions.append(args[2]))
    monkeypatch.setattr(model, "log", lambda name, value, **_: scores.update({name: value}))
    pictures = torch.nn.functional.normalize(torch.randn(6, 6, generator=torch.Generator().manual_seed(1)), dim=-1)
    trainer = Trainer(tmp_path)
    validation.setup(trainer, model, "fit")
    validation.on_validation_batch_end(trainer, model, None, Pairs(torch.zeros(6, 2, 4), pictures), 0)
    validation.on_validation_epoch_end(trainer, model)
    return model, conditions, scores, pictures


def test_the_prior_is_conditioned_on_texts_and_held_out_images_across_the_bridge(drawn):
    model, conditions, _, pictures = drawn
    texts = model.bridge.texts(TinyEmbedder().embed_text(PROMPTS)).repeat_interleave(2, dim=0)
    assert len(conditions) == 16
    for condition in conditions[:8]:
        torch.testing.assert_close(condition, texts)
    for condition in conditions[8:]:
        torch.testing.assert_close(condition, model.bridge.images(pictures[:4]))


def test_the_baselines_are_what_they_say(drawn):
    _, _, scores, _ = drawn
    generator, embedder = TinyGenerator(3), TinyEmbedder()
    latents = generator.sample_latents(6, torch.Generator().manual_seed(0))
    random = embedder.embed_images(generator.synthesize(latents)) @ embedder.embed_text(PROMPTS).T
    assert scores["val/clip_score_random"] == pytest.approx(random.mean().item(), abs=1e-6)
    assert scores.keys() == {f"val/{name}" for name in SCORES} - {"val/loss", "val/clip_score_g2"}
    assert [score_name(scale) for scale in (1, 1.0, 2.0, 1.5)] == [
        "val/clip_score",
        "val/clip_score",
        "val/clip_score_g2",
        "val/clip_score_g1.5",
    ]


def test_without_prompts_no_generator_is_loaded(run, tmp_path):
    validation = PromptValidation()
    dataset = {**cli_train.LatentPairs(str(run / "data")).dataset, "generator": {"class_path": "no.Where"}}
    validation.setup(Trainer(tmp_path), type("Model", (), {"dataset": dataset}), "fit")
    validation.on_validation_epoch_end(Trainer(tmp_path), None)
    shutil.rmtree(tmp_path)
