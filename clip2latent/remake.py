"""Pictures made again to the bit, from the recipes that their files hold.

A row of a batch depends on its own numbers alone, but how they are rounded depends on the batch's size. So a recipe
names the whole batch, its conditions bit for bit, and the number of threads, on which sums may depend as well.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from clip2latent.conditions import Conditions
from clip2latent.images import read_metadata, read_recipe, to_pil
from clip2latent.samples import Drawn
from clip2latent.sampling import Sampling
from clip2latent.text2image import TextToImage

MOST_ROWS = 1_000_000
"""More candidates than anybody draws in one run: a file must not be able to ask for more."""


class Remade(NamedTuple):
    """A picture drawn again, and how many of its pixels differ from the file's."""

    picture: Image.Image
    differing: int


def make_recipe(drawn: Drawn, prompt: int, place: int) -> dict[str, Any]:
    """Returns what makes an image again, plain types.

    Args:
        drawn: how the samples were drawn.
        prompt: the image's prompt, from 0.
        place: its place among the prompt's images, from 0.
    """
    first, rows = drawn.batches[prompt, place].tolist()
    named = range(first // drawn.candidates, (first + rows - 1) // drawn.candidates + 1)
    sides = {"conditions": drawn.conditions.positive, "negatives": drawn.conditions.negative}
    return {
        "sampling": asdict(drawn.sampling),
        "candidates": drawn.candidates,
        "first": first,
        "rows": rows,
        **{
            name: None if side is None else {str(index): encode(side[index]) for index in named}
            for name, side in sides.items()
        },
        "threads": torch.get_num_threads(),
    }


def remake(pipeline: TextToImage, path: Path | str) -> Remade:
    """Draws the picture of a file again.

    Args:
        pipeline: of the models it was drawn with.
        path: a PNG that `generate` wrote.

    Raises:
        FileNotFoundError: where there is no such file.
        ValueError: for a file without a recipe or with a damaged one, and for other models than the picture's.
    """
    path = Path(path)
    metadata, recipe = read_metadata(path), read_recipe(path)
    _check_models(path, metadata.get("models"), pipeline.identities())
    try:
        sampling = Sampling(**{**recipe["sampling"], "guidance": float(recipe["sampling"]["guidance"])})
        first, rows, candidates = (int(recipe[name]) for name in ("first", "rows", "candidates"))
        own = int(metadata["prompt_index"]) * candidates + int(metadata["candidate"]) - first
        if not 0 <= own < rows or first < 0 or candidates < 1 or first + rows + candidates > MOST_ROWS:
            raise ValueError(f"first={first}, rows={rows}, candidates={candidates}")
        prompts = (first + rows - 1) // candidates + 1
        positive = _table(recipe["conditions"], prompts, pipeline.embedder.dim)
        negative = None
        if recipe["negatives"] is not None:
            negative = _table(recipe["negatives"], prompts, pipeline.embedder.dim)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: its recipe is damaged, or of another version: {error}") from error
    conditions = Conditions(positive, negative, positive)
    images = pipeline.batch(first, first + rows, conditions, candidates, sampling).images
    picture = to_pil(images[own : own + 1])[0]
    with Image.open(path) as file:
        before = np.asarray(file.convert("RGB"))
    if before.shape != (picture.height, picture.width, 3):
        return Remade(picture, picture.height * picture.width)
    return Remade(picture, int((np.asarray(picture) != before).any(axis=-1).sum()))


def encode(vector: Tensor) -> str:
    """Writes numbers [E] as a text that keeps their bits in float32; `decode` reads it."""
    return base64.b64encode(vector.detach().cpu().float().numpy().astype("<f4").tobytes()).decode("ascii")


def decode(text: str) -> Tensor:
    """Reads numbers [E] that `encode` wrote; ValueError for another text."""
    return torch.from_numpy(np.frombuffer(base64.b64decode(text, validate=True), dtype="<f4").astype(np.float32))


def _table(encoded: Mapping[str, str], prompts: int, width: int) -> Tensor:
    """Conditions [P, E] with the encoded rows in their places, the others zero: they are not drawn."""
    table = torch.zeros(prompts, width)
    for index, text in encoded.items():
        row = decode(text)
        if int(index) not in range(prompts) or len(row) != width:
            raise ValueError(f"condition {index} of width {len(row)}: expected 0 to {prompts - 1} and width {width}")
        table[int(index)] = row
    return table


def _check_models(path: Path, recorded: Any, found: Mapping[str, Any]) -> None:
    """Raises ValueError where a model is not the one that the file names."""
    for name, model in (recorded if isinstance(recorded, dict) else {}).items():
        hashes = [(record or {}).get("sha256") for record in (model, found.get(name))]
        if name in found and all(hashes) and hashes[0] != hashes[1]:
            raise ValueError(
                f"{path} was drawn with the {name} of sha256 {hashes[0][:12]}, this checkpoint has {hashes[1][:12]}:"
                " name the checkpoint it was drawn with by --checkpoint"
            )
