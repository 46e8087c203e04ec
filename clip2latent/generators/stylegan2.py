"""StyleGAN2 (Karras et al. 2020, arXiv:1912.04958), in pure PyTorch.

Constructor arguments, parameter names and function are those of the official code (NVlabs/stylegan3,
training/networks_stylegan2.py), so that official weights load strictly. Two things are done differently, with
equal results: a modulated convolution scales its input and output instead of building one weight per image, so that
one dense convolution serves the whole batch; and noise is an argument instead of a mode of the random state.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clip2latent.generators.stylegan2_layers import (
    SQRT_HALF,
    FullyConnected,
    Skip,
    SynthesisLayer,
    ToRGB,
    resampling_filter,
    upsample,
)

NOISE_MODES = ("const", "none", "random")


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
        w_avg_beta: float = 0.998,
    ):
        super().__init__()
        self.z_dim, self.c_dim, self.num_ws, self.num_layers, self.w_avg_beta = (
            z_dim,
            c_dim,
            num_ws,
            num_layers,
            w_avg_beta,
        )
        embed_features = 0 if c_dim == 0 else (embed_features or w_dim)
        widths = [z_dim + embed_features] + [layer_features or w_dim] * (num_layers - 1) + [w_dim]
        if c_dim:
            self.embed = FullyConnected(c_dim, embed_features)
        for index in range(num_layers):
            layer = FullyConnected(widths[index], widths[index + 1], activation, lr_multiplier)
            self.add_module(f"fc{index}", layer)
        self.register_buffer("w_avg", torch.zeros(w_dim))

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
        cutoff = self.num_ws if cutoff is None else cutoff
        return torch.cat([self.w_avg.lerp(w[:, :cutoff], psi), w[:, cutoff:]], dim=1)


class SynthesisBlock(nn.Module):
    """The layers of one resolution."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        w_dim: int,
        resolution: int,
        img_channels: int,
        is_last: bool,
        architecture: str = "skip",
        resample_filter: Sequence[float] = (1, 3, 3, 1),
        conv_clamp: float | None = 256,
        use_half: bool = False,
        **layer_kwargs,
    ):
        super().__init__()
        self.architecture, self.use_half = architecture, use_half
        self.register_buffer("resample_filter", resampling_filter(resample_filter))
        layer_kwargs = dict(layer_kwargs, resample_filter=resample_filter, conv_clamp=conv_clamp)
        if inputs == 0:
            self.const = nn.Parameter(torch.randn(outputs, resolution, resolution))
        else:
            self.conv0 = SynthesisLayer(inputs, outputs, w_dim, resolution, up=2, **layer_kwargs)
        self.conv1 = SynthesisLayer(outputs, outputs, w_dim, resolution, **layer_kwargs)
        self.num_conv = 1 if inputs == 0 else 2
        self.num_torgb = int(is_last or architecture == "skip")
        if self.num_torgb:
            self.torgb = ToRGB(outputs, img_channels, w_dim, conv_clamp)
        if inputs and architecture == "resnet":
            self.skip = Skip(inputs, outputs, resample_filter, conv_clamp)

    def forward(
        self, x: Tensor | None, image: Tensor | None, ws: Tensor, dtype: torch.dtype, **noise
    ) -> tuple[Tensor, Tensor | None]:
        """ws [B, num_conv + num_torgb, w_dim]; dtype is that of the activations."""
        w = iter(ws.unbind(dim=1))
        if x is None:
            x = self.const.to(dtype).expand(ws.shape[0], -1, -1, -1).contiguous(memory_format=torch.channels_last)
            x = self.conv1(x, next(w), **noise)
        elif self.architecture == "resnet":
            x = x.to(dtype)
            shortcut = self.skip(x)
            x = shortcut + self.conv1(self.conv0(x, next(w), **noise), next(w), gain=SQRT_HALF, **noise)
        else:
            x = self.conv1(self.conv0(x.to(dtype), next(w), **noise), next(w), **noise)
        if image is not None:
            image = upsample(image, self.resample_filter)
        if self.num_torgb:
            colour = self.torgb(x, next(w)).to(ws.dtype)
            image = colour if image is None else image + colour
        return x, image


class SynthesisNetwork(nn.Module):
    """w [B, num_ws, w_dim] -> images [B, C, R, R], about [-1, 1]."""

    def __init__(
        self,
        w_dim: int,
        img_resolution: int,
        img_channels: int,
        channel_base: int = 32768,
        channel_max: int = 512,
        num_fp16_res: int = 4,
        **block_kwargs,
    ):
        super().__init__()
        if img_resolution < 4 or img_resolution & (img_resolution - 1):
            raise ValueError(f"img_resolution: expected a power of two of at least 4, got {img_resolution}")
        self.resolutions = [2**i for i in range(2, int(math.log2(img_resolution)) + 1)]
        first_half = max(2 * img_resolution // 2**num_fp16_res, 8)
        inputs = 0
        for resolution in self.resolutions:
            outputs = min(channel_base // resolution, channel_max)
            block = SynthesisBlock(
                inputs,
                outputs,
                w_dim,
                resolution,
                img_channels,
                is_last=resolution == img_resolution,
                use_half=num_fp16_res > 0 and resolution >= first_half,
                **block_kwargs,
            )
            self.add_module(f"b{resolution}", block)
            inputs = outputs
        self.num_ws = sum(b.num_conv for b in self.blocks()) + self.blocks()[-1].num_torgb

    def blocks(self) -> list[SynthesisBlock]:
        return [getattr(self, f"b{resolution}") for resolution in self.resolutions]

    def forward(
        self,
        ws: Tensor,
        noise_mode: str = "const",
        rng: torch.Generator | None = None,
        half_dtype: torch.dtype | None = None,
    ) -> Tensor:
        """half_dtype: dtype of the highest num_fp16_res resolutions; the parameters' dtype when None."""
        if noise_mode not in NOISE_MODES:
            raise ValueError(f"noise_mode: expected one of {', '.join(NOISE_MODES)}, got {noise_mode!r}")
        x = image = None
        first = 0
        for block in self.blocks():
            dtype = half_dtype if half_dtype is not None and block.use_half else ws.dtype
            rows = ws[:, first : first + block.num_conv + block.num_torgb]
            x, image = block(x, image, rows, dtype, noise_mode=noise_mode, rng=rng)
            first += block.num_conv
        return image


class StyleGAN2(nn.Module):
    """A StyleGAN2 generator, with the constructor arguments of the official one; implements Generator.

    Latents are w, one row a layer: [B, L, D] with L = num_ws and D = w_dim. Images are not clamped: official weights
    overshoot [-1, 1] a little and gradients should pass.
    """

    def __init__(
        self,
        z_dim: int,
        c_dim: int,
        w_dim: int,
        img_resolution: int,
        img_channels: int,
        mapping_kwargs: dict | None = None,
        label_shares: Sequence[Sequence[float]] | None = None,
        **synthesis_kwargs,
    ):
        """Builds an untrained network.

        Args beyond the official ones:
            label_shares: for labels c that hold several one-hot groups side by side, how often each value of each group
                is drawn by `sample_labels`; one group of c_dim equally frequent classes when None.
        """
        super().__init__()
        if label_shares is not None and sum(map(len, label_shares)) != c_dim:
            raise ValueError(f"label_shares: expected c_dim={c_dim} shares in all, got {sum(map(len, label_shares))}")
        self.label_shares = label_shares or [[1.0] * c_dim]
        synthesis_kwargs.pop("fused_modconv_default", None)  # the official code's choice between equal forms
        synthesis_kwargs.pop("fp16_channels_last", None)
        self.synthesis = SynthesisNetwork(w_dim, img_resolution, img_channels, **synthesis_kwargs)
        self.mapping = MappingNetwork(z_dim, c_dim, w_dim, self.synthesis.num_ws, **(mapping_kwargs or {}))
        self.z_dim, self.c_dim, self.resolution = z_dim, c_dim, img_resolution
        self.latent_shape = (self.synthesis.num_ws, w_dim)

    def forward(
        self, z: Tensor, c: Tensor | None = None, psi: float = 1.0, cutoff: int | None = None, **noise
    ) -> Tensor:
        """z [B, z_dim], c [B, c_dim] -> images [B, C, R, R]."""
        return self.synthesis(self.mapping(z, c, psi, cutoff), **noise)

    @torch.no_grad()
    def sample_latents(self, num: int, rng: torch.Generator) -> Tensor:
        """Draws z from N(0, 1), and labels where there are any, and maps them: [num, L, D]."""
        z = torch.randn(num, self.z_dim, generator=rng, device=rng.device)
        c = self.sample_labels(num, rng) if self.c_dim else None
        like = self.mapping.w_avg
        return self.mapping(z.to(like), None if c is None else c.to(like))

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
        return self.synthesis(latents)

    def project(self, latents: Tensor) -> Tensor:
        """Every w is valid: returns latents."""
        return latents
