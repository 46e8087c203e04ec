"""The demo generator's training in its parts: sizes and budgets, the generator at two resolutions, both losses."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clip2latent.generators.stylegan2 import StyleGAN2
from demo.labelled import label_shares


@dataclass(frozen=True)
class Preset:
    """Everything the trained generator depends on, besides world and seed."""

    images_32: int  # budget at 32 px
    images_64: int  # budget at 64 px
    batch: int = 16
    pool: int = 80_000  # distinct renders
    z_dim: int = 64
    w_dim: int = 96
    generator_base: int = 2048
    discriminator_base: int = 1024
    channel_max: int = 128
    lr: float = 0.002
    gamma: tuple[float, float] = (0.5, 0.1)  # gradient penalty, first and last
    penalty_every: int = 16
    ema_images: int = 10_000  # half-life of the average
    half: bool = True


PRESETS = {
    "cpu": Preset(images_32=100_000, images_64=280_000),
    "gpu": Preset(images_32=400_000, images_64=4_000_000, batch=64, generator_base=4096, discriminator_base=3072),
    "smoke": Preset(
        images_32=64, images_64=64, z_dim=16, w_dim=16, generator_base=256, discriminator_base=256, channel_max=16
    ),
}


def build_generator(preset: Preset, resolution: int, world: str) -> StyleGAN2:
    return StyleGAN2(**generator_arguments(preset, resolution, world))


def generator_arguments(preset: Preset, resolution: int, world: str) -> dict:
    """Constructor arguments: no noise inputs (they end as salt and pepper here), bfloat16-safe without a clamp."""
    shares = label_shares(world)
    return dict(
        z_dim=preset.z_dim,
        c_dim=sum(map(len, shares)),
        w_dim=preset.w_dim,
        label_shares=shares,
        img_resolution=resolution,
        img_channels=3,
        mapping_kwargs={"num_layers": 3, "lr_multiplier": 0.1},
        channel_base=preset.generator_base,
        channel_max=preset.channel_max,
        use_noise=False,
        conv_clamp=None,
    )


@torch.no_grad()
def grow(generator: StyleGAN2, preset: Preset, world: str) -> StyleGAN2:
    """Returns a generator of twice the resolution that starts as this one's images scaled up."""
    grown = build_generator(preset, 2 * generator.resolution, world)
    grown.load_state_dict(generator.state_dict(), strict=False)
    last = grown.synthesis.blocks()[-1].torgb
    last.weight.mul_(0.02)
    return grown


def gradients(
    discriminator: nn.Module, real: Tensor, fake: Tensor, shown: Tensor, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """Accumulates the discriminator's gradients; returns the generator's at the images, and the mean margin.

    One pass serves both networks.

    Both losses depend on a generated image through its logit alone, so the generator's gradient at the image is the
    discriminator's times the ratio of the two losses' derivatives at the logit: -sigmoid(d) / sigmoid(-d) = -exp(d),
    d the real logit minus the generated one.
    """
    leaf = fake.detach().requires_grad_()
    logits = discriminator(torch.cat([real, leaf]), torch.cat([shown, shown]), dtype)
    difference = torch.sub(*logits.chunk(2))
    F.softplus(-difference).mean().backward()
    ratio = -difference.detach().clamp(max=12).exp()
    return leaf.grad * ratio[:, None, None, None], difference.detach().mean()


def penalty(discriminator: Callable[[Tensor, Tensor], Tensor], real: Tensor, fake: Tensor, shown: Tensor) -> Tensor:
    """Mean squared gradient norm on real and on generated images (R1 + R2)."""
    images = torch.cat([real, fake]).requires_grad_()
    logits = discriminator(images, torch.cat([shown, shown]))
    (gradient,) = torch.autograd.grad(logits.sum(), images, create_graph=True)
    return 2 * gradient.square().sum(dim=(1, 2, 3)).mean()
