"""Trainings that are killed, stopped, out of disk, or spread over processes, end where an undisturbed one does."""

import json
import signal

import pytest
import pytorch_lightning as pl
import torch
from launched import launch, options, srun, torchrun
from tiny_pairs import write_tiny_dataset

from clip2latent.data import LatentPairs
from clip2latent.launch import Launch, launched
from clip2latent.training import PriorTraining


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pairs") / "data"
    write_tiny_dataset(folder, count=800, groups=(2, 1))
    return folder


def callback(name, **arguments):
    return f"--trainer.callbacks={json.dumps([{'class_path': f'launched.{name}', 'init_args': arguments}])}"


def checkpoint(folder, name="last.ckpt"):
    return torch.load(folder / name, weights_only=True)


def assert_same_end(one, other):
    one, other = checkpoint(one), checkpoint(other)
    assert one["global_step"] == other["global_step"]
    for key in ("state_dict", "current_model_state"):
        for name, value in one[key].items():
            torch.testing.assert_close(other[key][name], value, msg=lambda text, name=name: f"{name}: {text}")
    states = [run["optimizer_states"][0]["state"] for run in (one, other)]
    for index, state in states[0].items():
        torch.testing.assert_close(states[1][index]["exp_avg_sq"], state["exp_avg_sq"])
    assert one["lr_schedulers"] == other["lr_schedulers"]


MORE = ("--global_batch_size=64", "--model.warmup_steps=3", "--model.cosine_decay=true", "--average.every_n_steps=3")


@pytest.fixture(scope="module")
def whole(data, tmp_path_factory):
    """An undisturbed training of 24 steps on one process."""
    folder = tmp_path_factory.mktemp("whole")
    assert launch(folder, options(data, folder, 24, 6, *MORE, "--trainer.devices=1")) == [0]
    return folder


def test_two_processes_have_the_gradients_of_one_with_the_doubled_batch(data, tmp_path):
    """After one step AdamW's first moment is (1 - beta1) times the gradient, averaged over processes."""
    assert launch(tmp_path, options(data, tmp_path, 1, 1, "--data.batch_size=32"), 2, torchrun) == [0, 0]
    states = checkpoint(tmp_path)["optimizer_states"][0]["state"]
    pl.seed_everything(0)
    pairs = LatentPairs(str(data), batch_size=64)
    model = PriorTraining(pairs.dataset, dim=16, depth=1, heads=2, dim_head=8)
    pairs.trainer = pl.Trainer(max_steps=1, logger=False, enable_checkpointing=False, accelerator="cpu")
    pairs.setup("fit")
    model.loss(next(iter(pairs.train_dataloader())), model._rng(0, 0, 0)).backward()
    model._trainer = pairs.trainer
    groups = model.configure_optimizers()["optimizer"].param_groups
    expected = [parameter.grad for group in groups for parameter in group["params"]]
    assert len(states) == len(expected) > 10 and sum(gradient.norm() for gradient in expected) > 0.01
    for index, gradient in enumerate(expected):
        torch.testing.assert_close(states[index]["exp_avg"] / 0.1, gradient, rtol=1e-3, atol=1e-7)


def test_terminated_out_of_disk_and_killed_it_ends_where_an_undisturbed_one_does(data, whole, tmp_path):
    command = options(data, tmp_path, 24, 6, *MORE, "--ckpt_path=last", "--trainer.devices=1")
    output = tmp_path / "output-0.txt"
    assert launch(tmp_path, [*command, callback("SignalAt", step=8, signum=15)]) == [128 + signal.SIGTERM]
    assert checkpoint(tmp_path)["global_step"] == 8
    assert f"stopped at step 8, saved {tmp_path / 'last.ckpt'}" in output.read_text()

    assert launch(tmp_path, [*command, callback("SmallFilesFrom", step=14, limit=20_000)]) == [2]
    lines = [line for line in output.read_text().splitlines() if "rror" in line]
    assert len(lines) == 1 and lines[0].startswith("error: ") and "cannot be written" in lines[0]
    assert "File too large" in lines[0]
    assert not list(tmp_path.rglob("*.partial"))
    assert checkpoint(tmp_path)["global_step"] == checkpoint(tmp_path, "best.ckpt")["global_step"] == 12

    assert launch(tmp_path, [*command, callback("SignalAt", step=20, signum=9)]) == [-signal.SIGKILL]
    assert checkpoint(tmp_path)["global_step"] == 18
    assert launch(tmp_path, command) == [0]
    assert_same_end(tmp_path, whole)
    steps = [int(line.split(",")[0]) for line in (tmp_path / "metrics.csv").read_text().splitlines()[1:]]
    assert steps == sorted(set(steps)) and {1, 11, 15, 23} <= set(steps)


def test_two_tasks_leave_together_and_two_killed_processes_go_on(data, whole, tmp_path):
    """One task is told at step 8; both leave at the next step at which they ask each other."""
    command = options(data, tmp_path, 24, 6, *MORE, "--ckpt_path=last")
    codes = launch(tmp_path, [*command, callback("SignalAt", step=8, signum=15, rank=1)], 2, srun)
    assert codes == [128 + signal.SIGTERM] * 2
    assert checkpoint(tmp_path)["global_step"] == 10
    codes = launch(tmp_path, [*command, callback("SignalAt", step=16, signum=9)], 2, torchrun)
    assert codes == [-signal.SIGKILL] * 2
    assert checkpoint(tmp_path)["global_step"] == 12
    assert launch(tmp_path, command, 2, torchrun) == [0, 0]
    assert_same_end(tmp_path, whole)


def test_ctrl_c_saves_before_leaving(data, tmp_path):
    command = options(data, tmp_path, 24, 24, "--trainer.devices=1", callback("SignalAt", step=3, signum=2))
    assert launch(tmp_path, command) == [128 + signal.SIGINT]
    assert checkpoint(tmp_path)["global_step"] == 3
    assert "Traceback" not in (tmp_path / "output-0.txt").read_text()


def test_a_launchers_processes_need_no_option():
    assert launched({}) is None
    assert launched(torchrun(0, 4, 1) | {"WORLD_SIZE": "8"}) == Launch(4, 2, "torchrun")
    assert launched(srun(0, 16, 1) | {"SLURM_NNODES": "2"}) == Launch(8, 2, "SLURM")
    assert launched(srun(0, 1, 1) | torchrun(0, 4, 1)) == Launch(4, 1, "torchrun")
    assert launched(srun(0, 1, 1) | {"SLURM_JOB_NAME": "interactive"}) is None
    with pytest.raises(ValueError, match="3 processes on 2 nodes"):
        launched(srun(0, 3, 1) | {"SLURM_NNODES": "2"})
