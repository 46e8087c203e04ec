"""Progress of a training: its bar, its speed, and what validation costs it."""

from __future__ import annotations

import time
from typing import Any

from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.callbacks import TQDMProgressBar

_REFRESH_S = 0.5


class TrainingBar(TQDMProgressBar):
    """The bar of a training: steps of all, it/s, time left, loss, samples/s.

    It is redrawn by the clock: reading the loss waits for the device, which a redraw at each step would do each step.
    """

    def __init__(self) -> None:
        """Builds the bar."""
        super().__init__()
        self._drawn_at = 0.0

    def on_train_epoch_start(self, trainer: Trainer, *_: Any) -> None:
        """Starts the bar where the training goes on, so that rate and time left are of this process alone."""
        super().on_train_epoch_start(trainer, *_)
        bar = self.train_progress_bar
        bar.initial = bar.n = trainer.fit_loop.epoch_loop.batch_progress.current.ready
        bar.set_description("training")

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Redraws, where it is time."""
        now = time.monotonic()
        if now - self._drawn_at >= _REFRESH_S or batch_idx + 1 == self.train_progress_bar.total:
            self._drawn_at = now
            super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)

    def get_metrics(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, Any]:
        """Returns what stands behind the bar, by short names."""
        metrics = super().get_metrics(trainer, pl_module)
        metrics.pop("v_num", None)
        return {
            name.removeprefix("train/"): f"{value:.4g}" if isinstance(value, float) else value
            for name, value in metrics.items()
        }


class Speed(Callback):
    """Logs train/samples_per_s and train/steps_per_s, of all processes together and without validations.

    train/validation_share is the part of the time since the start that validations took, checkpoints included.
    """

    def __init__(self) -> None:
        """Builds the callback."""
        self._started = self._since = self._paused_at = self._validating = 0.0
        self._from_step = 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Starts the clock."""
        self._started = self._since = time.monotonic()
        self._from_step, self._validating, self._paused_at = trainer.global_step, 0.0, 0.0

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stops the clock."""
        if self._started:
            self._paused_at = time.monotonic()

    def on_train_batch_start(self, *_: Any) -> None:
        """Lets the clock go on after a validation and its checkpoints."""
        if self._paused_at:
            pause = time.monotonic() - self._paused_at
            self._since += pause
            self._validating += pause
            self._paused_at = 0.0

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Logs, as often as the losses are."""
        now, step = time.monotonic(), trainer.global_step
        if step == self._from_step or step % trainer.log_every_n_steps:
            return
        rate = (step - self._from_step) / max(now - self._since, 1e-9)
        samples = len(batch.embeddings) * trainer.world_size * trainer.accumulate_grad_batches
        pl_module.log("train/samples_per_s", rate * samples, prog_bar=True)
        pl_module.log("train/steps_per_s", rate)
        pl_module.log("train/validation_share", self._validating / max(now - self._started, 1e-9))
        self._since, self._from_step = now, step
