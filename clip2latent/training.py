"""PriorTraining: the diffusion prior's loss, its noise, its optimizer."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from pytorch_lightning import LightningModule
from torch import Tensor
from torch.nn import functional as F

from clip2latent.bridge import Bridge
from clip2latent.checkpoint import CONFIG_KEY, check_same_models, describe
from clip2latent.data import Pairs
from clip2latent.diffusion import Schedule
from clip2latent.latents import LatentSpace
from clip2latent.prior import LatentPrior

_FUSED = ("cpu", "cuda")


class Share(NamedTuple):
    """This process's share of a global batch: part `rank` of `world_size` equal ones.

    Random numbers are drawn for the global batch and cut, so that W processes with B pairs each compute what one
    process with W * B pairs does.
    """

    rank: int = 0
    world_size: int = 1

    def of(self, draw: Callable[[int], Tensor], batch: int) -> Tensor:
        """Returns this process's `batch` rows of what `draw` gives for all rows."""
        return draw(batch * self.world_size)[self.rank * batch : (self.rank + 1) * batch]


def pseudo_text(embeddings: Tensor, scale: float, rng: torch.Generator, share: Share = Share()) -> Tensor:  # noqa: B008
    """Makes image embeddings pass for text embeddings: e' = normalise(e + scale n / |n|), n normal.

    Scale 1 turns an embedding by 45 degrees (Pinkney and Li 2022, section 3; Zhou et al. 2022, LAFITE, eq. 2).

    Args:
        embeddings: [B, E], unit norm.
        scale: norm of the noise relative to the embedding's; 0 is none.
        rng: on the embeddings' device.
        share: of the global batch, that these embeddings are.
    """
    if not scale:
        return embeddings
    batch, width = embeddings.shape
    like = {"device": embeddings.device, "dtype": embeddings.dtype}
    noise = share.of(lambda rows: torch.randn(rows, width, generator=rng, **like), batch)
    return F.normalize(embeddings + scale * F.normalize(noise, dim=-1), dim=-1)


class PriorTraining(LightningModule):
    """Trains a `LatentPrior` to predict standardised latents from noised ones and a pseudo-text embedding.

    Holds only the prior and the latent space: checkpoints then contain neither generator nor CLIP.
    """

    def __init__(
        self,
        dataset: dict[str, Any],
        dim: int = 512,
        depth: int = 12,
        heads: int = 12,
        dim_head: int = 64,
        timesteps: int = 1000,
        noise_scale: float = 1.0,
        centre: bool = False,
        condition_dropout: float = 0.2,
        learning_rate: float = 1e-4,
        weight_decay: float = 1e-2,
        betas: tuple[float, float] = (0.9, 0.999),
        warmup_steps: int = 0,
        cosine_decay: bool = False,
        guidance: float = 2.0,
        compile: bool = False,
        seed: int = 0,
    ) -> None:
        """Builds the prior for a dataset's shapes.

        Args:
            dataset: dataset.json's content; the command line takes it from the data.
            dim: width of the transformer.
            depth: layers of the transformer.
            heads: attention heads.
            dim_head: width of a head.
            timesteps: training timesteps T.
            noise_scale: norm of the pseudo-text noise relative to the embedding; 0 for none.
            centre: whether images' and texts' embeddings are centred by their modality's mean first; the dataset must
                hold the mean of texts (datagen's --texts).
            condition_dropout: share of rows whose embedding is dropped, for guidance; 0 trains without.
            learning_rate: of AdamW.
            weight_decay: of AdamW, on matrices; gains and biases are not decayed.
            betas: of AdamW.
            warmup_steps: steps over which the learning rate rises from 0.
            cosine_decay: whether the learning rate then falls to 0 at the last step.
            guidance: guidance scale recommended to those who sample, kept in the checkpoint.
            compile: whether training steps run through torch.compile; the first one then takes a minute or so.
            seed: of the noise, timesteps and dropout.
        """
        super().__init__()
        if noise_scale < 0 or not 0 <= condition_dropout < 1:
            raise ValueError(
                f"noise_scale must not be negative and condition_dropout be in [0, 1),"
                f" got {noise_scale} and {condition_dropout}"
            )
        self.dataset = dataset
        self.noise_scale, self.condition_dropout, self.guidance, self.seed = (
            noise_scale,
            condition_dropout,
            guidance,
            seed,
        )
        self.learning_rate, self.weight_decay, self.betas = learning_rate, weight_decay, tuple(betas)
        self.warmup_steps, self.cosine_decay = warmup_steps, cosine_decay
        mean, std = (torch.tensor(dataset[f"latent_{name}"], dtype=torch.float64) for name in ("mean", "std"))
        self.space = LatentSpace(dataset["groups"], mean, std)
        self.bridge = Bridge.of(dataset, centre)
        self.prior = LatentPrior(
            embedding_dim=dataset["embedding_dim"],
            latent_dim=self.space.width,
            num_tokens=self.space.num_tokens,
            dim=dim,
            depth=depth,
            heads=heads,
            dim_head=dim_head,
            timesteps=timesteps,
        )
        self.compile_steps = compile
        self._compiled: Callable[..., Tensor] | None = None
        self.schedule = Schedule.cosine(timesteps)
        abar = self.schedule.alphas_cumprod
        self.register_buffer("_signal", abar.sqrt().float(), persistent=False)
        self.register_buffer("_noise", (1 - abar).sqrt().float(), persistent=False)

    def loss(
        self,
        pairs: Pairs,
        rng: torch.Generator,
        share: Share = Share(),  # noqa: B008
        predict: Callable[..., Tensor] | None = None,
    ) -> Tensor:
        """Returns the mean squared error of x0 in standardised space, a scalar (Ramesh et al. 2022, eq. 2).

        Args:
            pairs: latents [B, K, D] and embeddings [B, E].
            rng: source of timesteps, noise and dropout, on the pairs' device; the same on every process.
            share: of the global batch, that these pairs are.
            predict: a faster form of the prior; the prior itself where it is None.
        """
        x0 = self.space.standardise(pairs.latents)
        batch, device = len(x0), x0.device
        t = share.of(lambda rows: torch.randint(self.schedule.timesteps, (rows,), generator=rng, device=device), batch)
        noise = share.of(lambda rows: torch.randn(rows, *x0.shape[1:], generator=rng, device=device), batch)
        x = self._signal[t, None, None] * x0 + self._noise[t, None, None] * noise
        condition = pseudo_text(self.bridge.images(pairs.embeddings), self.noise_scale, rng, share)
        kept = share.of(lambda rows: torch.rand(rows, generator=rng, device=device), batch) >= self.condition_dropout
        return F.mse_loss((predict or self.prior)(x, t, condition, kept).float(), x0)

    def on_fit_start(self) -> None:
        """Compiles the prior, if asked to; its weights keep their names."""
        if self.compile_steps:
            self._compiled = torch.compile(self.prior.forward, dynamic=False)

    def training_step(self, batch: Pairs, batch_idx: int) -> Tensor:
        """Returns the loss of a batch; its noise is a function of (seed, batch), fresh at every step."""
        share = Share(self.global_rank, self.trainer.world_size)
        loss = self.loss(batch, self._rng(0, self.trainer.fit_loop.total_batch_idx, 0), share, self._compiled)
        self.log("train/loss", loss, prog_bar=True)
        return loss

    def validation_step(self, batch: Pairs, batch_idx: int) -> None:
        """Logs val/loss over held-out pairs, with the same noise every time."""
        self._log_loss("val/loss", batch, batch_idx)

    def test_step(self, batch: Pairs, batch_idx: int) -> None:
        """Logs test/loss over held-out pairs."""
        self._log_loss("test/loss", batch, batch_idx)

    def _log_loss(self, name: str, batch: Pairs, batch_idx: int) -> None:
        loss = self.loss(batch, self._rng(1, batch_idx, 0))
        self.log(name, loss, prog_bar=True, batch_size=len(batch.embeddings), sync_dist=True)

    def configure_optimizers(self) -> dict[str, Any]:
        """Returns AdamW with linear warm-up and, where asked for, cosine decay to 0 at the last step."""
        parameters = [parameter for parameter in self.prior.parameters() if parameter.requires_grad]
        groups = [
            {"params": [parameter for parameter in parameters if parameter.ndim > 1]},
            {"params": [parameter for parameter in parameters if parameter.ndim < 2], "weight_decay": 0.0},
        ]
        optimizer = torch.optim.AdamW(
            [group for group in groups if group["params"]],
            lr=self.learning_rate,
            betas=self.betas,
            weight_decay=self.weight_decay,
            fused=self.device.type in _FUSED,
        )
        # A fused step could divide by a gradient scaler's factor by itself, and Lightning therefore refuses to clip
        # gradients before one; without this promise the scaler divides first, where there is one, and all may clip.
        optimizer._step_supports_amp_scaling = False
        total = self.trainer.estimated_stepping_batches if self.cosine_decay else math.inf

        def factor(step: int) -> float:
            if step < self.warmup_steps:
                return (step + 1) / (self.warmup_steps + 1)
            if math.isinf(total):
                return 1.0
            done = (step - self.warmup_steps) / max(1, total - self.warmup_steps)
            return 0.5 + 0.5 * math.cos(math.pi * min(1.0, done))

        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Adds the description that makes the checkpoint usable without its training run."""
        checkpoint[CONFIG_KEY] = describe(
            self.prior,
            self.space,
            self.bridge,
            self.dataset,
            self.noise_scale,
            self.guidance,
            training={"condition_dropout": self.condition_dropout},
        )

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuses to go on with a dataset of another generator or embedder."""
        if CONFIG_KEY in checkpoint:
            check_same_models(checkpoint[CONFIG_KEY], self.dataset)

    def _rng(self, *entropy: int) -> torch.Generator:
        state = np.random.SeedSequence([self.seed, *entropy]).generate_state(1, np.uint64)[0]
        return torch.Generator(self.device).manual_seed(int(state >> np.uint64(1)))
