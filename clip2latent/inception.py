"""Inception-v3 as FID and IS know it, from the torch-fidelity package and a file of the published weights."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from clip2latent.downloads import cached_file

WIDTH = 2048


class Inception(nn.Module):
    """The network of Heusel et al. 2017 with its own resizing to 299 px (TensorFlow 1's bilinear, not antialiased)."""

    def __init__(self, network: nn.Module) -> None:
        """Takes torch-fidelity's FeatureExtractorInceptionV3 of features "2048" and "logits_unbiased"."""
        super().__init__()
        self.network = network
        self.requires_grad_(False).eval()

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Returns features [B, 2048] and class probabilities [B, 1008] of images [B, 3, R, R] in [-1, 1]."""
        pixels = ((images.float().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
        features, logits = self.network(pixels)
        return features, logits.softmax(dim=1)


def load_inception(weights: Path | str | None = None) -> Inception:
    """Loads the network.

    Args:
        weights: a local file, safetensors or torch's without code (pt_inception-2015-12-05, or weights-inception-
            2015-12-05-6726825d.pth as torch-fidelity calls it); None for torch-fidelity's address of it, downloaded
            once.

    Raises:
        ModuleNotFoundError: without the torch-fidelity package.
        FileNotFoundError: where there is no such file, or offline no copy of it.
        ValueError: for a file that is no state dict, holds code, or does not fit.
    """
    module = _package()
    path = cached_file(module.URL_INCEPTION_V3) if weights is None else Path(weights)
    if not path.is_file():
        raise FileNotFoundError(f"no Inception weights {path}: give a file, or inception to download it")
    state = _state(path)
    with tempfile.TemporaryDirectory() as folder:
        # The package reads files with pickle: it is only ever given one that was read without, and written again.
        checked = Path(folder) / "weights.pth"
        torch.save(state, checked)
        try:
            network = module.FeatureExtractorInceptionV3(
                "inception-v3-compat", ["2048", "logits_unbiased"], feature_extractor_weights_path=str(checked)
            )
        except RuntimeError as error:
            raise ValueError(f"{path} does not hold the weights of FID's Inception-v3: {error}") from error
    return Inception(network)


def _package() -> Any:
    try:
        from torch_fidelity import feature_extractor_inceptionv3
    except ImportError as error:
        raise ValueError(
            "Inception features need the torch-fidelity package: pip install torch-fidelity; or give --features a judge"
            " or leave it out for the CLIP's own"
        ) from error
    return feature_extractor_inceptionv3


def _state(path: Path) -> dict[str, Tensor]:
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            state = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # safetensors and unpickling errors share no other class
        raise ValueError(f"{path} cannot be read as weights without code: {str(error).splitlines()[0]}") from error
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise ValueError(f"{path} does not hold tensors by name")
    return state
