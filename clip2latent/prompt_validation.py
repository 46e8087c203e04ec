"""PromptValidation: what the prior draws for prompts, scored beside what tells whether it works."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from torch import Tensor

from clip2latent.data import Pairs
from clip2latent.diffusion import dpmpp_steps, guided, normal, row_generators, sample
from clip2latent.interfaces import Embedder, Generator
from clip2latent.prompts import read_prompts
from clip2latent.spec import ModelSpec


class Drawn(NamedTuple):
    """What was drawn for a batch of conditions.

    Attributes:
        images: [B', 3, R, R], the first B' <= B of them, on the CPU.
        embeddings: of all of them [B, E], on the CPU.
    """

    images: Tensor
    embeddings: Tensor


class PromptValidation(Callback):
    """Draws images for prompts at every validation and logs their CLIP score; the only training code with a generator.

    Logs, under val/ or test/: clip_score (guidance 1) and clip_score_g{scale} for other scales; clip_score_random, of
    latents the generator draws by itself; clip_score_shuffled, of the images with the other prompts; image_score, how
    near images conditioned on held-out image embeddings come to them. A prior that works leaves the first two behind.
    A grid of images goes into the run's folder as a PNG, and to every logger that takes images. Generator and embedder
    are those the dataset names.
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
        held_out: int = 64,
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
            held_out: held-out image embeddings to draw for; 0 for none.
        """
        if not guidance or images_per_prompt < 1 or chunk < 1 or held_out < 0:
            raise ValueError(
                "guidance needs a scale at least, images_per_prompt and chunk must be positive, held_out not negative"
            )
        self.prompts_file, self.images_per_prompt, self.guidance = prompts, images_per_prompt, list(guidance)
        self.steps, self.seed, self.chunk, self.grid_rows = steps, seed, chunk, grid_rows
        self.held_out = held_out
        self.prompts = [prompt.text for prompt in read_prompts(prompts)] if prompts else []
        self._generator: Generator | None = None
        self._embedder: Embedder | None = None
        self._texts = torch.empty(0)
        self._pictures = torch.empty(0)
        self._random_score: float | None = None

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
        for model in (self._generator, self._embedder):
            if isinstance(model, torch.nn.Module):
                model.to(pl_module.device)
        self._texts = self._embedder.embed_text(self.prompts).detach().float().cpu()

    def on_validation_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: object, batch: Pairs, *_: object
    ) -> None:
        """Keeps the first held-out embeddings, once."""
        if self.prompts and len(self._pictures) < self.held_out:
            room = self.held_out - len(self._pictures)
            self._pictures = torch.cat([self._pictures, batch.embeddings[:room].float().cpu()])

    on_test_batch_end = on_validation_batch_end

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draws, scores and logs."""
        if self.prompts and not trainer.sanity_checking:
            self._run(trainer, pl_module, "val")

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draws, scores and logs."""
        if self.prompts:
            self._run(trainer, pl_module, "test")

    @torch.no_grad()
    def _run(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        scores = self._scores(trainer, pl_module, stage) if trainer.is_global_zero else {}
        best_by = score_name(self.guidance[0], stage)
        for name, score in trainer.strategy.broadcast(scores).items():
            pl_module.log(name, score, prog_bar=name == best_by, sync_dist=True)

    def _scores(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> dict[str, float]:
        num, texts = self.images_per_prompt, self._texts
        conditions = pl_module.bridge.texts(texts.to(pl_module.device)).repeat_interleave(num, dim=0)
        scores: dict[str, float] = {}
        for scale in self.guidance:
            rows = row_generators(self.seed, len(texts), num)
            drawn = self._draw(pl_module, conditions, rows, scale, shown=self.grid_rows * num)
            similar = torch.einsum("pne,qe->pnq", drawn.embeddings.unflatten(0, (-1, num)), texts)
            own = similar.diagonal(dim1=0, dim2=2).T  # [P, N]
            scores[score_name(scale, stage)] = own.mean().item()
            if scale == self.guidance[0] and len(texts) > 1:
                others = similar.sum() - own.sum()
                scores[f"{stage}/clip_score_shuffled"] = (others / (similar.numel() - own.numel())).item()
        self._show(trainer, f"{stage}/images", drawn.images.unflatten(0, (-1, num)), own, scale)
        if self._random_score is None:
            self._random_score = (self._random(len(conditions), pl_module.device) @ texts.T).mean().item()
        scores[f"{stage}/clip_score_random"] = self._random_score
        if len(self._pictures):
            pictures = pl_module.bridge.images(self._pictures.to(pl_module.device))
            drawn = self._draw(pl_module, pictures, row_generators(self.seed, len(pictures), 1), 1.0, shown=0)
            scores[f"{stage}/image_score"] = (drawn.embeddings * self._pictures).sum(-1).mean().item()
        return scores

    def _draw(
        self,
        pl_module: LightningModule,
        conditions: Tensor,
        rows: Sequence[torch.Generator],
        scale: float,
        shown: int,
    ) -> Drawn:
        """Draws an image for each condition [B, E], with noise from its own generator."""
        table = dpmpp_steps(pl_module.schedule, self.steps)
        shape = (pl_module.space.num_tokens, pl_module.space.width)
        images, embeddings = [], []
        for start in range(0, len(rows), self.chunk):
            part, rng = conditions[start : start + self.chunk], rows[start : start + self.chunk]
            noise = normal((len(part), *shape), rng, part.device)
            tokens = sample(guided(pl_module.prior, part, scale), noise, table, rng)
            drawn = self._generator.synthesize(pl_module.space.decode(tokens))
            embeddings.append(self._embedder.embed_images(drawn).float().cpu())
            images.append(drawn[: max(0, shown - start)].float().cpu())
        return Drawn(torch.cat(images), torch.cat(embeddings))

    def _random(self, num: int, device: torch.device) -> Tensor:
        """Returns the embeddings [num, E] of images of latents from the generator's own distribution."""
        latents = self._generator.sample_latents(num, torch.Generator().manual_seed(self.seed))
        parts = (self._generator.synthesize(part.to(device)) for part in latents.split(self.chunk))
        return torch.cat([self._embedder.embed_images(images).float().cpu() for images in parts])

    def _show(self, trainer: Trainer, name: str, images: Tensor, scores: Tensor, scale: float) -> None:
        """Lays out images [P', N, 3, R, R] and their scores [P, N], and hands the picture out."""
        from clip2latent.images import grid, save_png

        shown = len(images)
        picture = grid(images, self.prompts[:shown], scores[:shown], cell=max(64, min(128, images.shape[-1])))
        step, stage = trainer.global_step, name.split("/")[0]
        folder = Path(trainer.default_root_dir, "grids")
        folder.mkdir(parents=True, exist_ok=True)
        save_png(picture, folder / f"{'' if stage == 'val' else f'{stage}-'}step-{step:07d}.png")
        caption = f"step {step}, guidance {scale:g}, score {scores.mean():.4f}"
        for logger in trainer.loggers:
            if hasattr(logger, "log_image"):
                logger.log_image(name, [picture], step=step, caption=[caption])
            elif hasattr(logger.experiment, "add_image"):  # TensorBoard
                import numpy as np

                logger.experiment.add_image(name, np.asarray(picture), step, dataformats="HWC")


def score_name(scale: float, stage: str = "val") -> str:
    """Returns the metric's name for a guidance scale."""
    return f"{stage}/clip_score" if scale == 1 else f"{stage}/clip_score_g{scale:g}"
