"""PriorAverage: the exponential moving average of a prior's weights while it trains."""

from __future__ import annotations

from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from torch import Tensor


class PriorAverage(Callback):
    """Exponential moving average of the prior's weights, used by validation and stored as a checkpoint's state_dict.

    A plain load therefore samples with the average; the raw weights are kept under "current_model_state", as in
    Lightning's WeightAveraging. That one averages buffers too, and copies all of the module.
    """

    def __init__(self, decay: float = 0.9999, every_n_steps: int = 10) -> None:
        """Builds the average; the defaults are the paper's (Pinkney and Li 2022, appendix A.2).

        Args:
            decay: the share of the average that an update keeps, at most (1 + n) / (10 + n) at update n.
            every_n_steps: optimizer steps between updates; before the first one the average is the weights themselves.
        """
        if not 0 <= decay < 1 or every_n_steps < 1:
            raise ValueError(f"decay must be in [0, 1) and every_n_steps positive, got {decay} and {every_n_steps}")
        self.decay, self.every_n_steps = decay, every_n_steps
        self._average: dict[str, Tensor] = {}
        self._raw: dict[str, Tensor] = {}
        self._updated_at = 0

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Starts the average at the prior's weights, unless a checkpoint brought one."""
        for name, weight in _weights(pl_module).items():
            self._average[name] = self._average.get(name, weight).detach().clone().to(weight.device)

    @torch.no_grad()
    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        """Updates the average after an optimizer step."""
        step = trainer.global_step
        update = step // self.every_n_steps
        if step == self._updated_at or (update and step % self.every_n_steps):
            return
        self._updated_at = step
        decay = min(self.decay, (1 + update) / (10 + update)) if update else 0.0
        torch._foreach_lerp_(list(self._average.values()), list(_weights(pl_module).values()), 1 - decay)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Puts the average into the prior."""
        if self._average and not self._raw:
            self._raw = _put(pl_module, self._average)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Puts the raw weights back."""
        if self._raw:
            _put(pl_module, self._raw)
            self._raw = {}

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Puts the raw weights back, where validation was interrupted."""
        self.on_validation_end(trainer, pl_module)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leaves the average in the prior."""
        _put(pl_module, self._average)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Stores the average under "state_dict" and the raw weights under "current_model_state"."""
        if self._average and not self._raw:
            checkpoint["current_model_state"] = checkpoint["state_dict"]
            averaged = {f"prior.{name}": weight for name, weight in self._average.items()}
            checkpoint["state_dict"] = {**checkpoint["state_dict"], **averaged}

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Restores both to train on; Lightning has put the average into the model by now, for all that only look."""
        if trainer.training and "current_model_state" in checkpoint:
            state = checkpoint["state_dict"]
            self._average = {name: state[f"prior.{name}"].clone() for name in _weights(pl_module)}
            pl_module.load_state_dict(checkpoint["current_model_state"])

    def state_dict(self) -> dict[str, Any]:
        """Returns the step of the last update."""
        return {"updated_at": self._updated_at}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restores the step of the last update."""
        self._updated_at = state_dict["updated_at"]


def _weights(pl_module: LightningModule) -> dict[str, Tensor]:
    return {name: weight for name, weight in pl_module.prior.named_parameters() if weight.requires_grad}


@torch.no_grad()
def _put(pl_module: LightningModule, weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Copies weights into the prior and returns those it had."""
    current = _weights(pl_module)
    before = {name: weight.detach().clone() for name, weight in current.items()}
    for name, weight in current.items():
        weight.copy_(weights[name])
    return before
