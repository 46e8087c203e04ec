"""Trains the demo's BigGAN on pictures of one object: `python -m demo.objects_gan --work DIR --out DIR`.

Everything about the generator is BigGAN's (Brock et al. 2019, arXiv:1809.11096). It starts as the decoder of a
conditional variational autoencoder (Kingma and Welling 2014, arXiv:1312.6114), which learns in minutes what is where,
blurred; then a discriminator sharpens it, as in Larsen et al. 2016, arXiv:1512.09300: at first half of the generated
images are reconstructions, the others are drawn from z at random; the former's share and weight fall to nothing. The
discriminator starts as the encoder; adversarial losses are those of `demo.gan`. The state is written every few
minutes; the same command goes on.
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
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader

from clip2latent.generators.biggan import BigGAN, from_official
from clip2latent.generators.class_latents import truncated_normal
from demo.adversarial import gradients, penalty
from demo.biggan import TrainedBigGAN
from demo.discriminator import Discriminator
from demo.labelled import Renders
from demo.objects_budget import CLASSES, PRESETS, Preset
from demo.objects_encoder import Encoder, divergence
from demo.single_objects import ATTRIBUTES
from demo.training import Log, State, follow, save_asset, step_rng


class Trainer:
    """Owns the networks, their optimisers and their files; `images` counts the renders seen."""

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
        self.encoder = Encoder(p.base, p.widest, len(CLASSES), p.dim_z).to(device)
        self.discriminator = Discriminator(64, p.base, p.widest, [len(v) for v in ATTRIBUTES.values()]).to(device)
        names = ("generator", "average", "encoder", "discriminator")
        networks = {name: getattr(self, name) for name in names}
        self.optimisers = {
            f"{name}_optimiser": torch.optim.Adam(networks[name].parameters(), fused=True)
            for name in ("generator", "encoder", "discriminator")
        }
        settings = {"seed": seed} | json.loads(json.dumps(asdict(preset)))
        self.state = State(work / "state.pt", settings, **networks, **self.optimisers)
        self.images = self.state.load() * p.batch

    def run(self, save_every: float = 180.0, log_every: int = 200) -> None:
        """Trains to the end of the budget."""
        batch, budget = self.preset.batch, self.preset.start + self.preset.images
        renders = Renders("single_objects", self.seed, self.images, self.preset.pool)
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
        """Updates every network by one batch, renders uint8 [B, 3, 64, 64] with labels [B, 3]; returns figures."""
        preset, judged = self.preset, self.images >= self.preset.start
        real, labels = pixels.to(self.device).float() / 127.5 - 1, labels.to(self.device)
        for optimiser in self.optimisers.values():
            optimiser.param_groups[0] |= {
                "lr": preset.learning_rate(self.images),
                "betas": (0.0 if judged else 0.5, 0.99),
            }
            optimiser.zero_grad()
        if judged and self.images < preset.start + preset.batch:
            self.discriminator.load_state_dict(self.encoder.trunk(), strict=False)
        copies = preset.copies(self.images)
        rng = step_rng(self.seed, self.images // preset.batch)
        z = truncated_normal(len(real) - copies, preset.dim_z, rng).to(self.device)
        if copies:
            mean, log_variance = self.encoder(real[:copies], labels[:copies, 0], self._dtype())
            noise = torch.randn(mean.shape, generator=rng).to(self.device)
            z = torch.cat([mean + (0.5 * log_variance).exp() * noise, z])
        images = self.generator(z, labels[:, 0], self._dtype())
        figures, losses = {}, []
        if copies:
            squares = (images[:copies] - real[:copies]).square()
            paid = divergence(mean, log_variance).mean()
            bound = squares.sum(dim=(1, 2, 3)).mean() / (2 * preset.deviation**2)
            losses.append(bound + preset.divergence_weight(self.images) * paid)
            figures = {"squares": squares.detach().mean(), "divergence": paid.detach()}
        if judged:
            shown = labels.clone()
            shown[copies:, 1:] = -1  # of a z at random only the class is known
            figures |= self._accumulate(real, images, shown, losses)
        else:
            losses[0].backward()
        for optimiser in self.optimisers.values():
            optimiser.step()
        follow(self.average, self.generator, 0.5 ** (preset.batch / preset.ema_images))
        self.images += len(real)
        return figures

    def _accumulate(self, real: Tensor, images: Tensor, shown: Tensor, losses: list[Tensor]) -> dict[str, Tensor]:
        """Adds every network's gradients of a step with the discriminator; losses are those of the reconstruction."""
        preset = self.preset
        gradient, margin = gradients(self.discriminator, real, images, shown, self._dtype())
        if self.images < preset.start + preset.alone:
            gradient.zero_()
        weight = preset.reconstruction_weight(self.images)
        torch.autograd.backward([images, *losses], [gradient, *(torch.full_like(loss, weight) for loss in losses)])
        if self.images // preset.batch % preset.penalty_every:
            return {"margin": margin}
        some = slice(None, None, 2)
        value = penalty(self.discriminator, real[some], images.detach()[some], shown[some])
        (value * (0.5 * preset.penalty_weight(self.images) * preset.penalty_every)).backward()
        return {"margin": margin, "penalty": value.detach()}

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

        network.standing_statistics_(inputs())
        return network

    @torch.no_grad()
    def grid(self, columns: int = 10) -> None:
        """Draws every class, two in a row, by the average generator, to look at."""
        count = len(CLASSES) * columns
        z = truncated_normal(count, self.preset.dim_z, torch.Generator().manual_seed(0)).to(self.device)
        classes = torch.arange(count, device=self.device) // columns
        images = self.standing(4)(z, classes)
        pixels = images.add(1).mul(127.5).round().byte().cpu().numpy()
        side = pixels.shape[-1]
        rows = pixels.reshape(-1, 2 * columns, 3, side, side).transpose(0, 3, 1, 4, 2)
        sheet = Image.fromarray(np.ascontiguousarray(rows.reshape(len(rows) * side, 2 * columns * side, 3)))
        sheet.save(self.work / f"grid-{self.images:07d}.png")

    @torch.no_grad()
    def export(self, out: Path) -> BigGAN:
        """Writes the average with standing statistics, spectral norm baked, as a folder `load_generator` reads."""
        preset = self.preset
        state = {name: value.cpu() for name, value in self.standing(preset.statistics).state_dict().items()}
        generator = from_official(state, **preset.biggan_arguments())
        training = {"world": "single_objects", "seed": self.seed, "preset": asdict(preset), "images": self.images}
        config = {
            "class_path": "clip2latent.generators.biggan.BigGAN",
            "init_args": generator.init_args,
            "training": training,
        }
        save_asset(out, config, generator.state_dict())
        return generator


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
