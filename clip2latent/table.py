"""A table of ways to images of prompts: every way's pictures in a folder of its own, and all folders' scores.

A picture is a file that is written whole, with the seconds it took inside, so that a killed table goes on with the
next one; a folder of pictures can be scored, shown or compared by any other program, too.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from clip2latent.captions import Caption
from clip2latent.evaluate import Bar
from clip2latent.extractors import Extractor
from clip2latent.folder_scores import Measuring, score_folder
from clip2latent.images import from_uint8, grid, read_metadata, read_picture, save_png, to_pil
from clip2latent.interfaces import Embedder
from clip2latent.metrics import mean_over_prompts
from clip2latent.objectives import augclip_objective
from clip2latent.outputs import write_json
from clip2latent.pairing import pair
from clip2latent.picture_stream import Reading
from clip2latent.prompts import Prompt
from clip2latent.references import World, fitting_attributes
from clip2latent.refine import entropy
from clip2latent.seen_pictures import SeenPictures
from clip2latent.ways import WAYS, Setting, Way

MANY = 256
"""Prompts that a way takes together where that costs nothing."""
UNSEEN = 14
"""The stream of the views that AugCLIP is measured over, seen by no way; see `refine.entropy`."""
SHOWN, BANK = 8, "bank.json"
REAL, USE = "real", 22
"""The way of real pictures, and their use of a seed."""


class Scoring(NamedTuple):
    """What a way's folder is scored by.

    Attributes:
        embedders: the CLIP that ways choose and optimise by, and a hold-out where there is one.
        extractor: what sets of pictures are compared by.
        reference: real pictures, seen by it; None for none.
        how: how to measure.
        views: of each picture, that its AugCLIP is measured over.
        inputs: what all these are, plain types: a row that was measured by others is measured again.
    """

    embedders: Sequence[Embedder]
    extractor: Extractor
    reference: SeenPictures | None
    how: Measuring
    views: int
    inputs: Mapping[str, Any]


def make_row(
    key: str,
    setting: Setting,
    folder: Path,
    prompts: Sequence[Prompt],
    scoring: Scoring,
    together: int,
    world: World | None,
    bar: Bar,
) -> dict[str, Any]:
    """Draws and scores a way, or what is missing of it, and returns its row of the table: plain types.

    Args:
        key: of `WAYS`, or `REAL` for real pictures of a world.
        setting: models, prompts and effort.
        folder: of the ways.
        prompts: with what they ask for.
        scoring: by what rows are scored.
        together: prompts that an optimiser takes at once.
        world: of the demo; None without.
        bar: makes progress bars.
    """
    if key == REAL:
        name = "real pictures"
        draw_real(world, prompts, folder / key, 1, (setting.effort.seed, USE))
    else:
        name = WAYS[key].name(setting.effort)
        fill_bank(setting, WAYS[key], folder, bar)
        draw_way(setting, key, folder / key, together, bar)
    target = setting.targets.to(setting.models.device)
    return {"name": name, **score_way(key, folder, prompts, target, scoring, bar)}


def draw_way(setting: Setting, key: str, folder: Path, together: int, bar: Bar) -> int:
    """Draws a way's missing pictures, PNG files with their prompt and their seconds, and returns how many they were.

    Args:
        setting: models, prompts and effort.
        key: of `WAYS`.
        folder: of its pictures, 00000.png of the first prompt and so on.
        together: prompts that an optimiser takes at once.
        bar: makes progress bars.
    """
    way, device = WAYS[key], torch.device(setting.models.device)
    folder.mkdir(parents=True, exist_ok=True)
    missing = [row for row in range(len(setting.prompts)) if not _file(folder, row).is_file()]
    size = {"one": 1, "some": together, "many": MANY}[way.together]
    with bar(way.name(setting.effort), len(setting.prompts)) as progress:
        progress.update(len(setting.prompts) - len(missing))
        for start in range(0, len(missing), size):
            rows = missing[start : start + size]
            began = clock(device)
            latents = way.make(setting, rows)
            images = torch.cat([setting.models.draw(part).cpu() for part in latents.split(setting.effort.chunk)])
            seconds = (clock(device) - began) / len(rows)
            for row, picture in zip(rows, to_pil(images), strict=True):
                told = {"prompt": setting.prompts[row], "way": key, "seconds": seconds, "together": len(rows)}
                save_png(picture, _file(folder, row), told)
            progress.update(len(rows))
    return len(missing)


def fill_bank(setting: Setting, way: Way, folder: Path, bar: Bar) -> None:
    """Draws the bank's latents that a way reads, where they are missing, and notes the seconds for `bank_seconds`."""
    rows, noted = way.bank(setting.effort), bank_seconds(folder) or {"rows": 0, "seconds": 0.0}
    if rows <= noted["rows"]:
        return
    device = torch.device(setting.models.device)
    began, done = clock(device), 0
    try:
        with bar(f"bank of {rows} random latents", rows) as progress:
            for block in setting.bank.blocks(rows, progress.update):
                done += len(block.latents)
    finally:
        noted = {"rows": max(done, noted["rows"]), "seconds": noted["seconds"] + clock(device) - began}
        write_json(folder / BANK, noted)


def score_way(
    key: str, folder: Path, prompts: Sequence[Prompt], target: Tensor, scoring: Scoring, bar: Bar
) -> dict[str, Any]:
    """Returns a row: what `score_folder` finds, AugCLIP over unseen views, and the mean seconds; plain types.

    It is kept in rows/, and what was seen so far in seen/ until it is done.

    Args:
        key: of the way; its pictures are in the folder of this name.
        folder: of the table.
        prompts: P prompts.
        target: their embeddings [P, E], on the device of the models.
        scoring: by what.
        bar: makes progress bars.
    """
    path = folder / "rows" / f"{key}.json"
    told = [read_metadata(_file(folder / key, row)) for row in range(len(prompts))]
    seconds = [record["seconds"] for record in told if "seconds" in record]
    measured = {"inputs": scoring.inputs, "seconds": seconds}
    if path.is_file():
        kept = json.loads(path.read_text(encoding="utf-8"))
        if kept["measured"] == json.loads(json.dumps(measured)):
            return kept["row"]
    seen = folder / "seen" / hashlib.sha256(json.dumps(scoring.inputs).encode()).hexdigest()[:16] / key
    for place in (seen, path.parent):
        place.mkdir(parents=True, exist_ok=True)
    captions = [Caption(prompt.text, attributes=prompt.attributes) for prompt in prompts]
    pairing, own = pair(folder / key, captions), (scoring.reference, scoring.how, target.device, bar, seen)
    row = {
        "key": key,
        "seconds": float(np.mean(seconds)) if seconds else None,
        "together": max(record.get("together", 1) for record in told),
        **mean_over_prompts("augclip", _augclip(folder / key, target, scoring)),
        **score_folder(pairing, scoring.embedders, scoring.extractor, *own).record,
    }
    write_json(path, {"measured": measured, "row": row})
    shutil.rmtree(seen)
    return row


def draw_real(world: World, prompts: Sequence[Prompt], folder: Path, each: int, seed: tuple[int, ...]) -> None:
    """Writes real pictures of what prompts name, `each` of every prompt, where they are missing."""
    folder.mkdir(parents=True, exist_ok=True)
    for row, prompt in enumerate(prompts):
        for number in range(each):
            path = _file(folder, row * each + number)
            if not path.is_file():
                rng = np.random.default_rng((*seed, row, number))
                pixels = world.draw(fitting_attributes(world, prompt.attributes, rng), rng)
                save_png(to_pil(from_uint8(pixels[None]))[0], path, {"prompt": prompt.text, "way": REAL})


def picture_of(folder: Path, rows: Sequence[Mapping[str, Any]], prompts: Sequence[Prompt]) -> Image.Image:
    """Returns a grid of the first prompts, a column for each row of the table, in `folder` by its key."""
    labels = [prompt.text for prompt in prompts[:SHOWN]]
    columns = []
    for row in rows:
        files = [_file(folder / row["key"], number) for number in range(len(labels))]
        columns.append(torch.cat([F.interpolate(read_picture(file), (128, 128), mode="area") for file in files]))
    return grid(torch.stack(columns, dim=1), labels, headings=[row["name"] for row in rows])


def bank_seconds(folder: Path) -> dict[str, Any] | None:
    """Returns how many random latents were drawn once for all prompts, and their seconds; None where none were."""
    path = folder / BANK
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def clock(device: torch.device) -> float:
    """Returns seconds: the processor's, of all its threads, or on a GPU the wall's when its work is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        return time.perf_counter()
    return time.process_time()


@torch.no_grad()
def _augclip(folder: Path, target: Tensor, scoring: Scoring) -> list[float]:
    """AugCLIP of each prompt's picture, all in the same views."""
    scores: dict[int, float] = {}
    for index, images in Reading([_file(folder, row) for row in range(len(target))], scoring.how.chunk):
        rng = torch.Generator().manual_seed(entropy(scoring.how.seed, UNSEEN))
        own = target[index.to(target.device)]
        objective = augclip_objective(scoring.embedders[0], own, views=scoring.views, rng=rng, fixed=True)
        scores |= dict(zip(index.tolist(), (1 - objective(images.to(target.device))).tolist(), strict=True))
    return [scores[index] for index in sorted(scores)]


def _file(folder: Path, row: int) -> Path:
    return folder / f"{row:05d}.png"
