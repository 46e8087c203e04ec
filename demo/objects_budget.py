"""What the demo's BigGAN depends on besides its seed: sizes, budgets in images, and schedules as functions of these."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from demo.biggan_layers import NORM_EPS, SIGMA_EPS
from demo.single_objects import ATTRIBUTES

CLASSES = ATTRIBUTES["class"]


@dataclass(frozen=True)
class Preset:
    """Sizes and budgets; `images` in the methods counts the renders seen since the beginning."""

    start: int  # renders of the start, which learns to reconstruct them
    images: int  # renders after it, which the discriminator sees
    batch: int = 16
    pool: int = 80_000  # distinct renders
    ch: int = 16
    dim_z: int = 40
    shared_dim: int = 32
    attention: int = 16
    base: int = 1536  # of the discriminator's and the encoder's widths
    widest: int = 128
    deviation: float = 1.0  # of the pixels about a reconstruction
    start_rate: float = 0.01
    rate: float = 0.0025
    alone: int = 6_000  # renders that the discriminator learns from before the generator follows it
    gamma: tuple[float, float] = (0.5, 0.1)  # gradient penalty, first and last
    penalty_every: int = 16
    ema_images: int = 5_000  # half-life of the average
    statistics: int = 100  # batches of the standing statistics
    half: bool = True

    def learning_rate(self, images: int) -> float:
        """Falls to the second stage's over the last 40 % of the start, and to its twentieth over the last 40 %."""
        if images < self.start:
            left = min(1.0, 2.5 * (1 - images / self.start))
            return self.rate + left * (self.start_rate - self.rate)
        return self.rate * min(1.0, max(0.05, 2.5 * (1 - self._progress(images))))

    def divergence_weight(self, images: int) -> float:
        """Rises to 1 over the first 30 % of the start, so that z is used before it is paid for."""
        return min(1.0, images / (0.3 * self.start))

    def reconstruction_weight(self, images: int) -> float:
        """Weight of the reconstruction beside the discriminator; falls to nothing by 70 % of the second stage."""
        return self._reconstructing(images) / 300

    def copies(self, images: int) -> int:
        """Images of a batch that reconstruct a render; the others are drawn from z at random."""
        return self.batch if images < self.start else math.ceil(self.batch / 2 * self._reconstructing(images))

    def penalty_weight(self, images: int) -> float:
        """Falls from gamma's first value to its last."""
        first, last = self.gamma
        return first * (last / first) ** self._progress(images)

    def _reconstructing(self, images: int) -> float:
        return max(0.0, 1 - self._progress(images) / 0.7)

    def _progress(self, images: int) -> float:
        return max(0, images - self.start) / self.images

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
    "cpu": Preset(start=40_000, images=400_000),
    "gpu": Preset(400_000, 4_000_000, batch=64, ch=32, base=4096),
    "smoke": Preset(64, 64, ch=4, dim_z=20, shared_dim=8, base=256, alone=16, statistics=2),
}
