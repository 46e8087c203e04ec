"""StyleGAN3, configurations T and R (Karras et al. 2021, arXiv:2106.12423), in pure PyTorch.

Constructor arguments, parameter names and function are those of the official code (NVlabs/stylegan3,
training/networks_stylegan3.py), so that official weights load strictly. Two things are done differently: a modulated
convolution scales its input and output, so that one dense convolution serves the whole batch, and an image does not
depend on the batch it is in (see `demodulated_conv`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from clip2latent.generators.official import build_loaded
from clip2latent.generators.stylegan3_layers import Band, FourierInput, SynthesisLayer, ToRGB
from clip2latent.generators.stylegan_latents import MappingNetwork, StyleGenerator


def bands(
    img_resolution: int,
    channel_base: float,
    channel_max: int,
    num_layers: int,
    num_critical: int,
    first_cutoff: float,
    first_stopband: float,
    last_stopband_rel: float,
    margin_size: int,
) -> list[Band]:
    """Returns the signal after each of the num_layers layers and after ToRGB (section 3.2 of the paper).

    Cutoff and stop band grow geometrically up to the last num_critical layers; the sampling rate is the power of two
    that holds the stop band, at most the image's.
    """
    last_cutoff = img_resolution / 2
    progress = np.minimum(np.arange(num_layers + 1) / (num_layers - num_critical), 1)
    cutoffs = first_cutoff * (last_cutoff / first_cutoff) ** progress
    stopbands = first_stopband * (last_cutoff * last_stopband_rel / first_stopband) ** progress
    rates = np.exp2(np.ceil(np.log2(np.minimum(2 * stopbands, img_resolution))))
    half_widths = np.maximum(stopbands, rates / 2) - cutoffs
    sizes = rates + 2 * margin_size
    sizes[-2:] = img_resolution
    channels = np.rint(np.minimum(channel_base / 2 / cutoffs, channel_max))
    columns = (channels.astype(int), sizes.astype(int), rates.astype(int), cutoffs, half_widths)
    return [Band(*row) for row in zip(*(column.tolist() for column in columns), strict=True)]


class SynthesisNetwork(nn.Module):
    """w [B, num_ws, w_dim] -> images [B, C, R, R], about [-1, 1]."""

    def __init__(
        self,
        w_dim: int,
        img_resolution: int,
        img_channels: int,
        channel_base: float = 32768,
        channel_max: int = 512,
        num_layers: int = 14,
        num_critical: int = 2,
        first_cutoff: float = 2,
        first_stopband: float = 2**2.1,
        last_stopband_rel: float = 2**0.3,
        margin_size: int = 10,
        output_scale: float = 0.25,
        num_fp16_res: int = 4,
        **layer_kwargs,
    ):
        super().__init__()
        if img_resolution < 4 or img_resolution & (img_resolution - 1):
            raise ValueError(f"img_resolution: expected a power of two of at least 4, got {img_resolution}")
        if not 0 <= num_critical < num_layers:
            raise ValueError(f"num_critical: expected 0 to num_layers - 1 = {num_layers - 1}, got {num_critical}")
        layer_kwargs = dict(layer_kwargs)
        layer_kwargs.pop("magnitude_ema_beta", None)  # of training
        self.output_scale, self.num_ws = output_scale, num_layers + 2
        chain = bands(
            img_resolution,
            channel_base,
            channel_max,
            num_layers,
            num_critical,
            first_cutoff,
            first_stopband,
            last_stopband_rel,
            margin_size,
        )
        self.input = FourierInput(w_dim, chain[0])
        self.layer_names = []
        for index, after in enumerate(chain):
            before = chain[max(index - 1, 0)]
            use_half = after.rate * 2**num_fp16_res > img_resolution
            if index < num_layers:
                critical = index >= num_layers - num_critical
                layer = SynthesisLayer(w_dim, before, after, critical, use_half, **layer_kwargs)
            else:
                after = after._replace(channels=img_channels)
                clamp = layer_kwargs.get("conv_clamp", 256)
                layer = ToRGB(w_dim, before.channels, img_channels, use_half, clamp)
            self.layer_names.append(f"L{index}_{after.size}_{after.channels}")
            self.add_module(self.layer_names[-1], layer)

    def forward(self, ws: Tensor, noise_mode: str = "const", half_dtype: torch.dtype | None = None) -> Tensor:
        """Draws the images.

        Args:
            ws: [B, num_ws, w_dim].
            noise_mode: taken for StyleGAN2's sake and without effect, there is no noise.
            half_dtype: dtype of the layers with the num_fp16_res highest sampling rates; the parameters' dtype when
                None.
        """
        first, *rest = ws.unbind(dim=1)
        x = self.input(first)
        for name, w in zip(self.layer_names, rest, strict=True):
            layer = getattr(self, name)
            x = layer(x, w, half_dtype if half_dtype is not None and layer.use_half else ws.dtype)
        return x.to(ws.dtype) * self.output_scale


class StyleGAN3(StyleGenerator):
    """A StyleGAN3 generator, with the constructor arguments of the official one; implements Generator.

    Config T has the default arguments, config R conv_kernel=1, use_radial_filters=True and twice channel_base and
    channel_max. Images are not clamped: official weights overshoot [-1, 1] a little and gradients should pass.
    """

    def __init__(
        self,
        z_dim: int,
        c_dim: int,
        w_dim: int,
        img_resolution: int,
        img_channels: int,
        mapping_kwargs: dict | None = None,
        space: str = "w",
        class_names: Sequence[str] | None = None,
        half_dtype: str | None = None,
        **synthesis_kwargs,
    ):
        """Builds an untrained network.

        Args beyond the official ones:
            space: what the latents are: "w", "w3", "w+" or "z".
            class_names: the names of the c_dim classes.
            half_dtype: "float16" or "bfloat16" for the activations of the num_fp16_res highest sampling rates.
        """
        mapping = {"num_layers": 2, **(mapping_kwargs or {})}
        for name in ("freeze_layers", "freeze_embed"):  # of training
            mapping.pop(name, None)
        synthesis = SynthesisNetwork(w_dim, img_resolution, img_channels, **synthesis_kwargs)
        super().__init__(
            synthesis,
            MappingNetwork(z_dim, c_dim, w_dim, synthesis.num_ws, **mapping),
            {
                "z_dim": z_dim,
                "c_dim": c_dim,
                "w_dim": w_dim,
                "img_resolution": img_resolution,
                "img_channels": img_channels,
                "mapping_kwargs": mapping_kwargs,
                "space": space,
                "class_names": class_names,
                "half_dtype": half_dtype,
                **synthesis_kwargs,
            },
            space,
            class_names=class_names,
            half_dtype=half_dtype,
        )


def from_official(state: Mapping[str, Tensor], **arguments) -> StyleGAN3:
    """Returns the frozen StyleGAN3 of an official state dict.

    Args:
        state: the official generator's tensors under their own names.
        arguments: of `StyleGAN3`.

    Raises:
        ValueError: listing missing, unexpected and mis-shaped keys.
    """
    return build_loaded(lambda: StyleGAN3(**arguments), state)
