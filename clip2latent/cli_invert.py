"""The command that inverts one's own pictures. Whatever is slow to import is imported inside it."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from clip2latent.outputs import choose_folder, slug, write_json
from clip2latent.progress import progress_bar

RECORD = "inversion.json"
KEPT = 16
"""Of the start's candidates, how many are compared with the picture by all distances."""
CLASSES = 10
"""Of a generator's classes, how many nearest to the picture the start is drawn from."""


def invert(
    pictures: list[str],
    checkpoint: str = "demo",
    generator: str | None = None,
    embedder: str = "demo",
    space: str = "w+",
    steps: int = 100,
    candidates: int | None = None,
    lr: float = 0.1,
    perceptual: str = "features",
    pixel_weight: float = 1.0,
    perceptual_weight: float = 1.0,
    clip_weight: float = 0.5,
    seed: int = 0,
    out: str | None = None,
    overwrite: bool = False,
    chunk: int = 16,
) -> None:
    """Finds the latents of your own pictures, which edit, mix and interpolate then take.

    The best of the prior's images given the picture's own embedding is the start, from which the latent is optimised.
    Ctrl-C writes the best so far.

    Args:
        pictures: Picture files of any size; of one that is not square the middle is taken.
        checkpoint: As for generate.
        generator: One without a prior, in the place of the checkpoint's: demo-objects, a folder, a file,
            hf://owner/name/file, or a yaml file as in configs/generator/. The start is then its best random image.
        embedder: That generator's CLIP: demo, a yaml file as in configs/embedder/, a folder, MODEL/TAG of open_clip, or
            hf-hub:owner/name.
        space: w+, in which each layer of a StyleGAN has a w of its own and the picture is met more closely; or w, where
            directions act a little more strongly.
        steps: Of the optimiser.
        candidates: Images to choose the start from (default: 16 of the prior, or 500 random ones).
        lr: How far a step goes, in standard deviations of the latents.
        perceptual: How likeness is measured beside pixels: features of the CLIP, its embeddings of crops, or lpips (it
            needs: pip install "clip2latent[lpips]").
        pixel_weight: Of the mean squared difference of pixels in what is made small.
        perceptual_weight: Of the perceptual distance in it.
        clip_weight: Of the distance of the CLIP embeddings in it.
        seed: Of the start.
        out: Output folder (default: a new one, outputs/invert-<picture>-<number>).
        overwrite: Write into an output folder that already holds files.
        chunk: Pictures inverted at once; fewer need less memory.
    """
    if not pictures:
        raise ValueError("no picture: name a PNG, JPEG or WebP file, such as photo.png")
    if space not in ("w", "w+"):
        raise ValueError(f"space={space!r}: expected w or w+")
    folder = choose_folder(out, f"invert-{slug(Path(pictures[0]).stem, 40)}", overwrite)
    import torch

    from clip2latent.images import grid, read_picture
    from clip2latent.initial import Picking
    from clip2latent.invert import Inverting, compare_by, fit_picture, nearest
    from clip2latent.invert import invert as descend
    from clip2latent.perceptual import DISTANCES
    from clip2latent.refine import Refining
    from clip2latent.saved import save_edited

    refining = Refining(steps, lr, seed=seed, chunk=chunk)
    inverting = Inverting(pixel_weight, perceptual_weight, clip_weight, None if space == "w" else space, refining)
    if perceptual not in DISTANCES:
        raise ValueError(f"perceptual={perceptual!r}: expected one of {', '.join(DISTANCES)}")
    candidates = (16 if generator is None else 500) if candidates is None else candidates
    picking = Picking(min(candidates, KEPT), candidates, seed)
    read = {picture: read_picture(_plain(picture)) for picture in pictures}
    for picture in read:
        _say_crop(picture)
    if generator is None:
        models = _from_checkpoint(checkpoint, picking)
    else:
        models = _from_generator(generator, embedder, picking, chunk)
    comparison = compare_by(models.embedder, DISTANCES[perceptual](models.embedder))
    targets = [fit_picture(image.to(models.device), models.generator.resolution) for image in read.values()]
    started, interrupted, parts, starts = time.monotonic(), False, [], []
    with progress_bar("choosing starts", len(read)) as bar:
        for (picture, image), target in zip(read.items(), targets, strict=True):
            found = models.candidates(picture, image.to(models.device))
            starts.append(nearest(models.generator, comparison, inverting, found, target))
            bar.update(1)
    with progress_bar("inverting", len(read) * steps) as bar:
        for first in range(0, len(read), chunk):
            rows = slice(first, first + chunk)
            problem = (torch.cat(targets[rows]), torch.stack(starts[rows]))
            parts.append(descend(models.generator, comparison, *problem, inverting, _watch(bar), groups=models.groups))
            interrupted = parts[-1].interrupted
            if interrupted:
                break
    seconds = time.monotonic() - started
    latents, images, start = (torch.cat([getattr(part, name) for part in parts]).cpu() for name in FIELDS)
    names, shown = list(read)[: len(latents)], torch.cat(targets[: len(latents)]).cpu()
    told = _told(names, parts)
    labels = [Path(name).name for name in names]
    sheet = grid(torch.stack([shown, start, images], dim=1), labels, headings=["picture", "start", "inverted"])
    options = {"command": "invert", "pictures": names, **models.options, "candidates": candidates}
    options |= {"space": space, "steps": steps, "lr": lr, "perceptual": perceptual, "pixel_weight": pixel_weight}
    options |= {"perceptual_weight": perceptual_weight, "clip_weight": clip_weight, "seed": seed}
    options["interrupted"] = interrupted
    extras = {RECORD: lambda path: write_json(path, {"pictures": told})}
    save_edited(folder, labels, latents[:, None], images[:, None], sheet, options, models.identities, extras)
    for entry in told:
        before, after = entry["before"], entry["after"]
        numbers = ", ".join(f"{name} {before[name]:.3f} -> {after[name]:.3f}" for name in after)
        print(f"{entry['picture']}: {numbers}")
        if entry["stopped"] == "not a number":
            print(f"warning: {entry['picture']}: a loss was not a number; the best before it is kept", file=sys.stderr)
    print(f"{len(names)} pictures inverted in {seconds:.1f} s; the distances are in {folder / RECORD}")
    print(f"{folder / 'grid.png'}: each picture, the start, and what came of it")
    readers = "edit, mix and interpolate take" if generator is None else "compose takes"
    print(f"{folder}{os.sep}*.png, results.json, latents.safetensors, which {readers}")
    if interrupted:
        left = len(read) - len(names)
        print(
            f"interrupted: the best so far was written{f'; {left} pictures were not begun' if left else ''}",
            file=sys.stderr,
        )
        raise SystemExit(130)


FIELDS = ("latents", "images", "start")


class _Models(NamedTuple):
    """What inverts: the models, candidates [N, L, D] for a start (path, image -> latents), and what results record."""

    generator: Any
    embedder: Any
    device: Any
    groups: Any
    candidates: Callable[[str, Any], Any]
    options: dict[str, Any]
    identities: dict[str, Any]


def _from_checkpoint(checkpoint: str, picking: Any) -> _Models:
    """Loads a prior and its models; it draws the candidates, given the picture's own embedding."""
    from clip2latent.initial import from_prior
    from clip2latent.text2image import TextToImage

    pipeline = TextToImage.from_pretrained(checkpoint)
    initial = from_prior(pipeline, picking)

    def candidates(picture: str, image: Any) -> Any:
        return initial([picture], image).latents[0]

    options = {"checkpoint": checkpoint}
    models = (pipeline.generator, pipeline.embedder, pipeline.device, pipeline.space.groups)
    return _Models(*models, candidates, options, pipeline.identities())


def _from_generator(generator: str, embedder: str, picking: Any, chunk: int) -> _Models:
    """Loads a generator and a CLIP; candidates are random, of the classes nearest to the picture where it has any."""
    import torch

    from clip2latent.cli_banks import load_banks
    from clip2latent.initial import from_labels, from_random

    banks, specs = load_banks(generator, embedder, "auto", max(chunk, 16))
    names = getattr(banks.generator, "class_names", None)
    initial = from_random(banks, picking) if names is None else from_labels(banks, picking, min(CLASSES, len(names)))

    @torch.no_grad()
    def candidates(picture: str, image: Any) -> Any:
        return initial([picture], banks.embedder.embed_images(image)).latents[0]

    options = {"generator": generator, "embedder": embedder}
    identities = {name: spec.to_dict() for name, spec in specs.items()}
    return _Models(banks.generator, banks.embedder, banks.device, None, candidates, options, identities)


def _plain(picture: str) -> str:
    """Returns a picture's path; ValueError for what prompts would read as something else."""
    from clip2latent.mixtures import PICTURES

    if not picture.lower().endswith(PICTURES) or "|" in picture or "::" in picture:
        raise ValueError(f"{picture!r}: expected one picture file, {', '.join(PICTURES)}, without | and :: in its name")
    return picture


def _say_crop(picture: str) -> None:
    from PIL import Image

    with Image.open(picture) as opened:
        width, height = opened.size
    if width != height:
        print(f"{picture} is {width} x {height}: its middle square is taken, {min(width, height)} pixels a side")


def _told(names: Sequence[str], parts: Sequence[Any]) -> list[dict[str, Any]]:
    """Each picture's distances before and after, plain types."""
    from clip2latent.refine_state import REASONS

    rows = [(part, row) for part in parts for row in range(len(part.latents))]
    return [
        {
            "picture": name,
            **{side: _distances(getattr(part, side), row) for side in ("before", "after")},
            "found_at_step": int(part.found[row]),
            "stopped": REASONS[int(part.stopped[row])],
        }
        for name, (part, row) in zip(names, rows, strict=True)
    ]


def _distances(likeness: Any, row: int) -> dict[str, float]:
    return {name: round(float(values[row]), 6) for name, values in likeness._asdict().items()}


def _watch(bar: Any) -> Callable[[Any], None]:
    """Returns what shows a state on a bar."""
    seen = 0

    def show(state: Any) -> None:
        nonlocal seen
        step = int(state.step)
        bar.set_postfix_str(f"distance {float(state.losses.mean()):.4f}", refresh=False)
        bar.update((step - seen) * len(state.losses))
        seen = step

    return show
