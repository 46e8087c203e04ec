"""Compositions as files: the picture and its two parts, a grid of all sizes and places, results.json, both latents."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from PIL import Image

from clip2latent.composition import Candidate, Fused
from clip2latent.images import grid, save_png, to_pil
from clip2latent.outputs import filled, provenance, slug, write_json
from clip2latent.paste import LOCATIONS

RECORD = "results.json"


def save_composed(
    folder: Path,
    prompt: str,
    candidates: Sequence[Candidate],
    fused: Fused,
    options: dict[str, Any],
    models: dict[str, Any],
) -> None:
    """Writes a composition to a folder, all files or none.

    Edits go on from foreground.safetensors and background.safetensors, which hold the latents [1, P, L, D] of all
    candidates, the composition's first.

    Args:
        folder: from `choose_folder`.
        prompt: what the whole should show.
        candidates: P, the composition first.
        fused: their images.
        options: how they were made, plain types.
        models: the identities of the models, plain types.
    """
    entries = [_entry(candidate) for candidate in candidates]
    best = {"file": f"000-{slug(prompt)}-0.png", "prompt": prompt, "prompt_index": 0, "number": 0, **entries[0]}
    with filled(folder, RECORD) as staging:
        for name, images in zip((best["file"], "foreground.png", "background.png"), fused, strict=True):
            named = {**best, "file": name, "options": options, "models": models}
            save_png(to_pil(images[:1])[0], staging / name, named)
        save_png(candidate_grid(candidates, fused), staging / "grid.png", {"options": options, "models": models})
        for name in ("foreground", "background"):
            latents = torch.stack([getattr(candidate.best, name) for candidate in candidates])
            safetensors.torch.save_file({"latents": latents[None].cpu()}, staging / f"{name}.safetensors")
        record = {"prompts": [prompt], "options": options, "models": models, **provenance(), "images": [best]}
        record |= {"candidates": entries, "files": sorted([*(path.name for path in staging.iterdir()), RECORD])}
        write_json(staging / RECORD, record)


def candidate_grid(candidates: Sequence[Candidate], fused: Fused) -> Image.Image:
    """Lays out the candidates, a row for each size and a column for each place, with their scores."""
    scales = sorted({candidate.placement.scale for candidate in candidates})
    columns = [name for name in LOCATIONS if any(candidate.placement.location == name for candidate in candidates)]
    images = torch.ones(len(scales), len(columns), *fused.images.shape[1:])
    scores = torch.full((len(scales), len(columns)), torch.nan)
    for candidate, image in zip(candidates, fused.images.cpu(), strict=True):
        cell = scales.index(candidate.placement.scale), columns.index(candidate.placement.location)
        images[cell], scores[cell] = image, 1 - candidate.best.primary
    return grid(images, [f"size {scale:g}" for scale in scales], scores, columns)


def _entry(candidate: Candidate) -> dict[str, Any]:
    best = candidate.best
    return {
        "scale": candidate.placement.scale,
        "location": candidate.placement.location,
        "score": round(1 - best.primary, 6),
        "perceptual": round(best.secondary, 6),
        "steps": candidate.steps,
        "found": best.step,
    }
