"""ModuleGenerator: any nn.Module that maps noise to images, as a Generator."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from clip2latent.generators.class_latents import Z_LIMIT, truncated_normal


class Noise(NamedTuple):
    """A distribution of latents: how to draw a tensor of a shape, and the bound of what is valid."""

    draw: Callable[[Sequence[int], torch.Generator], Tensor]
    bound: float


def _normal(shape: Sequence[int], rng: torch.Generator) -> Tensor:
    return torch.randn(shape, generator=rng, device=rng.device)


def _uniform(shape: Sequence[int], rng: torch.Generator) -> Tensor:
    return 2 * torch.rand(shape, generator=rng, device=rng.device) - 1


def _truncated(shape: Sequence[int], rng: torch.Generator) -> Tensor:
    return truncated_normal(math.prod(shape[:-1]), shape[-1], rng).view(*shape)


NOISES = {
    "normal": Noise(_normal, math.inf),
    "uniform": Noise(_uniform, 1.0),
    "truncated": Noise(_truncated, Z_LIMIT),
}


class ModuleGenerator(nn.Module):
    """A frozen module as a Generator.

    Latents are the module's noise [B, L, D], each row drawn by itself. The module's images may be grey, and of any
    range: they come out as [B, 3, R, R] in [-1, 1].

    Attributes:
        latent_shape: (L, D).
        resolution: R.
        groups: one token for each latent row.
        space: "z".
    """

    space = "z"

    def __init__(
        self,
        module: nn.Module,
        latent_shape: Sequence[int],
        resolution: int,
        sample: str = "normal",
        output_range: Sequence[float] = (-1.0, 1.0),
        clamp: bool = False,
        input_shape: Sequence[int] | None = None,
    ) -> None:
        """Stores a built module and freezes it in evaluation mode.

        Args:
            module: noise [B, *input_shape] -> images [B, 3 or 1, R, R].
            latent_shape: (L, D).
            resolution: R.
            sample: the noise the module was trained with: "normal", "uniform" in [-1, 1], or "truncated", N(0, 1)
                within [-2, 2].
            output_range: the module's values of black and white.
            clamp: cut values outside the range; no gradient passes where it does.
            input_shape: one input's shape, of L * D numbers; None for (D,) with one row and (L, D) with several.

        Raises:
            ValueError: for an unknown noise, shapes that do not fit, or an empty range.
        """
        super().__init__()
        if len(latent_shape) != 2 or min(latent_shape) < 1:
            raise ValueError(f"latent_shape must be (L, D), got {list(latent_shape)}")
        rows, width = map(int, latent_shape)
        input_shape = tuple(input_shape or ((width,) if rows == 1 else (rows, width)))
        if math.prod(input_shape) != rows * width:
            raise ValueError(f"input_shape {list(input_shape)} must hold the {rows} x {width} numbers of a latent")
        if sample not in NOISES:
            raise ValueError(f"sample={sample!r}: expected one of {', '.join(NOISES)}")
        if len(output_range) != 2 or not output_range[0] < output_range[1]:
            raise ValueError(f"output_range must be (black, white) with black < white, got {list(output_range)}")
        self.module, self.resolution, self.latent_shape = module, int(resolution), (rows, width)
        self.input_shape, self.noise, self.clamp = input_shape, NOISES[sample], clamp
        self.black, self.white = map(float, output_range)
        self.groups = (1,) * rows
        self.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> ModuleGenerator:
        """Stays in evaluation mode: batch statistics would make an image depend on its batch."""
        return super().train(False)

    def sample_latents(self, num: int, rng: torch.Generator) -> Tensor:
        """Draws latents [num, L, D] from the module's noise, on the stream's device."""
        return self.noise.draw((num, *self.latent_shape), rng)

    def synthesize(self, latents: Tensor) -> Tensor:
        """Maps latents [B, L, D] to images [B, 3, R, R] in [-1, 1]; differentiable.

        Raises:
            ValueError: for latents of another shape, or where the module's output is not what was announced.
        """
        if tuple(latents.shape[1:]) != self.latent_shape:
            rows, width = self.latent_shape
            raise ValueError(f"latents: expected [B, {rows}, {width}], got {list(latents.shape)}")
        images = self.module(latents.reshape(-1, *self.input_shape))
        side = self.resolution
        if images.shape not in ((len(latents), 3, side, side), (len(latents), 1, side, side)):
            raise ValueError(
                f"{type(self.module).__name__} made {list(images.shape)} of {len(latents)} latents, expected"
                f" [B, 3 or 1, {side}, {side}]: resolution must be the side of its images"
            )
        images = (images - self.black) * (2 / (self.white - self.black)) - 1
        return (images.clamp(-1, 1) if self.clamp else images).expand(-1, 3, -1, -1)

    def project(self, latents: Tensor) -> Tensor:
        """Clamps latents to the noise's bound; normal noise has none."""
        return latents if math.isinf(self.noise.bound) else latents.clamp(-self.noise.bound, self.noise.bound)


def load_module_generator(
    module: dict[str, Any],
    weights: str,
    latent_shape: Sequence[int],
    resolution: int,
    sample: str = "normal",
    output_range: Sequence[float] = (-1.0, 1.0),
    clamp: bool = False,
    input_shape: Sequence[int] | None = None,
) -> ModuleGenerator:
    """Builds a module, loads its weights and wraps it: what a yaml file names.

    Args:
        module: {"class_path", "init_args"} of an importable nn.Module class.
        weights: a safetensors file of its state dict.
        latent_shape: and the following: see ModuleGenerator.
        resolution: R.
        sample: "normal", "uniform" or "truncated".
        output_range: the module's values of black and white.
        clamp: cut values outside the range.
        input_shape: one input's shape.

    Raises:
        FileNotFoundError: where there is no such file.
        ValueError: where the module cannot be built, or the weights do not fit it; lists the keys.
    """
    from clip2latent.spec import ModelSpec

    network = ModelSpec.from_dict(module).build()
    _load_strictly(network, Path(weights), module)
    return ModuleGenerator(network, latent_shape, resolution, sample, output_range, clamp, input_shape)


def _load_strictly(network: nn.Module, path: Path, module: Mapping[str, Any]) -> None:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if not path.is_file():
        raise FileNotFoundError(f"weights: {path} is missing")
    try:
        network.load_state_dict(load_file(path), strict=True)
    except (RuntimeError, SafetensorError) as error:
        raise ValueError(f"weights: {path} does not fit {module['class_path']}: {error}") from error
