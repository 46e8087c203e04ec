"""Samples as files: a labelled grid, one PNG for each image, results.json and the latents."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import safetensors.torch

from clip2latent.images import save_png
from clip2latent.outputs import filled, provenance, slug, write_json
from clip2latent.remake import make_recipe
from clip2latent.samples import Samples


def save_samples(samples: Samples, folder: Path, options: dict[str, Any], models: dict[str, Any]) -> None:
    """Writes samples to a folder, all files or none.

    Each PNG carries its prompt, the prompt's position, its candidate number, its score, options and models, and the
    recipe that `remake` draws it again by.

    Args:
        samples: the images.
        folder: from `choose_folder`.
        options: what they were made with, plain types.
        models: the identities of the models, plain types.
    """
    entries = []
    with filled(folder, "results.json") as staging:
        for row, pictures in enumerate(samples.to_pil()):
            for column, picture in enumerate(pictures):
                prompt = samples.prompts[row]
                entry = {
                    "file": f"{row:03d}-{slug(prompt)}-{column}.png",
                    "prompt": prompt,
                    "prompt_index": row,
                    "candidate": int(samples.candidates[row, column]),
                    "score": round(float(samples.scores[row, column]), 6),
                }
                recipe = None if samples.drawn is None else make_recipe(samples.drawn, row, column)
                save_png(picture, staging / entry["file"], {**entry, "options": options, "models": models}, recipe)
                entries.append(entry)
        save_png(samples.grid(), staging / "grid.png", {"options": options, "models": models})
        tensors = {"latents": samples.latents.contiguous(), "scores": samples.scores.contiguous()}
        safetensors.torch.save_file(tensors, staging / "latents.safetensors")
        record = {"prompts": samples.prompts, "options": options, "models": models, **provenance(), "images": entries}
        record["files"] = sorted([*(path.name for path in staging.iterdir()), "results.json"])
        write_json(staging / "results.json", record)
