"""The commands that edit: along directions, by mixing, by going between. What is slow to import is imported inside."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from clip2latent.cli_generate import warn_of_unknown_words
from clip2latent.outputs import choose_folder, slug
from clip2latent.progress import progress_bar


def edit(
    sources: list[str],
    directions: str | None = None,
    layers: str | None = None,
    truncation: float = 1.0,
    cutoff: int | None = None,
    columns: int = 5,
    num: int = 1,
    checkpoint: str | None = None,
    candidates: int | None = None,
    guidance: float | None = None,
    steps: int = 8,
    seed: int = 0,
    out: str | None = None,
    overwrite: bool = False,
    chunk: int = 64,
) -> None:
    """Changes images of prompts or of results along directions, as --directions smile=1,glasses=1.

    Args:
        sources: Prompts as for generate, folders of results, or latents.safetensors files.
        directions: Which and how far, as smile=1.5,glasses=-1: a name of the demo's (beard, dark-skin, glasses,
            long-hair, night, old, smile, sunglasses, top-hat, woman) or a file of 1 x D or L x D numbers,
            .safetensors (as direction writes), .npy or .pt. Negative is the other way.
        layers: What directions change of the generator's layers, 0 the coarsest, as 0-3 or 2,4- (default: all).
        truncation: Draws towards the average image: 1 changes nothing, 0 is the average.
        cutoff: Truncation changes the layers below this number only (default: all).
        columns: Pictures in each row of the grid, from the unchanged image to the changed one, which is kept.
        num: Images of each prompt, or of each prompt in a folder of results.
        checkpoint: As for generate (default: what the results were made with, or demo).
        candidates: Images to choose from for each new prompt (default: 16).
        guidance: How strongly to follow new prompts (default: what the checkpoint recommends).
        steps: Sampling steps of new prompts.
        seed: Of new prompts.
        out: Output folder (default: a new one, outputs/edit-<prompt>-<number>); edits of its results go on from there.
        overwrite: Write into an output folder that already holds files.
        chunk: Images made at once; fewer need less memory.
    """
    if not sources:
        raise ValueError('nothing to edit: give a prompt such as "an old man", or a folder that generate wrote')
    if columns < 1:
        raise ValueError(f"columns={columns}: expected at least 1")
    import torch

    from clip2latent import edit as edits
    from clip2latent.directions import load_direction, parse_directions
    from clip2latent.images import grid
    from clip2latent.redraw import redraw
    from clip2latent.saved import save_edited
    from clip2latent.starts import Drawing, checkpoint_of, described, gather, read_sources

    wanted = parse_directions(directions or "")
    if not wanted and truncation == 1:
        raise ValueError("no change: give --directions such as smile=1, or --truncation such as 0.5")
    found = [(load_direction(source), strength) for source, strength in wanted]
    loaded = [(direction.vector, strength) for direction, strength in found]
    drawing, read = Drawing(num, candidates, guidance, steps, seed, chunk), read_sources(sources)
    checkpoint, folder = checkpoint or checkpoint_of(read), _folder("edit", sources, out, overwrite)
    pipeline = _load(checkpoint, read)
    for direction, _ in found:
        if not direction.is_of(pipeline.config.get("generator")):
            name = direction.description["name"]
            print(f"warning: direction {name} was found in the latents of another generator", file=sys.stderr)
    chosen = edits.parse_layers(layers, pipeline.generator.latent_shape[0]) if layers is not None else None
    below = None if cutoff is None else range(cutoff)
    mean = edits.mean_latent(pipeline.space).cpu()
    edits.move(edits.truncate(mean, mean, truncation, below), loaded, chosen)  # fails before anything is drawn
    starts = gather(pipeline, read, drawing)
    shares = [1.0] if columns == 1 else [column / (columns - 1) for column in range(columns)]
    way = []
    for share in shares:
        latents = edits.truncate(starts.latents, mean, 1 + share * (truncation - 1), below)
        way.append(edits.move(latents, [(vector, share * strength) for vector, strength in loaded], chosen))
    latents, images = redraw(pipeline, torch.stack(way, dim=1), chunk)
    options = described("edit", pipeline, sources, checkpoint, drawing)
    options |= {"directions": directions, "layers": layers, "truncation": truncation, "cutoff": cutoff}
    sheet = grid(images, starts.labels, headings=[f"{100 * share:.0f} %" for share in shares])
    save_edited(folder, starts.labels, latents[:, -1:], images[:, -1:], sheet, options, pipeline.identities())
    print(f"{folder / 'grid.png'}: {len(images)} images, from unchanged to changed")
    print(f"{folder}{os.sep}*.png, results.json, latents.safetensors: the changed ones")


def mix(
    sources: list[str],
    layers: str = "4-",
    num: int = 4,
    checkpoint: str | None = None,
    candidates: int | None = None,
    guidance: float | None = None,
    steps: int = 8,
    seed: int = 0,
    out: str | None = None,
    overwrite: bool = False,
    chunk: int = 64,
) -> None:
    """Mixes styles: some layers from one prompt's images or from random ones, the rest from another's.

    Args:
        sources: What is kept, and what the layers are taken from: each a prompt as for generate, a folder of
            results, or a latents.safetensors file. Without the second, the layers are taken from random latents.
        layers: The generator's layers to take, as 0-3 or 2,4-. Coarse layers, 0 first, hold shapes, fine ones colours.
        num: Images of each prompt on either side; the grid shows every pair.
        checkpoint: As for generate (default: what the results were made with, or demo).
        candidates: Images to choose from for each new prompt (default: 16).
        guidance: How strongly to follow new prompts (default: what the checkpoint recommends).
        steps: Sampling steps of new prompts.
        seed: Of new prompts and of random latents.
        out: Output folder (default: a new one, outputs/mix-<prompt>-<number>).
        overwrite: Write into an output folder that already holds files.
        chunk: Images made at once; fewer need less memory.
    """
    if len(sources) not in (1, 2):
        raise ValueError(f"mix takes what is kept and what the layers are taken from: give 1 or 2, got {len(sources)}")
    import torch

    from clip2latent import edit as edits
    from clip2latent.images import grid
    from clip2latent.redraw import redraw
    from clip2latent.saved import save_edited
    from clip2latent.starts import Drawing, Starts, checkpoint_of, described, gather, read_sources

    drawing, read = Drawing(num, candidates, guidance, steps, seed, chunk), read_sources(sources)
    checkpoint, folder = checkpoint or checkpoint_of(read), _folder("mix", sources, out, overwrite)
    pipeline = _load(checkpoint, read)
    chosen = edits.parse_layers(layers, pipeline.generator.latent_shape[0])
    kept = gather(pipeline, read[:1], drawing)
    if read[1:]:
        taken = gather(pipeline, read[1:], drawing)
    else:
        rng = torch.Generator().manual_seed(seed)
        taken = Starts(["random"] * num, pipeline.generator.sample_latents(num, rng).cpu())
    latents, images = redraw(pipeline, edits.mix(kept.latents[:, None], taken.latents[None], chosen), chunk)
    left, above = (redraw(pipeline, side.latents, chunk).images for side in (kept, taken))
    corner = torch.ones_like(above[:1])
    cells = torch.cat([torch.cat([corner, above])[None], torch.cat([left[:, None], images], dim=1)])
    sheet = grid(cells, [f"layers {layers} of", *kept.labels], headings=["", *taken.labels])
    options = described("mix", pipeline, sources, checkpoint, drawing) | {"layers": layers}
    labels = [f"{label} with layers {layers} of {taken.labels[0]}" for label in kept.labels]
    save_edited(folder, labels, latents, images, sheet, options, pipeline.identities())
    print(f"{folder / 'grid.png'}: left what is kept, above what layers {layers} are taken from")
    print(f"{folder}{os.sep}*.png, results.json, latents.safetensors: the mixtures")


def interpolate(
    sources: list[str],
    through: str | None = None,
    frames: int = 24,
    video: str = "webp",
    fps: float = 12.0,
    num: int = 1,
    checkpoint: str | None = None,
    candidates: int | None = None,
    guidance: float | None = None,
    steps: int = 8,
    seed: int = 0,
    out: str | None = None,
    overwrite: bool = False,
    chunk: int = 64,
) -> None:
    """Goes from prompt to prompt or from result to result, and writes the way as a strip and a video.

    Args:
        sources: Two or more, in order: prompts as for generate, folders of results, or latents.safetensors files.
        through: embeddings, every frame drawn from a mixture of two texts; or latents, the straight way from image to
            image (default: embeddings between texts, latents where there are results, pictures or mixtures).
        frames: From one image to the next, both included.
        video: webp, or mp4 (it needs: pip install "clip2latent[video]"), or none.
        fps: Frames a second.
        num: Images of each prompt to go through latents of, best first.
        checkpoint: As for generate (default: what the results were made with, or demo).
        candidates: Images to choose from (default: 16 for each new prompt; through embeddings 4 whole ways).
        guidance: How strongly to follow new prompts (default: what the checkpoint recommends).
        steps: Sampling steps.
        seed: The same seed gives the same images.
        out: Output folder (default: a new one, outputs/interpolate-<prompt>-<number>).
        overwrite: Write into an output folder that already holds files.
        chunk: Images made at once; fewer need less memory.
    """
    from clip2latent.animation import check_video, save_video, strip
    from clip2latent.interpolate import between_prompts, check_way, path
    from clip2latent.redraw import redraw
    from clip2latent.saved import save_edited
    from clip2latent.starts import Drawing, checkpoint_of, described, gather, read_sources

    if through not in (None, "embeddings", "latents"):
        raise ValueError(f"through={through!r}: expected embeddings or latents")
    read = read_sources(sources)
    plain = all(source.is_plain for source in read)
    through = through or ("embeddings" if plain and num == 1 else "latents")
    if through == "embeddings":
        if not plain:
            raise ValueError("through=embeddings goes between texts only: leave it out for results, pictures, mixtures")
        check_way(len(read), frames)
        num, candidates = 1, 4 if candidates is None else candidates
    check_way(2, frames)
    if video != "none":
        check_video(f"video.{video}", fps)
    drawing = Drawing(num, candidates, guidance, steps, seed, chunk)
    checkpoint, folder = checkpoint or checkpoint_of(read), _folder("interpolate", sources, out, overwrite)
    pipeline, stops = _load(checkpoint, read), list(sources)
    if through == "embeddings":
        with progress_bar("drawing", ((len(stops) - 1) * (frames - 1) + 1) * drawing.candidates) as bar:
            way = between_prompts(pipeline, stops, frames, drawing.candidates, drawing.sampling(), bar.update)
    else:
        stops, points = gather(pipeline, read, drawing)
        way = path(points, frames)
    latents, images = redraw(pipeline, way, chunk)
    options = described("interpolate", pipeline, sources, checkpoint, drawing)
    options |= {"through": through, "frames": frames, "fps": fps}
    extras = {} if video == "none" else {f"video.{video}": lambda file: save_video(images, file, fps)}
    sheet, label = strip(images, stops), " to ".join(dict.fromkeys(stops))
    save_edited(folder, [label], latents[None], images[None], sheet, options, pipeline.identities(), extras)
    print(f"{folder / 'grid.png'}: the way in {len(images)} frames, as a strip")
    print(f"{folder}{os.sep}{', '.join([*extras, '*.png'])}, results.json, latents.safetensors")


def _load(checkpoint: str, read: Sequence[Any]) -> Any:
    """Loads the pipeline and warns of the prompts' words that it never saw."""
    from clip2latent.text2image import TextToImage

    pipeline = TextToImage.from_pretrained(checkpoint)
    mixtures = [source.mixture for source in read if source.mixture is not None]
    warn_of_unknown_words(pipeline.embedder, [text for mixture in mixtures for text in mixture.texts])
    return pipeline


def _folder(command: str, sources: Sequence[str], out: str | None, overwrite: bool) -> Path:
    first = Path(sources[0]).name if os.path.exists(sources[0]) else sources[0]
    return choose_folder(out, f"{command}-{slug(first, 40)}", overwrite)
