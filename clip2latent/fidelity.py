"""A generator beside the world it was trained on: Frechet distance and attribute histograms, through a judge."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from clip2latent.images import from_uint8
from clip2latent.metrics import normalised_frechet, total_variation
from clip2latent.references import BLOCK, Seed, World


class Judge(Protocol):
    """A classifier of attributes that nothing was optimised against, for images [B, 3, R, R] of any R."""

    attributes: Mapping[str, Sequence[str]]
    """attribute -> its values"""

    def classify(self, images: Tensor) -> Mapping[str, Tensor]:
        """Returns every attribute's most probable value, as indices [B]."""
        ...

    def features(self, images: Tensor) -> Tensor:
        """Returns features [B, F]."""
        ...


def fidelity(
    fake: Iterable[Tensor],
    judge: Judge,
    world: World,
    num: int,
    seed: Seed,
    device: torch.device | str = "cpu",
    progress: Callable[[int], Any] = lambda done: None,
) -> dict[str, Any]:
    """Compares a generator's images with as many renders, and these with as many others, which is the floor.

    Args:
        fake: chunks [B, 3, R, R] of the generator's images, `num` in all.
        judge: its features carry the Frechet distance, its readings the histograms, of renders too.
        world: draws the renders.
        num: images in each set.
        seed: of the renders.
        device: where the judge is.
        progress: called with the number of images done since the last call.

    Returns:
        "normalised_frechet" and "total_variation" (by attribute, and their mean), each also "real_against_real".
    """
    sets = {"fake": fake, "real": _pictures(world, 0, num, seed), "other": _pictures(world, num, num, seed)}
    features: dict[str, Tensor] = {}
    values: dict[str, dict[str, Tensor]] = {}
    for name, chunks in sets.items():
        seen = []
        with torch.no_grad():
            for images in chunks:
                seen.append((judge.features(images.to(device)).cpu(), judge.classify(images.to(device))))
                progress(len(images))
        features[name] = torch.cat([part for part, _ in seen])
        values[name] = {key: torch.cat([read[key].cpu() for _, read in seen]) for key in judge.attributes}

    def compare(name: str) -> dict[str, Any]:
        distances = {
            key: total_variation(values["real"][key], values[name][key], len(known))
            for key, known in judge.attributes.items()
        }
        return {
            "normalised_frechet": normalised_frechet(features["real"], features[name]),
            "mean_total_variation": sum(distances.values()) / len(distances),
            "total_variation": distances,
        }

    return {"images": num, **compare("fake"), "real_against_real": compare("other")}


def _pictures(world: World, start: int, num: int, seed: Seed) -> Iterable[Tensor]:
    """Yields pictures start .. start + num of a world, in chunks [B, 3, R, R]."""
    for first in range(start, start + num, BLOCK):
        pictures = []
        for index in range(first, min(first + BLOCK, start + num)):
            rng = np.random.default_rng((*seed, index))
            pictures.append(world.draw(world.sample_attributes(rng), rng))
        yield from_uint8(np.stack(pictures))
