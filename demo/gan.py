"""Trains the demo's StyleGAN2 on a world's renders: `python -m demo.gan --world avatars --out DIR --work DIR`.

Relativistic logistic loss (Jolicoeur-Martineau 2019, arXiv:1807.00734) with lazy gradient penalties on real and on
generated images (Huang et al. 2024, arXiv:2501.05441), first at 32 px, then grown to 64 px. Convolutions run in
bfloat16 where the preset says so. The state is written every few minutes; the same command goes on from it.
"""

from __future__ import annotations

import argparse
import copy
import importlib
import json
import os
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clip2latent.generators.stylegan2 import StyleGAN2
from demo.discriminator import Discriminator


@dataclass(frozen=True)
class Preset:
    """Everything the trained generator depends on, besides world and seed."""

    images_32: int  # budget at 32 px
    images_64: int  # budget at 64 px
    batch: int = 16
    pool: int = 80_000  # distinct renders
    width: int = 64  # of z and w
    generator_base: int = 1536
    discriminator_base: int = 1024
    channel_max: int = 128
    lr: float = 0.002
    gamma: tuple[float, float] = (1.0, 0.1)  # gradient penalty, first and last
    penalty_every: int = 16
    ema_images: int = 10_000  # half-life of the average
    half: bool = True


PRESETS = {
    "cpu": Preset(images_32=120_000, images_64=450_000),
    "gpu": Preset(images_32=400_000, images_64=4_000_000, batch=64, generator_base=4096, discriminator_base=3072),
    "smoke": Preset(images_32=64, images_64=64, width=16, generator_base=256, discriminator_base=256, channel_max=16),
}


class Renders(torch.utils.data.IterableDataset):
    """An endless stream of uint8 [3, 64, 64]: the world's first `pool` images over and over, from a given index on.

    Images are kept once drawn, so that drawing costs nothing from the second round on; workers share the pool out.
    """

    def __init__(self, world: str, seed: int, first: int, pool: int):
        self.world, self.seed, self.first, self.pool = world, seed, first, pool

    def __iter__(self) -> Iterator[np.ndarray]:
        example = importlib.import_module(f"demo.{self.world}").example
        worker = torch.utils.data.get_worker_info()
        index, step = self.first + (worker.id if worker else 0), worker.num_workers if worker else 1
        drawn: dict[int, np.ndarray] = {}
        while True:
            place = index % self.pool
            if place not in drawn:
                drawn[place] = np.ascontiguousarray(example(self.seed, place).image.transpose(2, 0, 1))
            yield drawn[place]
            index += step


@dataclass
class State:
    """The networks and how far they are; `images` counts the real images seen at the present resolution."""

    generator: StyleGAN2
    average: StyleGAN2
    discriminator: Discriminator
    resolution: int
    images: int
    seconds: float


def build_generator(preset: Preset, resolution: int) -> StyleGAN2:
    return StyleGAN2(**generator_arguments(preset, resolution))


def generator_arguments(preset: Preset, resolution: int) -> dict:
    """Constructor arguments: no noise inputs (they end as salt and pepper here), bfloat16-safe without a clamp."""
    return dict(
        z_dim=preset.width,
        c_dim=0,
        w_dim=preset.width,
        img_resolution=resolution,
        img_channels=3,
        mapping_kwargs={"num_layers": 4},
        channel_base=preset.generator_base,
        channel_max=preset.channel_max,
        use_noise=False,
        conv_clamp=None,
    )


@torch.no_grad()
def grow(generator: StyleGAN2, preset: Preset) -> StyleGAN2:
    """Returns a generator of twice the resolution that starts as this one's images scaled up."""
    grown = build_generator(preset, 2 * generator.resolution)
    grown.load_state_dict(generator.state_dict(), strict=False)
    last = grown.synthesis.blocks()[-1].torgb
    last.weight.mul_(0.02)
    return grown


def adversarial_step(generator: nn.Module, discriminator: nn.Module, real: Tensor, z: Tensor, dtype: torch.dtype) -> dict:
    """Accumulates both networks' gradients from ONE pass through each; returns the step's figures.

    Both losses depend on a generated image through its logit alone, so the generator's gradient at the image is the
    discriminator's times the ratio of the two losses' derivatives at the logit: -sigmoid(d) / sigmoid(-d) = -exp(d),
    d the real logit minus the generated one.
    """
    half = None if dtype == torch.float32 else dtype
    fake = generator.synthesis(generator.mapping(z), half_dtype=half)
    leaf = fake.detach().requires_grad_()
    logits_real, logits_fake = discriminator(torch.cat([real, leaf]), dtype).chunk(2)
    difference = logits_real - logits_fake
    loss = F.softplus(-difference).mean()
    loss.backward()
    ratio = -difference.detach().clamp(max=12).exp()
    fake.backward(leaf.grad * ratio[:, None, None, None])
    with torch.no_grad():
        return {"loss_d": loss, "loss_g": F.softplus(difference).mean(), "margin": difference.mean(), "fake": leaf.detach()}


def penalty(discriminator: nn.Module, real: Tensor, fake: Tensor) -> Tensor:
    """Mean squared gradient norm on real and on generated images (R1 + R2)."""
    images = torch.cat([real, fake]).requires_grad_()
    (gradient,) = torch.autograd.grad(discriminator(images).sum(), images, create_graph=True)
    return 2 * gradient.square().sum(dim=(1, 2, 3)).mean()


class Trainer:
    """Owns the state, its optimisers and its files."""

    def __init__(self, world: str, preset: Preset, seed: int, work: Path, device: str):
        self.world, self.preset, self.seed, self.work, self.device = world, preset, seed, work, device
        work.mkdir(parents=True, exist_ok=True)
        self.path = work / "state.pt"
        self.log_path = work / "log.jsonl"
        if self.path.exists():
            self._restore()
        else:
            torch.manual_seed(seed)
            generator = build_generator(preset, 32).to(device)
            discriminator = Discriminator(32, preset.discriminator_base, preset.channel_max).to(device)
            self.state = State(generator, copy.deepcopy(generator), discriminator, 32, 0, 0.0)
            self._optimisers()

    def _optimisers(self) -> None:
        make = lambda module: torch.optim.Adam(module.parameters(), lr=self.preset.lr, betas=(0.0, 0.99), fused=True)  # noqa: E731
        self.optimisers = make(self.state.generator), make(self.state.discriminator)

    def _restore(self) -> None:
        saved = torch.load(self.path, map_location=self.device, weights_only=True)
        resolution = saved["resolution"]
        generator = build_generator(self.preset, resolution).to(self.device)
        discriminator = Discriminator(resolution, self.preset.discriminator_base, self.preset.channel_max).to(self.device)
        self.state = State(generator, copy.deepcopy(generator), discriminator, resolution, saved["images"], saved["seconds"])
        for name in ("generator", "average", "discriminator"):
            getattr(self.state, name).load_state_dict(saved[name])
        self._optimisers()
        for optimiser, values in zip(self.optimisers, saved["optimisers"], strict=True):
            optimiser.load_state_dict(values)

    def save(self) -> None:
        state = self.state
        values = {name: getattr(state, name).state_dict() for name in ("generator", "average", "discriminator")}
        values |= {"resolution": state.resolution, "images": state.images, "seconds": state.seconds}
        values["optimisers"] = [optimiser.state_dict() for optimiser in self.optimisers]
        temporary = self.path.with_suffix(".tmp")
        torch.save(values, temporary)
        os.replace(temporary, self.path)

    def grow(self) -> None:
        state, device = self.state, self.device
        generator, average = (grow(network, self.preset).to(device) for network in (state.generator, state.average))
        self.state = State(generator, average, state.discriminator.grow().to(device), 64, 0, state.seconds)
        self._optimisers()

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
        dtype = torch.bfloat16 if preset.half else torch.float32
        seen = state.images + (preset.images_32 if state.resolution == 64 else 0)
        renders = Renders(self.world, self.seed, seen, preset.pool)
        loader = torch.utils.data.DataLoader(renders, batch_size=batch, num_workers=1, prefetch_factor=4)
        z_rng = torch.Generator(self.device).manual_seed(self.seed * 1_000_003 + seen)
        decay = 0.5 ** (batch / preset.ema_images)
        pairs = list(zip(state.average.parameters(), state.generator.parameters(), strict=True))
        last_save = last_log = time.monotonic()
        figures: dict[str, Tensor] = {}
        for step, pixels in enumerate(loader):
            progress = state.images / budget
            for optimiser in self.optimisers:
                optimiser.param_groups[0]["lr"] = preset.lr * learning_rate_factor(progress, state)
                optimiser.zero_grad(set_to_none=True)
            real = pixels.to(self.device).float() / 127.5 - 1
            if state.resolution == 32:
                real = F.avg_pool2d(real, 2)
            z = torch.randn(batch, preset.width, generator=z_rng, device=self.device)
            figures = adversarial_step(state.generator, state.discriminator, real, z, dtype)
            fake = figures.pop("fake")
            if step % preset.penalty_every == 0:
                half = max(1, batch // 2)
                gamma = preset.gamma[0] * (preset.gamma[1] / preset.gamma[0]) ** progress
                r = penalty(state.discriminator, real[:half], fake[:half])
                (r * (0.5 * gamma * preset.penalty_every)).backward()
                last_penalty = float(r.detach())
            for optimiser in self.optimisers:
                optimiser.step()
            with torch.no_grad():
                torch._foreach_lerp_([a for a, _ in pairs], [g for _, g in pairs], 1 - decay)
            state.images += batch
            now = time.monotonic()
            if step % log_every == log_every - 1 or state.images >= budget:
                state.seconds += now - last_log
                self._log(figures, last_penalty, min(step + 1, log_every) * batch / (now - last_log), budget)
                last_log = now
            if now - last_save > save_every or state.images >= budget:
                self.save()
                self.grid()
                last_save = now
            if state.images >= budget:
                return

    def _log(self, figures: dict, last_penalty: float, rate: float, budget: int) -> None:
        row = {"resolution": self.state.resolution, "images": self.state.images, "of": budget, "images_per_s": round(rate, 1)}
        row |= {name: round(float(value), 4) for name, value in figures.items()} | {"penalty": round(last_penalty, 4)}
        row["seconds"] = round(self.state.seconds)
        with self.log_path.open("a") as log:
            log.write(json.dumps(row) + "\n")
        print(json.dumps(row), flush=True)

    @torch.no_grad()
    def grid(self, rows: int = 8, columns: int = 12) -> None:
        """Draws fixed latents by the average generator, to look at."""
        from PIL import Image

        rng = torch.Generator().manual_seed(0)
        z = torch.randn(rows * columns, self.preset.width, generator=rng).to(self.device)
        images = self.state.average(z).clamp(-1, 1).add(1).mul(127.5).round().byte().cpu()
        side = self.state.resolution
        sheet = images.view(rows, columns, 3, side, side).permute(0, 3, 1, 4, 2).reshape(rows * side, columns * side, 3)
        name = f"grid-{self.state.resolution}-{self.state.images:07d}.png"
        Image.fromarray(sheet.numpy()).resize((columns * 128, rows * 128), Image.Resampling.NEAREST).save(self.work / name)

    @torch.no_grad()
    def export(self, out: Path) -> None:
        """Writes the average generator as a folder that `load_generator` reads, with the mean w filled in."""
        from safetensors.torch import save_file

        generator = copy.deepcopy(self.state.average).cpu().eval()
        z = torch.randn(20_000, self.preset.width, generator=torch.Generator().manual_seed(self.seed))
        generator.mapping.w_avg.copy_(generator.mapping(z)[:, 0].mean(dim=0))
        out.mkdir(parents=True, exist_ok=True)
        save_file({name: value.contiguous() for name, value in generator.state_dict().items()}, out / "model.safetensors")
        config = {
            "class_path": "clip2latent.generators.stylegan2.StyleGAN2",
            "init_args": generator_arguments(self.preset, self.state.resolution),
            "training": {"world": self.world, "seed": self.seed, "preset": asdict(self.preset), "images": self.state.images}
            | {"seconds": round(self.state.seconds), "resolution": self.state.resolution},
        }
        (out / "config.json").write_text(json.dumps(config, indent=1) + "\n")


def learning_rate_factor(progress: float, state: State) -> float:
    """Constant, then linear to a twentieth over the last 40 % of the final stage."""
    return 1.0 if state.resolution == 32 or progress < 0.6 else max(0.05, (1 - progress) / 0.4)


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
