"""What a training logs: metrics.csv always, Weights & Biases for real and offline, TensorBoard where asked for."""

import csv
import json
import struct
from types import SimpleNamespace

import torch
from launched import launch, options
from tiny_pairs import write_tiny_dataset

from clip2latent.metrics_file import MetricsFile
from clip2latent.prompt_validation import PromptValidation
from clip2latent.wandb_run import keep_run


def read(folder):
    with open(folder / "metrics.csv", newline="") as file:
        return list(csv.DictReader(file))


def test_a_row_holds_a_steps_metrics_and_new_ones_get_a_column(tmp_path):
    log = MetricsFile(tmp_path)
    log.log_metrics({"a": 1.5, "epoch": 0}, 1)
    log.log_metrics({"a": 2.0}, 2)
    log.log_metrics({"b": 0.25}, 2)
    log.log_metrics({"a": 3.0}, 3)
    assert read(tmp_path) == [
        {"step": "1", "a": "1.5", "b": ""},
        {"step": "2", "a": "2.0", "b": "0.25"},
        {"step": "3", "a": "3.0", "b": ""},
    ]


def test_going_on_keeps_rows_and_replaces_those_done_again(tmp_path):
    log = MetricsFile(tmp_path)
    for step in (1, 2, 3):
        log.log_metrics({"a": step}, step)
    again = MetricsFile(tmp_path)
    again.log_metrics({"a": 20, "b": 1}, 2)
    again.log_metrics({"a": 30}, 3)
    assert [(row["step"], row["a"], row["b"]) for row in read(tmp_path)] == [
        ("1", "1.0", ""),
        ("2", "20.0", "1.0"),
        ("3", "30.0", ""),
    ]


def test_a_torn_last_line_is_left_out(tmp_path):
    (tmp_path / "metrics.csv").write_text("step,a\n1,1.0\n2,")
    MetricsFile(tmp_path).log_metrics({"a": 3}, 3)
    assert [row["step"] for row in read(tmp_path)] == ["1", "2", "3"]


def records(path):
    """The records of a .wandb file: a log of 32 KiB blocks, each piece with checksum, length and type before it."""
    from wandb.proto.wandb_internal_pb2 import Record

    content, at, parts = path.read_bytes(), 7, []
    while at + 7 <= len(content):
        if 32768 - at % 32768 < 7:
            at += 32768 - at % 32768
            continue
        _, length, kind = struct.unpack_from("<IHB", content, at)
        parts.append(content[at + 7 : at + 7 + length])
        at += 7 + length
        if kind in (1, 4):  # whole, or the last piece
            yield Record.FromString(b"".join(parts))
            parts = []


def test_wandb_offline_holds_config_history_and_images_and_a_restart_goes_on_with_the_run(tmp_path):
    run, data = tmp_path / "run", tmp_path / "data"
    write_tiny_dataset(data, count=400)
    (tmp_path / "prompts.txt").write_text("red\ngreen")
    logger = {"class_path": "pytorch_lightning.loggers.WandbLogger", "init_args": {"project": "p", "offline": True}}
    more = (f"--trainer.logger={json.dumps(logger)}", f"--validation.prompts={tmp_path / 'prompts.txt'}")
    for steps in (4, 8):
        command = options(data, run, steps, 4, "--trainer.devices=1", "--ckpt_path=last", *more)
        assert launch(run, command) == [0]
    folders = sorted((run / "wandb").glob("offline-run-*"))
    name = (run / "wandb-id.txt").read_text()
    assert len(folders) == 2 and all(folder.name.endswith(f"-{name}") for folder in folders)
    for folder, steps in zip(folders, ((1, 4), (5, 8)), strict=True):
        config, history = {}, []
        for record in records(next(folder.glob("*.wandb"))):
            items = [*record.config.update, *record.run.config.update]
            config |= {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in items}
            history += [{i.key or "/".join(i.nested_key): i.value_json for i in record.history.item}]
            assert record.run.run_id in ("", name)
        assert config["model"]["dim"] == 16 and config["trainer"]["max_steps"] == steps[1]
        logged = {key: row[key] for row in history for key in row}
        assert {"train/loss", "val/loss", "val/clip_score", "val/clip_score_random"} <= logged.keys()
        at = [int(row["trainer/global_step"]) for row in history if "trainer/global_step" in row]
        assert min(at) == steps[0] and max(at) in (steps[1] - 1, steps[1])
        image = json.loads(logged["val/images/filenames"])[0]
        assert (folder / "files" / image).stat().st_size > 1000


def test_a_runs_place_and_id_are_kept_unless_given(tmp_path):
    def options_of(**given):
        logger = SimpleNamespace(class_path="a.WandbLogger", init_args=Options(save_dir=".", **given))
        keep_run(logger, tmp_path)
        return logger.init_args

    first, second = options_of(), options_of(id=None)
    assert first.id == second.id and len(first.id) == 8 and first.save_dir == str(tmp_path)
    assert options_of(id="mine").id == "mine"
    keep_run(True, tmp_path)
    keep_run(None, tmp_path)


class Options(SimpleNamespace):
    def get(self, name):
        return getattr(self, name, None)


def test_tensorboard_gets_the_grid(tmp_path):
    added = []
    experiment = SimpleNamespace(add_image=lambda name, array, step, dataformats: added.append((name, array.shape)))
    trainer = SimpleNamespace(
        default_root_dir=tmp_path,
        global_step=7,
        loggers=[MetricsFile(tmp_path), SimpleNamespace(experiment=experiment)],
    )
    validation = PromptValidation()
    validation.prompts = ["red"]
    validation._show(trainer, "val/images", torch.zeros(1, 2, 3, 8, 8), torch.zeros(1, 2), 2.0)
    assert added == [("val/images", (added[0][1][0], added[0][1][1], 3))]
    assert (tmp_path / "grids" / "step-0000007.png").exists()
