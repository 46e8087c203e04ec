"""Latents of class-conditional generators: one row that holds z and a class vector, both continuous."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

Z_LIMIT = 2.0
"""z is valid in [-2, 2]: the truncated normal of arXiv:1809.11096, section 3.1."""


class ClassLatents(nn.Module):
    """A generator of z [B, Z] and class vectors [B, V]: the latent side of ClassConditional.

    A subclass gives `forward(z, class_vectors) -> images` and `class_vectors(classes)`, and sets `resolution`.
    """

    resolution: int

    def __init__(
        self,
        z_width: int,
        class_width: int,
        num_classes: int,
        class_names: Sequence[str] | None = None,
        truncation: float = 1.0,
    ):
        """Stores Z, V, the number of classes and their names, and the factor of drawn z.

        Raises:
            ValueError: there is not one name for each class, or truncation is not in (0, 1].
        """
        super().__init__()
        if class_names is not None and (isinstance(class_names, str) or len(class_names) != num_classes):
            raise ValueError(f"class_names: expected {num_classes} names, one for each class, got {class_names!r}")
        if not 0 < truncation <= 1:
            raise ValueError(f"truncation: expected a number in (0, 1], got {truncation}")
        self.z_width, self.class_width, self.num_classes = z_width, class_width, num_classes
        self.truncation, self._names = float(truncation), class_names
        self.latent_shape = (1, z_width + class_width)

    @property
    def class_names(self) -> Sequence[str]:
        """The names given; else ImageNet's labels where there are 1000 classes, else "class 0", "class 1", ..."""
        if self._names is not None:
            return self._names
        if self.num_classes == 1000:
            from open_clip import IMAGENET_CLASSNAMES  # in the order of the challenge's class indices

            return IMAGENET_CLASSNAMES
        return [f"class {index}" for index in range(self.num_classes)]

    def class_vectors(self, classes: Tensor) -> Tensor:
        """Embeds classes [B], indices, as [B, V]."""
        raise NotImplementedError

    @torch.no_grad()
    def sample_latents(self, num: int, rng: torch.Generator, classes: Tensor | None = None) -> Tensor:
        """Draws latents [num, 1, D]: z from truncation times a normal restricted to [-2, 2], classes uniformly.

        Raises:
            ValueError: `classes` are not `num` indices of classes.
        """
        z = self.truncation * truncated_normal(num, self.z_width, rng)
        if classes is None:
            classes = torch.randint(self.num_classes, (num,), generator=rng, device=rng.device)
        elif classes.shape != (num,) or classes.dtype.is_floating_point or classes.dtype == torch.bool:
            raise ValueError(f"classes: expected {num} indices, got {classes.dtype} {list(classes.shape)}")
        elif num and not (classes.min() >= 0 and classes.max() < self.num_classes):
            raise ValueError(f"classes: expected indices from 0 to {self.num_classes - 1}, got {classes.tolist()}")
        like = next(self.parameters())
        vectors = self.class_vectors(classes.to(like.device, torch.int64))
        return torch.cat([z.to(like), vectors], dim=1)[:, None]

    def synthesize(self, latents: Tensor) -> Tensor:
        """latents [B, 1, D] -> images [B, 3, R, R] in [-1, 1]; differentiable in z and in the class vector."""
        if latents.ndim != 3 or tuple(latents.shape[1:]) != self.latent_shape:
            raise ValueError(f"latents: expected [B, 1, {self.latent_shape[1]}], got {list(latents.shape)}")
        return self(*latents[:, 0].split([self.z_width, self.class_width], dim=1))

    def project(self, latents: Tensor) -> Tensor:
        """Clamps z to [-2, 2]; every class vector is valid."""
        z, vectors = latents.split([self.z_width, self.class_width], dim=-1)
        return torch.cat([z.clamp(-Z_LIMIT, Z_LIMIT), vectors], dim=-1)


def truncated_normal(num: int, width: int, rng: torch.Generator) -> Tensor:
    """Draws z [num, width] from N(0, 1) restricted to [-2, 2], by the inverse distribution function."""
    inside = math.erf(Z_LIMIT / math.sqrt(2))
    uniform = torch.rand(num, width, generator=rng, device=rng.device) * 2 - 1
    return (math.sqrt(2) * torch.erfinv(inside * uniform)).clamp(-Z_LIMIT, Z_LIMIT)
