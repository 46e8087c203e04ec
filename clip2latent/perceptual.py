"""How different two images look: distances on the features of networks, of equal signature and differentiable.

Each `*_distance(embedder)` returns a `Features`, which is a `Distance`, and one to given pictures by `towards`.
"""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from clip2latent.downloads import cached_file, file_sha256
from clip2latent.interfaces import Embedder

Distance = Callable[[Tensor, Tensor], Tensor]
"""Two times images [B, 3, R, R] in [-1, 1] -> distances [B], from 0; differentiable in both."""


@dataclass(frozen=True)
class Features:
    """A `Distance` of what is seen in two images.

    Attributes:
        seen: images [B, 3, R, R] in [-1, 1] -> tensors [B, ...].
        compared: what was seen in B images, and in B or 1 others -> distances [B].
    """

    seen: Callable[[Tensor], list[Tensor]]
    compared: Callable[[list[Tensor], list[Tensor]], Tensor]

    def __call__(self, one: Tensor, other: Tensor) -> Tensor:
        """Returns the distances [B] of images [B, 3, R, R]."""
        return self.compared(self.seen(one), self.seen(other))

    def towards(self, pictures: Tensor) -> Callable[[Tensor], Tensor]:
        """Returns the distance to pictures [B, 3, R, R], or to one [1, 3, R, R], which are looked at once."""
        with torch.no_grad():
            wanted = self.seen(pictures)
        return lambda images: self.compared(self.seen(images), wanted)


ALEXNET = "https://download.pytorch.org/models/alexnet-owt-7be5be79.pth"
"""torchvision's weights, whose name ends in the first digits of their sha256."""


def feature_distance(embedder: Embedder) -> Features:
    """Returns a distance on the features that an open_clip model has on its way: LPIPS without learned weights.

    At every depth and place the features are divided by their norm over the channels and compared by their squared
    difference; the mean is over places, then over depths (Zhang et al. 2018, arXiv:1801.03924, eq. 1, with w = 1).

    Args:
        embedder: an OpenCLIPEmbedder.

    Raises:
        ValueError: for an embedder of another kind.
    """
    visual = getattr(getattr(embedder, "clip", None), "visual", None)
    preprocess = getattr(embedder, "preprocess", None)
    if preprocess is None or not hasattr(visual, "forward_intermediates"):
        raise ValueError(
            f"{type(embedder).__name__} does not show its features, as OpenCLIPEmbedder does: compare its embeddings"
            " of crops instead (crop_distance; --perceptual crops)"
        )

    def features(images: Tensor) -> list[Tensor]:
        seen = preprocess(images.to(torch.promote_types(images.dtype, torch.float32)))
        seen = seen.to(next(visual.parameters()).dtype)
        maps = visual.forward_intermediates(seen, intermediates_only=True)["image_intermediates"]
        return [_unit(each.float()) for each in maps]

    def compared(one: list[Tensor], other: list[Tensor]) -> Tensor:
        pairs = zip(one, other, strict=True)
        return torch.stack([(a - b).square().sum(1).mean((1, 2)) for a, b in pairs]).mean(0)

    return Features(features, compared)


def crop_distance(embedder: Embedder) -> Features:
    """Returns a distance on any embedder's embeddings of crops: the mean of 1 - cosine over nine overlapping ones.

    The crops are half as wide as the image, at its corners, edges and middle.

    Args:
        embedder: of any kind.
    """

    def embedded(images: Tensor) -> list[Tensor]:
        side = images.shape[-1]
        half, starts = (side + 1) // 2, (0, side // 4, side // 2)
        cut = [images[..., top : top + half, left : left + half] for top in starts for left in starts]
        embeddings = embedder.embed_images(torch.stack(cut, dim=1).flatten(0, 1))
        return [embeddings.unflatten(0, (len(images), -1))]

    def compared(one: list[Tensor], other: list[Tensor]) -> Tensor:
        return 1 - (one[0] * other[0]).sum(-1).mean(1)

    return Features(embedded, compared)


def lpips_distance(embedder: Embedder | None = None, backbone: Path | str | None = None) -> Features:
    """Returns LPIPS on AlexNet (Zhang et al. 2018, arXiv:1801.03924), version 0.1, by the package lpips.

    Args:
        embedder: not used; the same argument as the others'.
        backbone: torchvision's file of AlexNet's weights; None to take it from torch's cache or to fetch it.

    Raises:
        ValueError: where the package is not installed, or a file of weights does not fit.
        FileNotFoundError: where the backbone is not here and must not be fetched.
        DownloadError: where it cannot be fetched.
    """
    try:
        package = importlib.import_module("lpips")
    except ImportError as error:
        raise ValueError(
            f'LPIPS needs the package lpips ({error}): pip install "clip2latent[lpips]", or take a distance that needs'
            " nothing more (--perceptual features or crops)"
        ) from error
    # Built without weights: the package would fetch them unasked, and load files in a way that may run code.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it builds the backbone by an argument that torchvision no longer likes
        network = package.LPIPS(net="alex", pretrained=False, pnet_rand=True, verbose=False)
    weights = _read_weights(_alexnet(backbone))
    heads = _read_weights(Path(package.__file__).parent / "weights" / "v0.1" / "alex.pth")
    try:
        # The backbone's layers are torchvision's, in slices: slice2.3.weight is features.3.weight.
        names = network.net.state_dict()
        network.net.load_state_dict({name: weights["features." + name.partition(".")[2]] for name in names})
        for number, head in enumerate(network.lins):
            head.load_state_dict({name: heads[f"lin{number}.{name}"] for name in head.state_dict()})
    except (KeyError, RuntimeError) as error:
        raise ValueError(f"the weights of LPIPS do not fit the network of the package lpips: {error}") from error
    network.requires_grad_(False).eval()

    def compared(one: list[Tensor], other: list[Tensor]) -> Tensor:
        # The package sees both sides itself.
        return network.to(one[0].device)(one[0], other[0].expand_as(one[0])).flatten()

    return Features(lambda images: [images.float()], compared)


DISTANCES: dict[str, Callable[[Embedder], Features]] = {
    "features": feature_distance,
    "crops": crop_distance,
    "lpips": lpips_distance,
}


def _unit(features: Tensor) -> Tensor:
    """Divides features [B, C, H, W] by their norm over the channels; where all are 0 they stay 0, gradient and all."""
    return features * (features.square().sum(1, keepdim=True) + 1e-10).rsqrt()


def _alexnet(given: Path | str | None) -> Path:
    if given is not None:
        if not Path(given).is_file():
            raise FileNotFoundError(f"backbone: no file {given}; it is {ALEXNET}")
        return Path(given)
    name = ALEXNET.rpartition("/")[2]
    path = Path(torch.hub.get_dir()) / "checkpoints" / name
    if not path.is_file():
        try:
            path = cached_file(ALEXNET)
        except FileNotFoundError as error:
            raise FileNotFoundError(
                f"offline, and LPIPS needs AlexNet's weights: put {ALEXNET} at {path}, or take a distance that needs"
                " nothing more (--perceptual features or crops)"
            ) from error
    digits = name.removesuffix(".pth").rpartition("-")[2]
    if not file_sha256(path).startswith(digits):
        raise ValueError(f"{path} is damaged: its sha256 should begin with {digits}; remove it to fetch it again")
    return path


def _read_weights(path: Path) -> dict[str, Any]:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch's reader raises whatever a damaged file leads to
        raise ValueError(f"{path} is not a file of weights: {str(error).splitlines()[0]}") from error
