"""The command that compares ways to sample. Whatever is slow to import is imported inside it."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from clip2latent.cli_generate import warn_of_unknown_words
from clip2latent.cli_score import PAGE, write_page
from clip2latent.outputs import choose_folder, device_name, filled, provenance, write_json
from clip2latent.progress import progress_bar
from clip2latent.unfinished import kept_work

SETTINGS = "sweep.json"
FILES = ("metrics.json", "metrics.md", "metrics.svg", "grid.png")


def sweep(
    prompts: str,
    checkpoint: str = "demo",
    guidance: list[float] | None = None,
    steps: list[int] | None = None,
    samplers: list[str] | None = None,
    truncation: list[float] | None = None,
    candidates: list[int] | None = None,
    num: int = 8,
    num_other: int | None = None,
    steps_per_prompt: int | None = None,
    reference: str | None = None,
    seed: int = 0,
    judge: str | None = "demo",
    out: str | None = None,
    overwrite: bool = False,
    chunk: int = 64,
) -> None:
    """Compares samplers, steps, guidances, truncations and candidates on a prompts file; stopped, the command goes on.

    Args:
        prompts: A prompts file; .jsonl with {"prompt", "attributes"} lines for judge accuracy too.
        checkpoint: As for generate.
        guidance: The guidances to combine (default: [1,1.5,2,3]).
        steps: The numbers of steps (default: [4,8,16,50]).
        samplers: The samplers, of dpmpp, sde-dpmpp, ddim, ddpm, clip2latent-skip (default: all but the last).
        truncation: The truncations: 1 for the full variety, towards 0 ever nearer to the average image (default: [1]).
        candidates: The numbers of candidates of which CLIP chooses each image (default: [1], no choice).
        num: Images for each prompt and combination.
        num_other: Images at other guidances than the reference's (default: num).
        steps_per_prompt: Combinations of many steps draw fewer images, so many that a prompt takes about so many steps;
            at least 4, and the reference's all.
        reference: What all are compared with, as ddpm-1000-2 (default: ddpm, the most steps, recommended guidance).
        seed: The same seed gives the same numbers.
        judge: The attribute judge, for prompts with attributes: "demo", a folder, or null for none.
        out: Output folder (default: a new one, outputs/sweep-<number>); give one that was begun, to go on or to add.
        overwrite: Write into an output folder that holds files, and begin anew where they are of another sweep.
        chunk: Images made at once; fewer need less memory.
    """
    from clip2latent.prompts import read_prompts, texts_sha256

    read = read_prompts(prompts)
    folder = choose_folder(out, "sweep", overwrite or (out is not None and (Path(out) / SETTINGS).is_file()))
    import torch

    from clip2latent import sweep as sweeping
    from clip2latent import sweep_report as reports
    from clip2latent.evaluate import critics
    from clip2latent.images import save_png
    from clip2latent.spec import weights_sha256
    from clip2latent.sweep_drawing import sheet
    from clip2latent.text2image import Sampling, TextToImage

    lists = {"guidances": guidance, "steps": steps, "samplers": samplers}
    lists |= {"truncations": truncation, "candidates": candidates}
    chosen = {name: tuple(values) for name, values in lists.items() if values is not None}
    grid = sweeping.Grid(**chosen, num=num, num_other=num_other, steps_per_prompt=steps_per_prompt, reference=reference)
    sampling = Sampling(seed=seed, chunk=chunk)
    pipeline = TextToImage.from_pretrained(checkpoint)
    warn_of_unknown_words(pipeline.embedder, [prompt.text for prompt in read])
    critic, _ = critics(read, judge)
    models = pipeline.identities()
    if isinstance(critic, torch.nn.Module):
        models["judge"] = {"source": judge, "sha256": weights_sha256(critic.to(pipeline.device))}
    same = {"models": models, "prompts": [prompt._asdict() for prompt in read], "seed": seed}
    cells = kept_work(folder / SETTINGS, folder / "cells", same, "a sweep", overwrite)
    try:
        found = sweeping.sweep(pipeline, read, grid, sampling, cells, critic, progress_bar, _tell)
    except KeyboardInterrupt:
        print(f"interrupted: what was drawn is kept in {folder}; the same command goes on from there", file=sys.stderr)
        raise SystemExit(130) from None
    record: dict[str, Any] = {"options": {"checkpoint": checkpoint, "prompts": prompts, "judge": judge}, **same}
    record |= {"grid": asdict(grid), "device": device_name(pipeline.device), "threads": torch.get_num_threads()}
    files = [*(FILES if found.pictures else FILES[:3]), PAGE]
    record |= {"chunk": chunk, **found.record, "texts_sha256": texts_sha256([prompt.text for prompt in read])}
    record |= {**provenance(), "pictures": {FILES[3]: "The first prompts"}, "files": files}
    with filled(folder, FILES[0]) as staging:
        write_json(staging / FILES[0], record)
        (staging / FILES[1]).write_text(reports.markdown(record, FILES[2]), encoding="utf-8")
        (staging / FILES[2]).write_text(reports.plot(record["rows"]), encoding="utf-8")
        if found.pictures:
            save_png(sheet(found.pictures, read), staging / FILES[3], {"options": record["options"]})
        write_page(staging)
    print(f"{', '.join(str(folder / name) for name in files)}")


def _tell(line: str) -> None:
    print(line, flush=True)
