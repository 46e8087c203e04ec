"""What a run saves: last.ckpt, best.ckpt, and the checkpoints of chosen steps, each written whole or not at all."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

import torch
from lightning_fabric.plugins.io.torch_io import TorchCheckpointIO
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import Checkpoint

LAST, BEST = "last.ckpt", "best.ckpt"


class WholeFiles(TorchCheckpointIO):
    """Writes a checkpoint beside its place and moves it there, so that a full disk leaves the one before intact."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Writes a checkpoint.

        Raises:
            OSError: where it cannot be written; what was at `path` is still there.
        """
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.partial")
        try:
            with open(temporary, "wb") as file:
                torch.save(checkpoint, file)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except (OSError, RuntimeError) as error:
            # torch's writer reports a full disk as a RuntimeError of its own.
            cause = next((e for e in (error, error.__cause__, error.__context__) if isinstance(e, OSError)), error)
            raise OSError(
                f"{path} cannot be written ({' '.join(str(cause).split())[:200]}): make room for it and go on with"
                " --ckpt_path last; earlier checkpoints are intact"
            ) from error
        finally:
            temporary.unlink(missing_ok=True)


class Checkpoints(Checkpoint):
    """Keeps last.ckpt, best.ckpt and, in checkpoints/, those of the best scores and of every n-th step.

    A checkpoint is written once; its other names are links to the same file.
    """

    def __init__(self, top_k: int = 1, every_n_steps: int = 0) -> None:
        """Builds the callback.

        Args:
            top_k: the best checkpoints kept; beyond 1 they are kept in checkpoints/, the best one is best.ckpt too.
            every_n_steps: a checkpoint is kept in checkpoints/ every so many steps; 0 for none.
        """
        if top_k < 1 or every_n_steps < 0:
            raise ValueError(f"top_k must be positive and every_n_steps not negative, got {top_k} and {every_n_steps}")
        self.top_k, self.every_n_steps = top_k, every_n_steps
        self.monitor, self.sign = "val/loss", -1
        self.folder = Path()
        self._best: list[list[float]] = []
        self._saved_at = -1

    def watch(self, monitor: str, sign: int) -> None:
        """Sets the metric that orders checkpoints; sign 1 where higher is better, -1 where lower is."""
        self.monitor, self.sign = monitor, sign

    @property
    def best_score(self) -> float | None:
        """The metric's best value, where there is a best.ckpt."""
        return self._best[0][0] if self._best else None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Takes the run's folder."""
        self.folder = Path(trainer.default_root_dir)

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        """Saves at every n-th step."""
        if self.every_n_steps and trainer.global_step % self.every_n_steps == 0:
            self.save(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Saves, and keeps what is among the best."""
        if trainer.state.fn != "fit" or trainer.sanity_checking:
            return
        score = float(trainer.callback_metrics.get(self.monitor, math.nan))
        others = [entry for entry in self._best if entry[1] != trainer.global_step]
        ranked = [*others, *([] if math.isnan(score) else [[score, trainer.global_step]])]
        self._best = sorted(ranked, key=lambda entry: (-self.sign * entry[0], entry[1]))[: self.top_k]
        self.save(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Saves the last steps, where no validation did."""
        if trainer.global_step > max(self._saved_at, 0):
            self.save(trainer)

    def save(self, trainer: Trainer) -> None:
        """Writes last.ckpt and the other names of this step; all processes call it together."""
        self._saved_at = step = trainer.global_step
        fresh = self.folder / ".fresh.ckpt"
        trainer.save_checkpoint(fresh, weights_only=False)
        if not trainer.is_global_zero:
            return
        names = [BEST] if self._best and self._best[0][1] == step else []
        names += [_name(step)] if step in self._kept(step) else []
        for name in names:
            _link(fresh, self.folder / name)
        os.replace(fresh, self.folder / LAST)
        self._tidy()

    def _kept(self, upto: int) -> set[int]:
        best = {int(step) for _, step in self._best} if self.top_k > 1 else set()
        return best | (set(range(self.every_n_steps, upto + 1, self.every_n_steps)) if self.every_n_steps else set())

    def _tidy(self) -> None:
        """Removes what is no longer among the best."""
        for path in (self.folder / "checkpoints").glob("step-*.ckpt"):
            digits = path.stem.removeprefix("step-")
            if digits.isdigit() and int(digits) not in self._kept(int(digits)):
                path.unlink()

    def state_dict(self) -> dict[str, Any]:
        """Returns the best scores and their steps, best first."""
        return {"monitor": self.monitor, "best": self._best}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restores the best scores, unless they were of another metric."""
        if state_dict["monitor"] == self.monitor:
            self._best = [list(entry) for entry in state_dict["best"]]


def _name(step: int) -> str:
    return f"checkpoints/step-{step:07d}.ckpt"


def _link(source: Path, target: Path) -> None:
    """Makes `target` another name of `source`, or a copy where the file system has no links."""
    import shutil

    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.partial")
    temporary.unlink(missing_ok=True)
    try:
        os.link(source, temporary)
    except OSError:
        shutil.copyfile(source, temporary)
    os.replace(temporary, target)
