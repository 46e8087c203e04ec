"""The command that measures searches. Whatever is slow to import is imported inside it."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

from clip2latent.cli_banks import load_banks
from clip2latent.outputs import choose_folder, filled, provenance, write_json
from clip2latent.progress import progress_bar

STUDY = "label-search"
REAL = 16
"""Real pictures for each prompt, of which a score to pass and a distribution are taken."""
PICTURES = (".png", ".jpg", ".jpeg", ".webp")


def search_study(
    prompts: str,
    generator: str = "demo-objects",
    embedder: str = "demo",
    candidates: int = 100,
    labels: list[int] | None = None,
    seeds: int = 3,
    seed: int = 0,
    threshold: float | None = None,
    pictures: str | None = None,
    judge: str | None = "demo-class-judge",
    bank: str = "auto",
    out: str | None = None,
    overwrite: bool = False,
    chunk: int = 64,
) -> None:
    """Measures what a search finds against how many images it draws and of how many classes; stopped, it goes on.

    Args:
        prompts: A file of prompts or captions: a line each, or .jsonl with {"prompt", "attributes"} lines.
        generator: As for search; one with classes.
        embedder: As for search.
        candidates: Images drawn for each prompt.
        labels: The numbers of classes to compare, as [1,10,20,50,100]; all of them join these (default: 1, 2, 5, 10 and
            so on).
        seeds: How often all of it is done.
        seed: The first seed.
        threshold: A score to pass, such as that of real pictures with their captions (default: the demo's own, where
            prompts have attributes; the unguided search's last score is always one).
        pictures: A folder of real pictures, for Frechet distances to them.
        judge: The attribute judge, for prompts with attributes: a name or a folder, or null for none.
        bank: As for search, but never off; what is there is not drawn again.
        out: Output folder (default: a new one, outputs/label-search-<number>).
        overwrite: Write into an output folder that already holds files.
        chunk: Images made at once; fewer need less memory.
    """
    from clip2latent.prompts import read_prompts

    read = read_prompts(prompts)
    folder = choose_folder(out, STUDY, overwrite)
    if bank == "off":
        raise ValueError("bank=off: a study reads its bank more than once; name a folder, or leave it in the cache")
    from clip2latent import label_study as studies
    from clip2latent import label_study_report as reports
    from clip2latent.conditions import embed_targets
    from clip2latent.evaluate import critics
    from clip2latent.images import grid, read_picture, save_png
    from clip2latent.mixtures import read_mixtures

    settings = studies.Settings(candidates, None if labels is None else tuple(labels), seeds, seed, threshold)
    critic, world = critics(read, judge)
    banks, models = load_banks(generator, embedder, bank, chunk)
    targets = embed_targets(banks.embedder, read_mixtures([prompt.text for prompt in read]), banks.device)
    real = None
    if pictures is not None:
        found = sorted(path for path in Path(pictures).rglob("*") if path.suffix.lower() in PICTURES)
        if len(found) < 2:
            raise ValueError(f"pictures={pictures}: expected a folder of at least 2 PNG, JPEG or WebP files")
        import torch

        with progress_bar("pictures", len(found)) as bar:
            parts = []
            for path in found:
                parts.append(studies.embed_pictures(read_picture(path), banks))
                bar.update(1)
        real = studies.Real(torch.cat(parts), None)
    elif world is not None:
        real = studies.real_pictures(world, read, targets, banks, REAL, seed)
    if critic is not None and hasattr(critic, "to"):
        critic.to(banks.device)
    made = studies.study(banks, read, targets, settings, real, critic, progress_bar)
    known = {
        name: {"name": source, **models[name].to_dict()}
        for name, source in {"generator": generator, "embedder": embedder}.items()
    }
    options = {"prompts": prompts, "generator": generator, "embedder": embedder, "candidates": candidates}
    options |= {"labels": labels and str(labels).replace(" ", ""), "seeds": seeds, "seed": seed}
    options |= {"threshold": threshold, "pictures": pictures}
    words = [f"--{name}={value}" for name, value in options.items() if value is not None]
    command = f"python sample.py search_study {shlex.join(words)}"
    record = {**made.record, "command": command, "models": known, **provenance()}
    names = [f"{STUDY}.{ending}" for ending in ("json", "md", "png", "svg")]
    with filled(folder, names[0]) as staging:
        headings = [reports.name_of(row["k"], record["classes"]) for row in record["rows"]]
        sheet = grid(made.images, made.shown, made.scores, headings)
        save_png(sheet, staging / names[2], {"command": command})
        (staging / names[1]).write_text(reports.markdown(record, names[3], names[2]), encoding="utf-8")
        (staging / names[3]).write_text(reports.plot(record), encoding="utf-8")
        write_json(staging / names[0], {**record, "files": names})
    print((folder / names[1]).read_text(encoding="utf-8"))
    print(f"{folder}{os.sep}{', '.join(names)}")
