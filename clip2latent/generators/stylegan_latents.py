"""What StyleGAN2 and StyleGAN3 share: the mapping network, labels and the latent spaces."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clip2latent.generators.spaces import row_groups
from clip2latent.generators.stylegan2_layers import FullyConnected
from clip2latent.latents import expand

HALF_DTYPES = {None: None, "float16": torch.float16, "bfloat16": torch.bfloat16}


def normalise_second_moment(x: Tensor) -> Tensor:
    return x * (x.square().mean(dim=1, keepdim=True) + 1e-8).rsqrt()


class MappingNetwork(nn.Module):
    """z [B, z_dim] and, for a conditional network, c [B, c_dim] -> w [B, num_ws, w_dim]."""

    def __init__(
        self,
        z_dim: int,
        c_dim: int,
        w_dim: int,
        num_ws: int,
        num_layers: int = 8,
        embed_features: int | None = None,
        layer_features: int | None = None,
        activation: str = "lrelu",
        lr_multiplier: float = 0.01,
        w_avg_beta: float | None = 0.998,
    ):
        super().__init__()
        self.z_dim, self.c_dim, self.num_ws, self.num_layers = z_dim, c_dim, num_ws, num_layers
        self.w_avg_beta = w_avg_beta
        embed_features = 0 if c_dim == 0 else (embed_features or w_dim)
        widths = [z_dim + embed_features] + [layer_features or w_dim] * (num_layers - 1) + [w_dim]
        if c_dim:
            self.embed = FullyConnected(c_dim, embed_features)
        for index in range(num_layers):
            layer = FullyConnected(widths[index], widths[index + 1], activation, lr_multiplier)
            self.add_module(f"fc{index}", layer)
        self.register_buffer("w_avg", None if w_avg_beta is None else torch.zeros(w_dim))

    def forward(self, z: Tensor, c: Tensor | None = None, psi: float = 1.0, cutoff: int | None = None) -> Tensor:
        """Truncates towards the mean w by psi in the first `cutoff` layers (all when None)."""
        x = []
        if self.z_dim:
            x.append(normalise_second_moment(z))
        if self.c_dim:
            if c is None:
                raise ValueError(f"c: a class-conditional network needs labels [B, {self.c_dim}], got None")
            x.append(normalise_second_moment(self.embed(c)))
        x = torch.cat(x, dim=1)
        for index in range(self.num_layers):
            x = getattr(self, f"fc{index}")(x)
        w = x.unsqueeze(1).repeat(1, self.num_ws, 1)
        if psi == 1:
            return w
        if self.w_avg is None:
            raise ValueError(f"psi: this network holds no mean w (w_avg_beta is None), so psi must be 1, got {psi}")
        cutoff = self.num_ws if cutoff is None else cutoff
        return torch.cat([self.w_avg.lerp(w[:, :cutoff], psi), w[:, cutoff:]], dim=1)


class StyleGenerator(nn.Module):
    """A mapping and a synthesis network as a Generator; a ClassConditional one where c is one one-hot group.

    Attributes:
        space: what the latents [B, L, D] are, see spaces.py.
        groups: rows of each independent token.
        init_args: plain arguments that build the same architecture.
        class_names: names of the classes; only where there are any.
    """

    def __init__(
        self,
        synthesis: nn.Module,
        mapping: MappingNetwork,
        init_args: Mapping[str, Any],
        space: str = "w",
        label_shares: Sequence[Sequence[float]] | None = None,
        class_names: Sequence[str] | None = None,
        half_dtype: str | None = None,
    ):
        super().__init__()
        self.synthesis, self.mapping = synthesis, mapping
        self.z_dim, self.c_dim, self.space = mapping.z_dim, mapping.c_dim, space
        self.init_args = {name: _plain(value) for name, value in init_args.items()}
        self.resolution = self.init_args["img_resolution"]
        rows = mapping.num_ws
        self.groups = row_groups(space, rows)
        self.latent_shape = (1, self.z_dim + self.c_dim) if space == "z" else (rows, self.init_args["w_dim"])
        if half_dtype not in HALF_DTYPES:
            raise ValueError(f"half_dtype: expected float16, bfloat16 or None, got {half_dtype!r}")
        self.half_dtype = HALF_DTYPES[half_dtype]
        if label_shares is not None and sum(map(len, label_shares)) != self.c_dim:
            raise ValueError(
                f"label_shares: expected c_dim={self.c_dim} shares in all, got {sum(map(len, label_shares))}"
            )
        self.label_shares = label_shares or [[1.0] * self.c_dim]
        classes = self.c_dim if len(self.label_shares) == 1 else 0
        if class_names is not None and len(class_names) != classes:
            raise ValueError(f"class_names: expected {classes} names, one for each class, got {len(class_names)}")
        if classes:
            self.class_names = tuple(class_names or (f"class {index}" for index in range(classes)))

    def forward(
        self, z: Tensor, c: Tensor | None = None, psi: float = 1.0, cutoff: int | None = None, **synthesis: Any
    ) -> Tensor:
        """z [B, z_dim], c [B, c_dim] -> images [B, C, R, R]."""
        return self.synthesis(self.mapping(z, c, psi, cutoff), **synthesis)

    @torch.no_grad()
    def sample_latents(self, num: int, rng: torch.Generator, classes: Tensor | None = None) -> Tensor:
        """Draws z from N(0, 1) for each token, and labels for each image, and maps them: [num, L, D].

        Raises:
            ValueError: for classes [num] where the network has none, or not these.
        """
        z = torch.randn(num * len(self.groups), self.z_dim, generator=rng, device=rng.device)
        c = None
        if self.c_dim or classes is not None:
            c = self.sample_labels(num, rng) if classes is None else self._labels_of(classes, num)
            c = c.repeat_interleave(len(self.groups), dim=0).to(self._like)
        z = z.to(self._like)
        if self.space == "z":
            return (z if c is None else torch.cat([z, c], dim=1)).unsqueeze(1)
        w = self.mapping(z, c)[:, 0]
        return expand(w.unflatten(0, (num, len(self.groups))), self.groups)

    def sample_labels(self, num: int, rng: torch.Generator) -> Tensor:
        """Draws labels c [num, c_dim], one value of each group."""
        groups = []
        for shares in self.label_shares:
            weights = torch.tensor(shares, device=rng.device)
            chosen = torch.multinomial(weights, num, replacement=True, generator=rng)
            groups.append(F.one_hot(chosen, len(shares)))
        return torch.cat(groups, dim=1)

    def synthesize(self, latents: Tensor) -> Tensor:
        """latents [B, L, D] -> images [B, 3, R, R], about [-1, 1]; differentiable, the same image each time."""
        if tuple(latents.shape[1:]) != self.latent_shape:
            raise ValueError(
                f"latents: expected [B, {self.latent_shape[0]}, {self.latent_shape[1]}], got {list(latents.shape)}"
            )
        latents = latents.to(self._like.dtype)
        if self.space == "z":
            latents = self.mapping(*latents[:, 0].split([self.z_dim, self.c_dim], dim=1))
        return self.synthesis(latents, half_dtype=self.half_dtype)

    def project(self, latents: Tensor) -> Tensor:
        """Every z and every w is valid: returns latents."""
        return latents

    @property
    def _like(self) -> Tensor:
        return self.mapping.fc0.weight

    def _labels_of(self, classes: Tensor, num: int) -> Tensor:
        names = getattr(self, "class_names", ())
        if not names:
            raise ValueError("classes: this network has no classes, or several labels for each image: leave it out")
        if classes.shape != (num,) or classes.min() < 0 or classes.max() >= len(names):
            raise ValueError(f"classes: expected [{num}] indices from 0 to {len(names) - 1}, got {classes.tolist()}")
        return F.one_hot(classes.long(), self.c_dim)


def _plain(value: Any) -> Any:
    """Tuples as lists, numpy numbers as Python's, so that the value survives JSON unchanged."""
    if isinstance(value, Mapping):
        return {str(name): _plain(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value.item() if hasattr(value, "item") else value
