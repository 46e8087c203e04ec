"""StyleGAN2 (Karras et al. 2020, arXiv:1912.04958), in pure PyTorch.

Constructor arguments, parameter names and function are those of the official code (NVlabs/stylegan3,
training/networks_stylegan2.py), so that official weights load strictly. Three things are done differently, with
equal results: a modulated convolution scales its input and output instead of building one weight per image, so that
one dense convolution serves the whole batch; on a CPU, without gradients, a frozen network's convolutions take the
forms of frozen_conv.py; and noise is an argument instead of a mode of the random state.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from clip2latent.generators.official import build_loaded
from clip2latent.generators.stylegan2_layers import (
    SQRT_HALF,
    Skip,
    SynthesisLayer,
    ToRGB,
    resampling_filter,
    upsample,
)
from clip2latent.generators.stylegan_latents import MappingNetwork, StyleGenerator

NOISE_MODES = ("const", "none", "random")
ARCHITECTURES = ("orig", "skip", "resnet")
# On a CPU, blocks with so many activations an image take one image at a time: 4 MB stay in its cache, a batch does not.
APART_FROM = 2**20


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
        self.architecture, self.use_half, self.values = architecture, use_half, outputs * resolution**2
        self.register_buffer("resample_filter", resampling_filter(resample_filter))
        if architecture not in ARCHITECTURES:
            raise ValueError(f"architecture: expected one of {', '.join(ARCHITECTURES)}, got {architecture!r}")
        layer_kwargs = dict(layer_kwargs, conv_clamp=conv_clamp)
        if inputs == 0:
            self.const = nn.Parameter(torch.randn(outputs, resolution, resolution))
        else:
            self.conv0 = SynthesisLayer(
                inputs, outputs, w_dim, resolution, up=2, resample_filter=resample_filter, **layer_kwargs
            )
        self.conv1 = SynthesisLayer(outputs, outputs, w_dim, resolution, **layer_kwargs)
        self.num_conv = 1 if inputs == 0 else 2
        self.num_torgb = int(is_last or architecture == "skip")
        if self.num_torgb:
            self.torgb = ToRGB(outputs, img_channels, w_dim, conv_clamp)
        if inputs and architecture == "resnet":
            self.skip = Skip(inputs, outputs, resample_filter)

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
        blocks = self.blocks()
        count = len(blocks)
        # Random noise is drawn for the whole batch at once.
        if ws.device.type == "cpu" and len(ws) > 1 and noise_mode != "random":
            count = max(1, sum(block.values < APART_FROM for block in blocks))
        settings = {"half_dtype": half_dtype, "noise_mode": noise_mode, "rng": rng}
        x, image = _run(blocks[:count], None, None, ws, **settings)
        if count == len(blocks):
            return image
        rows = ws[:, sum(block.num_conv for block in blocks[:count]) :]
        images = [None] * len(ws) if image is None else image.split(1)
        parts = zip(x.split(1), images, rows.split(1), strict=True)
        return torch.cat([_run(blocks[count:], *part, **settings)[1] for part in parts])


def _run(
    blocks: Sequence[SynthesisBlock],
    x: Tensor | None,
    image: Tensor | None,
    ws: Tensor,
    half_dtype: torch.dtype | None,
    **noise,
) -> tuple[Tensor, Tensor | None]:
    """Runs successive blocks; ws starts with the first one's row. A block's last row is also the next one's first."""
    for block in blocks:
        dtype = half_dtype if half_dtype is not None and block.use_half else ws.dtype
        x, image = block(x, image, ws[:, : block.num_conv + block.num_torgb], dtype, **noise)
        ws = ws[:, block.num_conv :]
    return x, image


class StyleGAN2(StyleGenerator):
    """A StyleGAN2 generator, with the constructor arguments of the official one; implements Generator.

    Images are not clamped: official weights overshoot [-1, 1] a little and gradients should pass.
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
        space: str = "w",
        class_names: Sequence[str] | None = None,
        half_dtype: str | None = None,
        synthesis_kwargs: dict | None = None,
        **network_kwargs,
    ):
        """Builds an untrained network.

        Args beyond the official ones:
            label_shares: for labels c that hold several one-hot groups side by side, how often each value of each group
                is drawn by `sample_labels`; one group of c_dim equally frequent classes when None.
            space: what the latents are: "w", "w3", "w+" or "z".
            class_names: the names of the c_dim classes.
            half_dtype: "float16" or "bfloat16" for the activations of the num_fp16_res highest resolutions.
            synthesis_kwargs: network_kwargs as the files of stylegan2-ada-pytorch hold them, with that code's defaults.
        """
        if synthesis_kwargs is not None:
            network_kwargs = {"conv_clamp": None, "num_fp16_res": 0, **synthesis_kwargs, **network_kwargs}
        for name in ("fused_modconv_default", "fp16_channels_last"):  # the official code's choice between equal forms
            network_kwargs.pop(name, None)
        synthesis = SynthesisNetwork(w_dim, img_resolution, img_channels, **network_kwargs)
        super().__init__(
            synthesis,
            MappingNetwork(z_dim, c_dim, w_dim, synthesis.num_ws, **(mapping_kwargs or {})),
            {
                "z_dim": z_dim,
                "c_dim": c_dim,
                "w_dim": w_dim,
                "img_resolution": img_resolution,
                "img_channels": img_channels,
                "mapping_kwargs": mapping_kwargs,
                "label_shares": label_shares,
                "space": space,
                "class_names": class_names,
                "half_dtype": half_dtype,
                **network_kwargs,
            },
            space,
            label_shares,
            class_names,
            half_dtype,
        )


def from_official(state: Mapping[str, Tensor], **arguments) -> StyleGAN2:
    """Returns the frozen StyleGAN2 of an official state dict.

    Args:
        state: the official generator's tensors under their own names.
        arguments: of `StyleGAN2`.

    Raises:
        ValueError: listing missing, unexpected and mis-shaped keys.
    """
    return build_loaded(lambda: StyleGAN2(**arguments), state)
