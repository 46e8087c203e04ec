"""What training does beside its steps: weight averaging, checkpoints, validation on prompts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.callbacks import ModelCheckpoint
from torch import Tensor

from clip2latent.diffusion import dpmpp_steps, guided, normal, row_generators, sample
from clip2latent.interfaces import Embedder, Generator
from clip2latent.prompts import read_prompts
from clip2latent.spec import ModelSpec


class PriorAverage(Callback):
    """Exponential moving average of the prior's weights, used by validation and stored as a checkpoint's state_dict.

    A plain load therefore samples with the average; the raw weights are kept under "current_model_state", as in
    Lightning's WeightAveraging. That one swaps buffers too, among them dalle2-pytorch's cached rotary frequencies,
    whose copy is never filled: the model would go on without positions.
    """

    def __init__(self, decay: float = 0.9999, every_n_steps: int = 1) -> None:
        """Builds the average.

        Args:
            decay: the share of the average that an update keeps, at most (1 + n) / (10 + n) at update n.
            every_n_steps: optimizer steps between updates.
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
        if step == self._updated_at or step % self.every_n_steps:
            return
        self._updated_at = step
        update = step // self.every_n_steps
        decay = min(self.decay, (1 + update) / (10 + update))
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
        """Restores both; Lightning has put the average into the model by now."""
        if "current_model_state" in checkpoint:
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


def checkpoints(folder: str | Path, monitor: str, mode: str) -> list[ModelCheckpoint]:
    """Returns the callbacks that keep best.ckpt, by a metric, and last.ckpt, at every validation."""
    return [
        ModelCheckpoint(folder, "best", monitor=monitor, mode=mode, enable_version_counter=False),
        ModelCheckpoint(folder, "last", enable_version_counter=False),
    ]


class PromptValidation(Callback):
    """Draws images for prompts at every validation and logs their CLIP score; the only training code with a generator.

    Logs val/clip_score (guidance 1) and val/clip_score_g{scale} for other scales, and a grid of images: a PNG in the
    run's folder, and to every logger that takes images. Generator and embedder are those the dataset names.
    """

    def __init__(
        self,
        prompts: str | None = None,
        images_per_prompt: int = 4,
        guidance: list[float] = [1.0, 2.0],  # noqa: B006 (never changed; a list is what yaml gives)
        steps: int = 8,
        seed: int = 0,
        chunk: int = 64,
        grid_rows: int = 16,
    ) -> None:
        """Builds the callback.

        Args:
            prompts: prompt file (.txt with one prompt a line, or .jsonl); without one there is no such validation.
            images_per_prompt: images N for each prompt.
            guidance: guidance scales; the first one's score chooses the best checkpoint.
            steps: sampling steps, of DPM-Solver++(2M).
            seed: of the images, the same at every validation.
            chunk: images drawn and scored at a time.
            grid_rows: prompts shown in the grid.
        """
        if not guidance or images_per_prompt < 1 or chunk < 1:
            raise ValueError("guidance needs a scale at least, images_per_prompt and chunk must be positive")
        self.prompts_file, self.images_per_prompt, self.guidance = prompts, images_per_prompt, list(guidance)
        self.steps, self.seed, self.chunk, self.grid_rows = steps, seed, chunk, grid_rows
        self.prompts = [prompt.text for prompt in read_prompts(prompts)] if prompts else []
        self._generator: Generator | None = None
        self._embedder: Embedder | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Loads generator and embedder, so that a wrong one is an error before the first step."""
        if not self.prompts or not trainer.is_global_zero or self._generator is not None:
            return
        dataset = pl_module.dataset
        self._generator = ModelSpec.from_dict(dataset["generator"]).build()
        self._embedder = ModelSpec.from_dict(dataset["embedder"]).build()
        for name, found, expected in (
            ("generator's latent_shape", list(self._generator.latent_shape), list(dataset["latent_shape"])),
            ("embedder's dim", self._embedder.dim, dataset["embedding_dim"]),
        ):
            if found != expected:
                raise ValueError(f"the {name} is {found}, the dataset's is {expected}")

    @torch.no_grad()
    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draws, scores and logs."""
        if not self.prompts or trainer.sanity_checking:
            return
        scores = {}
        if trainer.is_global_zero:
            for index, scale in enumerate(self.guidance):
                images, score = self._draw(pl_module, scale)
                scores[score_name(scale)] = score.mean().item()
                if index == len(self.guidance) - 1:
                    self._show(trainer, images, score)
        for name, score in trainer.strategy.broadcast(scores).items():
            pl_module.log(name, score, prog_bar=True, sync_dist=True)

    def _draw(self, pl_module: LightningModule, scale: float) -> tuple[Tensor, Tensor]:
        """Returns images [P, N, 3, R, R] of the first `grid_rows` prompts, and scores [P, N] of all."""
        device = pl_module.device
        for model in (self._generator, self._embedder):
            if isinstance(model, torch.nn.Module):
                model.to(device)
        text = self._embedder.embed_text(self.prompts).to(device).repeat_interleave(self.images_per_prompt, dim=0)
        rows = row_generators(self.seed, len(self.prompts), self.images_per_prompt)
        table = dpmpp_steps(pl_module.schedule, self.steps)
        shape = (pl_module.space.num_tokens, pl_module.space.width)
        images, scores = [], []
        for start in range(0, len(rows), self.chunk):
            part, rng = text[start : start + self.chunk], rows[start : start + self.chunk]
            denoise = guided(pl_module.prior, pl_module.bridge.texts(part), scale)
            tokens = sample(denoise, normal((len(part), *shape), rng, device), table, rng)
            drawn = self._generator.synthesize(pl_module.space.decode(tokens))
            scores.append((self._embedder.embed_images(drawn) * part).sum(-1).cpu())
            if start < self.grid_rows * self.images_per_prompt:
                images.append(drawn.cpu())
        by_prompt = (-1, self.images_per_prompt)
        shown = torch.cat(images)[: self.grid_rows * self.images_per_prompt].unflatten(0, by_prompt)
        return shown, torch.cat(scores).unflatten(0, by_prompt)

    def _show(self, trainer: Trainer, images: Tensor, scores: Tensor) -> None:
        from clip2latent.images import grid, save_png

        shown = len(images)
        picture = grid(images, self.prompts[:shown], scores[:shown], cell=max(64, min(128, images.shape[-1])))
        folder = Path(trainer.default_root_dir, "grids")
        folder.mkdir(parents=True, exist_ok=True)
        save_png(picture, folder / f"step-{trainer.global_step:07d}.png")
        for logger in trainer.loggers:
            if hasattr(logger, "log_image"):
                logger.log_image("val/images", [picture], step=trainer.global_step)


def score_name(scale: float) -> str:
    """Returns the metric's name for a guidance scale."""
    return "val/clip_score" if scale == 1 else f"val/clip_score_g{scale:g}"
