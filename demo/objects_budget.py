"""What the demo's BigGAN depends on besides its seed: sizes, budgets in images, and schedules as functions of these."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from demo.biggan_layers import NORM_EPS, SIGMA_EPS
from demo.single_objects import ATTRIBUTES

CLASSES = ATTRIBUTES["class"]


@dataclass(frozen=True)
class Preset:
    """Sizes and budgets; `images` in the methods counts the real images seen since the beginning."""

    images_32: int  # at 32 px
    images_64: int  # at 64 px
    fade: int  # of these, while the last block comes in
    batch: int = 32  # even: the discriminator sees pairs
    pool: int = 80_000  # distinct renders
    ch: int = 16
    dim_z: int = 80
    shared_dim: int = 32
    attention: int = 16
    discriminator_base: int = 2048
    discriminator_max: int = 128
    lr: float = 0.002
    gamma: tuple[float, float] = (0.5, 0.1)  # gradient penalty, first and last of each resolution
    penalty_every: int = 16
    ema_images: int = 10_000  # half-life of the average
    statistics: int = 100  # batches of the standing statistics
    half: bool = True

    def learning_rate(self, images: int) -> float:
        """Constant, then linear to a twentieth over the last 40 % of the images at 64 px."""
        progress = max(0, images - self.images_32) / self.images_64
        return self.lr * (1.0 if progress < 0.6 else max(0.05, 2.5 * (1 - progress)))

    def share(self, images: int, resolution: int) -> float | None:
        """Returns the last block's share of the image; None at 32 px, where there is none."""
        return None if resolution == 32 else min(1.0, max(0, images - self.images_32) / self.fade)

    def penalty_weight(self, images: int) -> float:
        """Falls from gamma's first value to its last, once at each resolution."""
        first, last = self.gamma
        early = images < self.images_32
        progress = images / self.images_32 if early else (images - self.images_32) / self.images_64
        return first * (last / first) ** progress

    def biggan_arguments(self) -> dict[str, Any]:
        """Returns the constructor arguments of the finished network."""
        return {
            "resolution": 64,
            "G_ch": self.ch,
            "G_attn": str(self.attention),
            "dim_z": self.dim_z,
            "hier": True,
            "G_shared": True,
            "shared_dim": self.shared_dim,
            "n_classes": len(CLASSES),
            "BN_eps": NORM_EPS,
            "SN_eps": SIGMA_EPS,
            "class_names": list(CLASSES),
        }


PRESETS = {
    "cpu": Preset(images_32=100_000, images_64=200_000, fade=20_000),
    "gpu": Preset(400_000, 4_000_000, 100_000, batch=64, ch=32, discriminator_base=4096),
    "smoke": Preset(64, 64, 32, batch=16, ch=4, dim_z=20, shared_dim=8, discriminator_base=256, statistics=2),
}
