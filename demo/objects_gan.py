"""Trains the demo's BigGAN on pictures of one object: `python -m demo.objects_gan --work DIR --out DIR`.

Everything about the generator is BigGAN's (Brock et al. 2019, arXiv:1809.11096); the losses are those of `demo.gan`:
relativistic logistic loss, with lazy gradient penalties on both sides. The discriminator sees two pictures of a class
at once, both generated or both drawn (PacGAN, Lin et al. 2018, arXiv:1712.04086), so that the samples of a class may
not all be alike. First at 32 px, then the last block is faded in. The state is written every few minutes; the same
command goes on.
"""

from __future__ import annotations

import argparse
import copy
import json
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader

from clip2latent.generators.biggan import BigGAN, from_official
from clip2latent.generators.class_latents import truncated_normal
from demo.adversarial import gradients, penalty
from demo.biggan import TrainedBigGAN
from demo.discriminator import Discriminator, ScaledConv
from demo.labelled import Renders
from demo.objects_budget import CLASSES, PRESETS, Preset
from demo.training import Log, State, follow, save_asset, step_rng


class Trainer:
    """Owns the networks, their optimisers and their files; `images` counts the real images seen.

    Each resolution has a state of its own, for the discriminator grows between them.
    """

    def __init__(self, preset: Preset, seed: int, work: Path, device: str = "cpu"):
        """Builds everything, as it was where the work folder holds a state.

        Raises:
            ValueError: the state is of a training with other settings.
        """
        self.preset, self.seed, self.work, self.device = preset, seed, work, device
        self.log = Log(work / "log.jsonl")
        torch.manual_seed(seed)
        p = preset
        self.generator = TrainedBigGAN(p.ch, p.dim_z, p.shared_dim, len(CLASSES), p.attention).to(device)
        self.average = copy.deepcopy(self.generator).eval().requires_grad_(False)
        self.optimiser = self._optimiser(self.generator)
        discriminator = Discriminator(32, p.discriminator_base, p.discriminator_max, [len(CLASSES)])
        discriminator.stem = ScaledConv(2 * 3, discriminator.stem.weight.shape[0])
        self._enter(32, discriminator)
        if self._state_path(64).exists():
            self._enter(64, self.discriminator.grow())
        self.images = self.state.load() * p.batch

    def _state_path(self, resolution: int) -> Path:
        return self.work / f"state-{resolution}.pt"

    def _optimiser(self, network: torch.nn.Module) -> torch.optim.Adam:
        return torch.optim.Adam(network.parameters(), lr=self.preset.lr, betas=(0.0, 0.99), fused=True)

    def _enter(self, resolution: int, discriminator: Discriminator) -> None:
        """Makes the discriminator, its optimiser and the state of a resolution the current ones."""
        self.resolution = resolution
        self.discriminator = discriminator.to(self.device)
        self.judging = self._optimiser(self.discriminator)
        parts = {"generator": self.generator, "average": self.average, "discriminator": self.discriminator}
        optimisers = {"optimiser": self.optimiser, "judging": self.judging}
        settings = {"seed": self.seed} | json.loads(json.dumps(asdict(self.preset)))
        self.state = State(self._state_path(resolution), settings, **parts, **optimisers)

    def run(self, save_every: float = 180.0, log_every: int = 100) -> None:
        """Trains to the end of the budget."""
        first, last = self.preset.images_32, self.preset.images_32 + self.preset.images_64
        if self.resolution == 32:
            self._run_to(first, save_every, log_every)
            self._enter(64, self.discriminator.grow())
            self.save()
        self._run_to(last, save_every, log_every)

    def _run_to(self, budget: int, save_every: float, log_every: int) -> None:
        batch = self.preset.batch
        renders = Renders("class_pairs", self.seed, self.images, self.preset.pool)
        loader = iter(DataLoader(renders, batch_size=batch, num_workers=1, prefetch_factor=4))
        last_save = last_log = time.monotonic()
        logged, figures = self.images, {}
        while self.images < budget:
            pixels, labels, _ = next(loader)
            figures |= self.step(pixels, labels)
            now = time.monotonic()
            if self.images // batch % log_every == 0 or self.images >= budget:
                numbers = {name: float(value) for name, value in figures.items()}
                rate = (self.images - logged) / (now - last_log)
                self.log.write(self.images // batch, images=self.images, of=budget, images_per_s=rate, **numbers)
                last_log, logged = now, self.images
            if now - last_save > save_every or self.images >= budget:
                self.save()
                self.grid()
                last_save = now

    def step(self, pixels: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Updates every network by one batch, renders uint8 [B, 3, 64, 64] with labels [B, A], in pairs."""
        preset, number = self.preset, self.images // self.preset.batch
        real, classes = pixels.to(self.device).float() / 127.5 - 1, labels[:, 0].to(self.device)
        if self.resolution == 32:
            real = F.avg_pool2d(real, 2)
        z = truncated_normal(len(real), preset.dim_z, step_rng(self.seed, number)).to(self.device)
        for optimiser in (self.optimiser, self.judging):
            optimiser.param_groups[0]["lr"] = preset.learning_rate(self.images)
            optimiser.zero_grad()
        fake = self.generator(z, classes, self._dtype(), self.preset.share(self.images, self.resolution))
        pairs, drawn, shown = as_pairs(fake), as_pairs(real), classes[::2, None]
        gradient, margin = gradients(self.discriminator, drawn, pairs, shown, self._dtype())
        pairs.backward(gradient)
        figures = {"margin": margin}
        if number % preset.penalty_every == 0:
            some = slice(max(1, len(shown) // 2))
            value = penalty(self.discriminator, drawn[some], pairs.detach()[some], shown[some])
            (value * (0.5 * preset.penalty_weight(self.images) * preset.penalty_every)).backward()
            figures["penalty"] = value.detach()
        self.optimiser.step()
        self.judging.step()
        follow(self.average, self.generator, 0.5 ** (preset.batch / preset.ema_images))
        self.images += len(real)
        return figures

    def _dtype(self) -> torch.dtype:
        return torch.bfloat16 if self.preset.half else torch.float32

    def save(self) -> None:
        """Writes the state."""
        self.state.save(self.images // self.preset.batch)

    def standing(self, batches: int) -> TrainedBigGAN:
        """Returns a copy of the average in eval mode, with the statistics of that many batches of random classes."""
        network, preset = copy.deepcopy(self.average), self.preset
        rng = torch.Generator().manual_seed(self.seed)

        def inputs() -> Iterator[tuple[Tensor, Tensor]]:
            for _ in range(batches):
                z = truncated_normal(100, preset.dim_z, rng)
                classes = torch.arange(100) % len(CLASSES)
                yield z.to(self.device), classes.to(self.device)

        network.standing_statistics_(inputs(), share=self.preset.share(self.images, self.resolution))
        return network

    @torch.no_grad()
    def grid(self, columns: int = 10) -> None:
        """Draws every class, two in a row, by the average generator, to look at."""
        count = len(CLASSES) * columns
        z = truncated_normal(count, self.preset.dim_z, torch.Generator().manual_seed(0)).to(self.device)
        classes = torch.arange(count, device=self.device) // columns
        images = self.standing(4)(z, classes, share=self.preset.share(self.images, self.resolution))
        pixels = images.add(1).mul(127.5).round().byte().cpu().numpy()
        side = pixels.shape[-1]
        rows = pixels.reshape(-1, 2 * columns, 3, side, side).transpose(0, 3, 1, 4, 2)
        sheet = Image.fromarray(np.ascontiguousarray(rows.reshape(len(rows) * side, 2 * columns * side, 3)))
        sheet.save(self.work / f"grid-{self.images:07d}.png")

    @torch.no_grad()
    def export(self, out: Path) -> BigGAN:
        """Writes the average with standing statistics, spectral norm baked, as a folder `load_generator` reads."""
        preset = self.preset
        state = {name: value.cpu() for name, value in self.standing(preset.statistics).official_state().items()}
        generator = from_official(state, **preset.biggan_arguments())
        training = {"world": "single_objects", "seed": self.seed, "preset": asdict(preset), "images": self.images}
        config = {
            "class_path": "clip2latent.generators.biggan.BigGAN",
            "init_args": generator.init_args,
            "training": training,
        }
        save_asset(out, config, generator.state_dict())
        return generator


def as_pairs(images: Tensor) -> Tensor:
    """Puts every two images [B, 3, R, R] one upon the other: [B / 2, 6, R, R]."""
    return images.unflatten(0, (-1, 2)).flatten(1, 2)


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description="Train the demo's class-conditional generator.")
    parser.add_argument("--preset", choices=PRESETS, default="cpu")
    parser.add_argument("--work", type=Path, required=True, help="folder of the training's states, log and grids")
    parser.add_argument("--out", type=Path, required=True, help="folder to write the generator to")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--export_only", action="store_true", help="write the generator as it is now, and stop")
    arguments = parser.parse_args()
    trainer = Trainer(PRESETS[arguments.preset], arguments.seed, arguments.work, arguments.device)
    if not arguments.export_only:
        trainer.run()
    trainer.export(arguments.out)


if __name__ == "__main__":
    main()
