"""Trainings in processes of their own, as a shell, torchrun or SLURM starts them; what they import is imported once."""

from __future__ import annotations

import multiprocessing
import multiprocessing.forkserver
import os
import resource
import signal
import socket
import sys
from pathlib import Path
from unittest import mock

from pytorch_lightning import Callback

from clip2latent import cli_train

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["launched", "tiny_pairs"])

SIZES = (
    "--data.batch_size=64",
    "--model.dim=16",
    "--model.depth=1",
    "--model.heads=2",
    "--model.dim_head=8",
    "--model.learning_rate=0.003",
    "--trainer.accelerator=cpu",
    "--trainer.enable_model_summary=false",
    "--trainer.enable_progress_bar=false",
    "--trainer.log_every_n_steps=2",
)


class SignalAt(Callback):
    """Sends this process a signal at the end of a step, on one process or all."""

    def __init__(self, step: int, signum: int, rank: int | None = None) -> None:
        self.step, self.signum, self.rank = step, signum, rank

    def on_train_batch_end(self, trainer, *_):
        if trainer.global_step == self.step and self.rank in (None, trainer.global_rank):
            os.kill(os.getpid(), self.signum)


class SmallFilesFrom(Callback):
    """Lets no file grow beyond some bytes from a step on, as a full disk would."""

    def __init__(self, step: int, limit: int) -> None:
        self.step, self.limit = step, limit

    def on_train_batch_end(self, trainer, *_):
        if trainer.global_step == self.step:
            resource.setrlimit(resource.RLIMIT_FSIZE, (self.limit, resource.RLIM_INFINITY))


def options(data: Path, folder: Path, steps: int, interval: int, *more: str) -> list[str]:
    """The command line of a small training."""
    return [
        "fit",
        f"--data.path={data}",
        f"--trainer.default_root_dir={folder}",
        f"--trainer.max_steps={steps}",
        f"--trainer.val_check_interval={interval}",
        *SIZES,
        *more,
    ]


def torchrun(rank: int, processes: int, port: int) -> dict[str, str]:
    """The environment torchrun gives a process on one machine."""
    return {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "GROUP_RANK": "0",
        "WORLD_SIZE": str(processes),
        "LOCAL_WORLD_SIZE": str(processes),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "TORCHELASTIC_RUN_ID": "test",
    }


def srun(rank: int, processes: int, port: int) -> dict[str, str]:
    """The environment srun gives a task on one node."""
    return {
        "SLURM_NTASKS": str(processes),
        "SLURM_NTASKS_PER_NODE": str(processes),
        "SLURM_NNODES": "1",
        "SLURM_PROCID": str(rank),
        "SLURM_LOCALID": str(rank),
        "SLURM_NODEID": "0",
        "SLURM_NODELIST": "127.0.0.1",
        "SLURM_JOB_ID": "12345",
        "SLURM_JOB_NAME": "prior",
        "MASTER_PORT": str(port),
    }


def launch(folder: Path, arguments: list[str], processes: int = 1, launcher=None) -> list[int]:
    """Runs a training and returns the processes' exit codes, negative where a signal ended them.

    What they print goes to output-0.txt and so on, in a folder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    here = os.pathsep.join([str(Path(__file__).parent), str(Path(cli_train.__file__).parents[1])])
    with mock.patch.dict(os.environ, PYTHONPATH=here):  # the server would not find what it is to import
        multiprocessing.forkserver.ensure_running()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    started = []
    for rank in range(processes):
        environment = launcher(rank, processes, port) if launcher else {}
        output = folder / f"output-{rank}.txt"
        started.append(_CONTEXT.Process(target=_train, args=(arguments, environment, str(output))))
        started[-1].start()
    for process in started:
        process.join(240)
        if process.is_alive():
            process.kill()
    return [process.exitcode for process in started]


def _train(arguments: list[str], environment: dict[str, str], output: str) -> None:
    os.environ.update(environment)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    file = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for stream in (1, 2):
        os.dup2(file, stream)
    sys.argv = ["train.py"]
    code = cli_train.main(arguments)
    sys.stdout.flush()
    sys.stderr.flush()
    sys.exit(code)
