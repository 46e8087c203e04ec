"""Trains the demo's StyleGAN2 on a world's renders: `python -m demo.gan --world avatars --out DIR --work DIR`.

Relativistic logistic loss (Jolicoeur-Martineau 2019, arXiv:1807.00734) with lazy gradient penalties on real and on
generated images (Huang et al. 2024, arXiv:2501.05441), first at 32 px, then grown to 64 px. Convolutions run in
bfloat16 where the preset says so. The labels c are the attributes, one one-hot group each; a generated image is
compared with a render of the same attributes.
The state is written every few minutes; the same command goes on from it.
"""

from __future__ import annotations

import argparse
import copy
import importlib
import json
import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from clip2latent.generators.stylegan2 import StyleGAN2
from demo.adversarial import PRESETS, Preset, build_generator, generator_arguments, gradients, grow, penalty
from demo.discriminator import Discriminator
from demo.labelled import Renders, label_shares


@dataclass
class State:
    """The networks and how far they are; `images` counts the real images seen at the present resolution."""

    generator: StyleGAN2
    average: StyleGAN2
    discriminator: Discriminator
    resolution: int
    images: int
    seconds: float


class Trainer:
    """Owns the state, its optimisers and its files."""

    networks = ("generator", "average", "discriminator")

    def __init__(self, world: str, preset: Preset, seed: int, work: Path, device: str = "cpu"):
        self.world, self.preset, self.seed, self.work, self.device = world, preset, seed, work, device
        module = importlib.import_module(f"demo.{world}")
        work.mkdir(parents=True, exist_ok=True)
        self.path, self.log_path = work / "state.pt", work / "log.jsonl"
        torch.manual_seed(seed)
        saved = torch.load(self.path, map_location=device, weights_only=True) if self.path.exists() else {}
        resolution = saved.get("resolution", 32)
        generator = build_generator(preset, resolution, world).to(device)
        sizes = [len(values) for values in module.ATTRIBUTES.values()]
        discriminator = Discriminator(resolution, preset.discriminator_base, preset.channel_max, sizes).to(device)
        images, seconds = saved.get("images", 0), saved.get("seconds", 0.0)
        self.state = State(generator, copy.deepcopy(generator), discriminator, resolution, images, seconds)
        self._make_optimisers()
        for name, weights in saved.get("networks", {}).items():
            getattr(self.state, name).load_state_dict(weights)
        for name, values in saved.get("optimisers", {}).items():
            self.optimisers[name].load_state_dict(values)

    def _make_optimisers(self) -> None:
        self.optimisers = {
            name: torch.optim.Adam(
                getattr(self.state, name).parameters(), lr=self.preset.lr, betas=(0.0, 0.99), fused=True
            )
            for name in ("generator", "discriminator")
        }

    def save(self) -> None:
        state = self.state
        values = {"resolution": state.resolution, "images": state.images, "seconds": state.seconds}
        values["networks"] = {name: getattr(state, name).state_dict() for name in self.networks}
        values["optimisers"] = {name: optimiser.state_dict() for name, optimiser in self.optimisers.items()}
        temporary = self.path.with_suffix(".tmp")
        torch.save(values, temporary)
        os.replace(temporary, self.path)

    def grow(self) -> None:
        state, device = self.state, self.device
        generator, average = (
            grow(network, self.preset, self.world).to(device) for network in (state.generator, state.average)
        )
        self.state = State(generator, average, state.discriminator.grow().to(device), 64, 0, state.seconds)
        self._make_optimisers()

    def run(self, save_every: float = 180.0, log_every: int = 100) -> None:
        while True:
            budget = self.preset.images_32 if self.state.resolution == 32 else self.preset.images_64
            if self.state.images < budget:
                self._run_stage(budget, save_every, log_every)
            if self.state.resolution == 64:
                return
            self.grow()

    def _run_stage(self, budget: int, save_every: float, log_every: int) -> None:
        preset, state, batch = self.preset, self.state, self.preset.batch
        seen = state.images + (preset.images_32 if state.resolution == 64 else 0)
        renders = Renders(self.world, self.seed, seen, preset.pool)
        loader = torch.utils.data.DataLoader(renders, batch_size=batch, num_workers=1, prefetch_factor=4)
        z_rng = torch.Generator(self.device).manual_seed(self.seed * 1_000_003 + seen)
        decay = 0.5 ** (batch / preset.ema_images)
        averages, sources = list(state.average.parameters()), list(state.generator.parameters())
        last_save = last_log = time.monotonic()
        figures: dict[str, Tensor] = {}
        for step, (pixels, asked, shown) in enumerate(loader):
            progress = state.images / budget
            real = pixels.to(self.device).float() / 127.5 - 1
            if state.resolution == 32:
                real = F.avg_pool2d(real, 2)
            z = torch.randn(batch, preset.z_dim, generator=z_rng, device=self.device)
            c = self._one_hot(asked)
            for optimiser in self.optimisers.values():
                optimiser.param_groups[0]["lr"] = preset.lr * learning_rate_factor(progress, state.resolution)
                optimiser.zero_grad()
            penalise = step % preset.penalty_every == 0
            figures |= self._accumulate(real, (z, c), shown.to(self.device), penalise, progress)
            for optimiser in self.optimisers.values():
                optimiser.step()
            with torch.no_grad():
                torch._foreach_lerp_(averages, sources, 1 - decay)
            state.images += batch
            now = time.monotonic()
            if step % log_every == log_every - 1 or state.images >= budget:
                state.seconds += now - last_log
                self._log(figures, (step % log_every + 1) * batch / (now - last_log), budget)
                last_log = now
            if now - last_save > save_every or state.images >= budget:
                self.save()
                self.grid()
                last_save = now
            if state.images >= budget:
                return

    def _one_hot(self, asked: Tensor) -> Tensor:
        """Turns labels [B, A] into c [B, c_dim]."""
        groups = [
            F.one_hot(column, len(s)) for column, s in zip(asked.unbind(1), label_shares(self.world), strict=True)
        ]
        return torch.cat(groups, dim=1).float().to(self.device)

    def _accumulate(
        self, real: Tensor, inputs: tuple[Tensor, Tensor], shown: Tensor, penalise: bool, progress: float
    ) -> dict[str, Tensor]:
        """Adds both networks' gradients of one batch; inputs are z and c. Returns figures for the log."""
        preset, state = self.preset, self.state
        dtype = torch.bfloat16 if preset.half else torch.float32
        fake = state.generator.synthesis(state.generator.mapping(*inputs), half_dtype=dtype if preset.half else None)
        gradient, margin = gradients(state.discriminator, real, fake, shown, dtype)
        fake.backward(gradient)
        figures = {"margin": margin}
        if penalise:
            some = slice(max(1, len(real) // 2))
            value = penalty(state.discriminator, real[some], fake.detach()[some], shown[some])
            gamma = preset.gamma[0] * (preset.gamma[1] / preset.gamma[0]) ** progress
            (value * (0.5 * gamma * preset.penalty_every)).backward()
            figures["penalty"] = value.detach()
        return figures

    def _log(self, figures: dict[str, Tensor], rate: float, budget: int) -> None:
        row = {
            "resolution": self.state.resolution,
            "images": self.state.images,
            "of": budget,
            "images_per_s": round(rate, 1),
        }
        row |= {name: round(float(value), 4) for name, value in figures.items()}
        row["seconds"] = round(self.state.seconds)
        with self.log_path.open("a") as log:
            log.write(json.dumps(row) + "\n")
        print(json.dumps(row), flush=True)

    @torch.no_grad()
    def grid(self, rows: int = 8, columns: int = 12) -> None:
        """Draws fixed latents by the average generator, to look at."""
        from PIL import Image

        average = self.state.average
        latents = average.sample_latents(rows * columns, torch.Generator(self.device).manual_seed(0))
        images = average.synthesize(latents).clamp(-1, 1).add(1).mul(127.5).round().byte().cpu()
        side = self.state.resolution
        sheet = images.view(rows, columns, 3, side, side).permute(0, 3, 1, 4, 2).reshape(rows * side, columns * side, 3)
        name = f"grid-{self.state.resolution}-{self.state.images:07d}.png"
        Image.fromarray(sheet.numpy()).resize((columns * 128, rows * 128), Image.Resampling.NEAREST).save(
            self.work / name
        )

    @torch.no_grad()
    def export(self, out: Path) -> None:
        """Writes the average generator as a folder that `load_generator` reads, with the mean w filled in."""
        from safetensors.torch import save_file

        generator = copy.deepcopy(self.state.average).cpu().eval()
        latents = generator.sample_latents(20_000, torch.Generator().manual_seed(self.seed))
        generator.mapping.w_avg.copy_(latents[:, 0].mean(dim=0))
        out.mkdir(parents=True, exist_ok=True)
        save_file(
            {name: value.contiguous() for name, value in generator.state_dict().items()}, out / "model.safetensors"
        )
        config = {
            "class_path": "clip2latent.generators.stylegan2.StyleGAN2",
            "init_args": generator_arguments(self.preset, self.state.resolution, self.world),
            "training": {
                "world": self.world,
                "seed": self.seed,
                "preset": asdict(self.preset),
                "images": self.state.images,
            }
            | {"seconds": round(self.state.seconds), "resolution": self.state.resolution},
        }
        (out / "config.json").write_text(json.dumps(config, indent=1) + "\n")


def learning_rate_factor(progress: float, resolution: int) -> float:
    """Constant, then linear to a twentieth over the last 40 % of the final stage."""
    return 1.0 if resolution == 32 or progress < 0.6 else max(0.05, 2.5 * (1 - progress))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--world", default="avatars", help="module of demo/ that draws the images")
    parser.add_argument("--preset", choices=PRESETS, default="cpu")
    parser.add_argument("--work", type=Path, required=True, help="folder of the training state, log and grids")
    parser.add_argument("--out", type=Path, required=True, help="folder to write the generator to")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--export_only", action="store_true", help="write the generator as it is now, and stop")
    arguments = parser.parse_args()
    trainer = Trainer(arguments.world, PRESETS[arguments.preset], arguments.seed, arguments.work, arguments.device)
    if not arguments.export_only:
        trainer.run()
    trainer.export(arguments.out)


if __name__ == "__main__":
    main()
