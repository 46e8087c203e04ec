"""LeaveOnSignal: SIGTERM and Ctrl-C end a training after the step it is in, saved."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any

from pytorch_lightning import Callback, LightningModule, Trainer

from clip2latent.saving import LAST, Checkpoints


class Left(Exception):
    """A training was asked to end, and has saved.

    Attributes:
        signum: the signal that asked.
    """

    def __init__(self, signum: int, message: str) -> None:
        """Stores both."""
        super().__init__(message)
        self.signum = signum


class LeaveOnSignal(Callback):
    """Saves last.ckpt and raises `Left` at the end of the step in which a signal came; a second one ends at once.

    Several processes leave at the same step, whichever of them was told: they ask each other every `agree_every`
    steps. Lightning's own handler for SIGTERM broadcasts wherever a process stands, also in the middle of a step.
    """

    def __init__(self, saved: Checkpoints, agree_every: int = 10) -> None:
        """Takes what saves, and how often several processes ask each other."""
        self.saved, self.agree_every = saved, agree_every
        self._signum = 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Takes the signals over; Lightning gives all of them back when the trainer ends."""
        if threading.current_thread() is threading.main_thread():
            for signum in (signal.SIGTERM, signal.SIGINT):
                signal.signal(signum, self._note)

    def _note(self, signum: int, frame: FrameType | None) -> None:
        self._signum = signum
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        """Leaves, if asked to."""
        step = trainer.global_step
        asked = self._signum != 0
        if trainer.world_size > 1:
            if step % self.agree_every:
                return
            asked = trainer.strategy.reduce_boolean_decision(asked, all=False)
        if asked and step != trainer.max_steps:
            self.saved.save(trainer)
            raise Left(
                self._signum or signal.SIGTERM,
                f"stopped at step {step}, saved {self.saved.folder / LAST}: go on with --ckpt_path last",
            )
