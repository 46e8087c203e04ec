"""Samples as files: a labelled grid, one PNG for each image, results.json and the latents."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import safetensors.torch

from clip2latent.images import save_png
from clip2latent.outputs import filled, provenance, slug, write_json
from clip2latent.text2image import Samples


def save_samples(samples: Samples, folder: Path, options: dict[str, Any], models: dict[str, Any]) -> None:
    """Writes samples to a folder, all files or none.

    Each PNG carries what it takes to make it again: prompt, its position, candidate number, options and models.

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
                save_png(picture, staging / entry["file"], {**entry, "options": options, "models": models})
                entries.append(entry)
        save_png(samples.grid(), staging / "grid.png", {"options": options, "models": models})
        tensors = {"latents": samples.latents.contiguous(), "scores": samples.scores.contiguous()}
        safetensors.torch.save_file(tensors, staging / "latents.safetensors")
        record = {"prompts": samples.prompts, "options": options, "models": models, **provenance(), "images": entries}
        record["files"] = sorted([*(path.name for path in staging.iterdir()), "results.json"])
        write_json(staging / "results.json", record)
