"""Draws the sampling guide's pictures with the embedded demo: python docs/pictures/make.py [NAME ...].

Each function is one picture; its rows are calls of what the guide's commands call. Columns of a row are candidates in
the order they were drawn, so that the pictures of a column start from the same noise.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from clip2latent import TextToImage, find_direction, load_direction
from clip2latent.edit import mix as mixed
from clip2latent.edit import move
from clip2latent.images import grid, save_png
from clip2latent.interpolate import between_prompts, path
from clip2latent.ranking import augclip, rank_by
from clip2latent.redraw import redraw

FOLDER = Path(__file__).parent
COLUMNS = 7
OLD_MAN = "an old man with a red hat"
WOMAN = "a smiling woman"
ANGRY = "an angry bald man"


def drawn(pipeline: TextToImage, prompt: str, **options: Any) -> Tensor:
    """Returns all candidates of a prompt [COLUMNS, 3, R, R], in the order of their noise."""
    samples = pipeline.generate([prompt], COLUMNS, COLUMNS, **options)
    return samples.images[0, samples.candidates[0].argsort()]


def sheet(rows: Sequence[Tensor], labels: Sequence[str], headings: Sequence[str] = ()) -> Image.Image:
    """Lays out rows of images [N, 3, R, R]."""
    return grid(torch.stack(list(rows)), labels, headings=headings, cell=64, label_width=130)


def guidance(pipeline: TextToImage) -> Image.Image:
    scales = (0.0, 1.0, 1.5, 3.0, 10.0)
    return sheet([drawn(pipeline, ANGRY, guidance=g) for g in scales], [f"--guidance {g:g}" for g in scales])


def steps(pipeline: TextToImage) -> Image.Image:
    counts = (1, 2, 4, 8, 50)
    return sheet([drawn(pipeline, OLD_MAN, steps=n) for n in counts], [f"--steps {n}" for n in counts])


def samplers(pipeline: TextToImage) -> Image.Image:
    names = ("dpmpp", "ddim", "sde-dpmpp", "ddpm", "clip2latent-skip")
    return sheet([drawn(pipeline, OLD_MAN, sampler=name) for name in names], [f"--sampler {n}" for n in names])


def candidates(pipeline: TextToImage) -> Image.Image:
    counts, prompt = (7, 16, 64, 256), "a crying youthful face with a green crown"
    return sheet(
        [pipeline.generate([prompt], COLUMNS, n, guidance=1.0).images[0] for n in counts],
        [f"--candidates {n}" for n in counts],
    )


def rank(pipeline: TextToImage) -> Image.Image:
    views = rank_by(pipeline.embedder, pipeline.device, augclip())
    rows = [pipeline.generate(["a wizard"], COLUMNS, 64, guidance=1.0, ranking=way).images[0] for way in (None, views)]
    return sheet(rows, ["best 7 of 64 by CLIP", "--rank augclip"])


def truncation(pipeline: TextToImage) -> Image.Image:
    psis = (1.0, 0.7, 0.4, 0.0)
    return sheet([drawn(pipeline, WOMAN, truncation=psi) for psi in psis], [f"--truncation {psi:g}" for psi in psis])


def negative(pipeline: TextToImage) -> Image.Image:
    prompt, unwanted = "an old man", (None, "glasses", "a beard")
    rows = [drawn(pipeline, prompt, guidance=2.0, negative=text) for text in unwanted]
    return sheet(rows, [f'--negative "{text}"' if text else prompt for text in unwanted])


def mixtures(pipeline: TextToImage) -> Image.Image:
    prompts = ("a woman at night", *(f"a woman at night | pink hair::{weight}" for weight in (0.5, 1, 2)), "pink hair")
    return sheet([drawn(pipeline, prompt) for prompt in prompts], prompts)


def pictures(pipeline: TextToImage) -> Image.Image:
    first = pipeline.generate(["a man with a beard in front of a city"], 1)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "man.png"
        save_png(first.to_pil()[0][0], file)
        prompts = (f"{file}", f"{file} | a crown::0.5", f"{file} | glasses::-0.5")
        rows = [drawn(pipeline, prompt) for prompt in prompts]
    rows = [torch.cat([first.images[0], row[1:]]) for row in rows]
    labels = [prompt.replace(f"{file}", "man.png") for prompt in prompts]
    return sheet(rows, labels, ["man.png", "drawn", *[""] * (COLUMNS - 2)])


def seeds(pipeline: TextToImage) -> Image.Image:
    return sheet([drawn(pipeline, WOMAN, seed=seed) for seed in range(3)], [f"--seed {seed}" for seed in range(3)])


def edit(pipeline: TextToImage) -> Image.Image:
    names = ("smile", "old", "glasses", "long-hair", "night")
    strengths = (-1.0, -0.5, 0.0, 0.5, 1.0, 1.5, 2.0)
    woman = pipeline.generate(["a woman with blonde hair"], 1).latents[0, 0]
    rows = [torch.stack([move(woman, [(load_direction(name).vector, s)]) for s in strengths]) for name in names]
    return sheet([redraw(pipeline, row).images for row in rows], names, [f"{s:g}" for s in strengths])


def direction(pipeline: TextToImage) -> Image.Image:
    one = ["a man with pink hair", "a woman with pink hair"]
    other = ["a man with black hair", "a woman with black hair"]
    pink = find_direction(pipeline, one, other, name="pink-hair", num=8).vector
    strengths = (0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5)
    latents = pipeline.generate(["a woman at night", "a man in the snow"], 1).latents[:, 0]
    rows = [torch.stack([move(latent, [(pink, s)]) for s in strengths]) for latent in latents]
    labels = ["a woman at night", "a man in the snow"]
    return sheet([redraw(pipeline, row).images for row in rows], labels, [f"{s:g}" for s in strengths])


def mix(pipeline: TextToImage) -> Image.Image:
    kept, taken = pipeline.generate(["an old man with glasses", "a young woman on a beach"], 1).latents[:, 0]
    count = len(kept)
    firsts = (count, 6, 5, 4, 3, 2, 0)
    latents = torch.stack([mixed(kept, taken, range(first, count)) for first in firsts])
    headings = ["kept", *(f"--layers {first}-" for first in firsts[1:-1]), "taken"]
    return sheet([redraw(pipeline, latents).images], ["an old man with glasses, a young woman on a beach"], headings)


def interpolate(pipeline: TextToImage) -> Image.Image:
    prompts = ["a bald man with a beard", "a young woman on a beach"]
    ends = pipeline.generate(prompts, 1).latents[:, 0]
    rows = [redraw(pipeline, way).images for way in (between_prompts(pipeline, prompts, COLUMNS), path(ends, COLUMNS))]
    return sheet(rows, ["--through embeddings", "--through latents"])


PICTURES: tuple[Callable[[TextToImage], Image.Image], ...] = (
    guidance, steps, samplers, candidates, rank, truncation, negative, mixtures, pictures, seeds, edit, direction, mix,
    interpolate,
)  # fmt: skip


def main(names: Sequence[str]) -> None:
    """Draws the named pictures, or all."""
    pipeline = TextToImage.from_pretrained("demo", "cpu")
    for draw in PICTURES:
        if not names or draw.__name__ in names:
            draw(pipeline).save(FOLDER / f"{draw.__name__}.webp", quality=80, method=6)


if __name__ == "__main__":
    main(sys.argv[1:])
