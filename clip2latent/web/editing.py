"""Edits and mixtures for a visitor, with the files that the commands edit and mix write."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from clip2latent import edit as edits
from clip2latent import starts as reading
from clip2latent.directions import Direction
from clip2latent.images import grid, to_pil
from clip2latent.mixtures import read_mixtures
from clip2latent.outputs import slug
from clip2latent.redraw import redraw
from clip2latent.saved import save_edited
from clip2latent.text2image import TextToImage
from clip2latent.web.drawing import CHUNK, results_folder, unknown_words
from clip2latent.web.outcome import Outcome, Progress, Shot, Watch, pack, read_shots
from clip2latent.web.pictures import encode
from clip2latent.web.requests import Edit, Mix

KEPT = 32


class Starts:
    """The latents that the last edits began with: who moves a slider waits for the generator only."""

    def __init__(self) -> None:
        self._found: OrderedDict[Any, Tensor] = OrderedDict()

    def clear(self) -> None:
        """Forgets all, as another model is loaded."""
        self._found.clear()

    def of(self, pipeline: TextToImage, prompt: str, drawing: reading.Drawing) -> Tensor:
        """Returns the best latents [N, L, D] of a prompt, drawn where they are not known."""
        key = prompt, drawing
        if key not in self._found:
            source = reading.Source(prompt, None, read_mixtures([prompt])[0])
            self._found[key] = reading.gather(pipeline, [source], drawing).latents
        self._found.move_to_end(key)
        while len(self._found) > KEPT:
            self._found.popitem(last=False)
        return self._found[key]


def edit(pipeline: TextToImage, request: Edit, known: Mapping[str, Direction], starts: Starts, watch: Watch) -> Outcome:
    """Moves images of a prompt along directions.

    Args:
        pipeline: draws.
        request: names some of the known directions.
        known: by name, those of the pipeline's generator.
        starts: of edits before.
        watch: asked whether to go on.

    Raises:
        ValueError: for an unknown direction.
        Stopped: where the visitor stopped the work.
    """
    strange = [name for name, _ in request.directions if name not in known]
    if strange:
        raise ValueError(f"direction={str(strange[0])[:40]!r}: expected one of {', '.join(known) or 'none'}")
    started = time.monotonic()
    drawing = reading.Drawing(request.num, seed=request.seed, chunk=CHUNK)
    before = starts.of(pipeline, request.prompt, drawing)
    watch.check()
    watch.tell(Progress("drawing", 1, 2))
    mean = edits.mean_latent(pipeline.space).cpu()
    steps = [(known[name].vector, strength) for name, strength in request.directions]
    after = edits.move(edits.truncate(before, mean, request.truncation), steps)
    latents, images = redraw(pipeline, torch.stack([before, after], dim=1), CHUNK)
    told = ",".join(f"{name}={strength:g}" for name, strength in request.directions)
    options = reading.described("edit", pipeline, [request.prompt], request.model, drawing)
    options |= {"directions": told or None, "layers": None, "truncation": request.truncation, "cutoff": None}
    labels = [request.prompt] * request.num
    with results_folder() as folder:
        sheet = grid(images, labels, headings=["unchanged", "changed"])
        save_edited(folder, labels, latents[:, -1:], images[:, -1:], sheet, options, pipeline.identities())
        changed = read_shots(folder, lambda entry: "changed")
        plain = [Shot(encode(picture), "unchanged") for picture in to_pil(images[:, 0])]
        shots = tuple(shot for pair in zip(plain, changed, strict=True) for shot in pair)
        what = told.replace(",", ", ") or ("nothing is changed: move a slider" if request.truncation == 1 else "")
        what += f" truncation={request.truncation:g}" if request.truncation != 1 else ""
        note = f"{what.strip()}, {time.monotonic() - started:.1f} s{unknown_words(pipeline, [request.prompt])}"
        return Outcome(shots, note, None, pack(folder), f"edit-{slug(request.prompt, 40)}")


def mix(pipeline: TextToImage, request: Mix, starts: Starts, watch: Watch) -> Outcome:
    """Mixes the layers of a prompt's images with another's, or with random latents'.

    Args:
        pipeline: draws.
        request: its layers are of the pipeline's generator.
        starts: of edits before.
        watch: asked whether to go on.

    Raises:
        ValueError: for layers that are not there.
        Stopped: where the visitor stopped the work.
    """
    started = time.monotonic()
    chosen = edits.parse_layers(request.layers, pipeline.generator.latent_shape[0])
    drawing = reading.Drawing(request.num, seed=request.seed, chunk=CHUNK)
    kept = starts.of(pipeline, request.prompt, drawing)
    watch.check()
    watch.tell(Progress("drawing", 1, 3))
    if request.style:
        taken = starts.of(pipeline, request.style, drawing)
    else:
        rng = torch.Generator().manual_seed(request.seed)
        taken = pipeline.generator.sample_latents(request.num, rng).cpu()
    watch.check()
    watch.tell(Progress("drawing", 2, 3))
    latents, images = redraw(pipeline, edits.mix(kept[:, None], taken[None], chosen), CHUNK)
    left, above = (redraw(pipeline, side, CHUNK).images for side in (kept, taken))
    cells = torch.cat([torch.ones_like(above[:1]), above])[None]
    cells = torch.cat([cells, torch.cat([left[:, None], images], dim=1)])
    style, num = request.style or "random", request.num
    rows = [f"layers {request.layers} of", *[request.prompt] * num]
    options = reading.described("mix", pipeline, [request.prompt, style], request.model, drawing)
    options |= {"sources": [part for part in (request.prompt, request.style) if part], "layers": request.layers}
    labels = [f"{request.prompt} with layers {request.layers} of {style}"] * num
    with results_folder() as folder:
        sheet = grid(cells, rows, headings=["", *[style] * num])
        save_edited(folder, labels, latents, images, sheet, options, pipeline.identities())
        shots = read_shots(folder, lambda entry: f"{entry['prompt_index'] % num + 1} with {entry['number'] + 1}")
        words = unknown_words(pipeline, [part for part in (request.prompt, request.style) if part])
        note = f"left what is kept, above what the layers are taken from, {time.monotonic() - started:.1f} s{words}"
        table = (folder / "grid.png").read_bytes()
        return Outcome(shots, note, table, pack(folder), f"mix-{slug(request.prompt, 40)}")
