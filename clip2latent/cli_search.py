"""The command that searches: many images, the best of them kept. Whatever is slow to import is imported inside it."""

from __future__ import annotations

import os
import sys
import time
from typing import Any

from clip2latent.cli_banks import load_banks
from clip2latent.cli_generate import all_prompts, warn_of_unknown_words
from clip2latent.outputs import choose_folder, slug
from clip2latent.progress import progress_bar


def search(
    prompts: list[str],
    generator: str = "demo-objects",
    embedder: str = "demo",
    num: int = 4,
    candidates: int = 100,
    labels: int | None = None,
    views: int = 0,
    bank: str = "auto",
    seed: int = 0,
    out: str | None = None,
    overwrite: bool = False,
    prompts_file: str | None = None,
    chunk: int = 64,
) -> None:
    """Draws many images of the classes nearest to each prompt and keeps the best; needs no prior and no training.

    Ctrl-C writes the best of what was drawn.

    Args:
        prompts: As for generate.
        generator: An embedded generator (demo-objects, demo-avatars), a folder, a file, hf://owner/name/file, or a yaml
            file as in configs/generator/.
        embedder: The CLIP: demo, a yaml file as in configs/embedder/, a folder, MODEL/TAG of open_clip, or
            hf-hub:owner/name.
        num: Images to keep for each prompt.
        candidates: Images to choose from for each prompt.
        labels: How many of the generator's classes to draw, those whose names are nearest to the prompt; 0 for whatever
            the generator draws (default: one in a hundred, and at least 1; 0 for a generator without classes).
        views: Augmented views of an image; with some, such as 16, the four times num best are ranked again by them.
        bank: Where images drawn once are remembered, by their latents and embeddings, for other prompts: a folder, off,
            or auto, which is in the cache.
        seed: The same seed gives the same images.
        out: Output folder (default: a new one, outputs/search-<prompt>-<number>).
        overwrite: Write into an output folder that already holds files.
        prompts_file: A file with more prompts: a line each, or .jsonl with {"prompt": "..."} lines; - is standard
            input.
        chunk: Images made at once; fewer need less memory. It is halved where memory runs out.
    """
    texts = all_prompts(prompts, prompts_file)
    from clip2latent.mixtures import read_mixtures

    mixtures = read_mixtures(texts)
    folder = choose_folder(out, f"search-{slug(texts[0], 40)}", overwrite)
    for name, value in (("labels", labels), ("views", views)):
        if value is not None and value < 0:
            raise ValueError(f"{name}={value}: expected 0 or more")
    from clip2latent.bank import Interrupted
    from clip2latent.conditions import embed_targets
    from clip2latent.initial import Picking, from_labels, from_random, rechecked
    from clip2latent.objectives import augclip_objective
    from clip2latent.results import save_samples
    from clip2latent.samples import Samples

    picking = Picking(min(4 * num, candidates) if views else num, candidates, seed)
    banks, models = load_banks(generator, embedder, bank, chunk)
    warn_of_unknown_words(banks.embedder, [text for mixture in mixtures for text in mixture.texts])
    names = getattr(banks.generator, "class_names", None)
    if labels is None:
        labels = 0 if names is None else max(1, len(names) // 100)
    if names is not None and labels > len(names):
        raise ValueError(f"labels={labels}: expected 0 to {len(names)}, the generator's classes")
    initial = from_labels(banks, picking, labels, progress_bar) if labels else from_random(banks, picking, progress_bar)
    if views:
        import torch

        def augclip(target: Any) -> Any:
            rng = torch.Generator().manual_seed(seed)
            return augclip_objective(banks.embedder, target.to(banks.device), views=views, rng=rng, fixed=True)

        initial = rechecked(initial, augclip, banks, num, progress_bar)
    started = time.monotonic()
    targets = embed_targets(banks.embedder, mixtures, banks.device)
    interrupted = False
    try:
        found = initial(texts, targets)
    except Interrupted as stopped:
        found, interrupted = type(stopped.found)(*(part[:, :num] for part in stopped.found)), True
    images = banks.draw(found.latents.flatten(0, 1)).unflatten(0, found.scores.shape)
    seconds = time.monotonic() - started
    options = {"command": "search", "generator": generator, "embedder": embedder, "num": num, "candidates": candidates}
    options |= {"labels": labels, "views": views, "seed": seed, "interrupted": interrupted}
    if labels:
        from clip2latent.label_search import label_embeddings, nearest_classes

        nearest = nearest_classes(targets, label_embeddings(names, banks.embedder), labels)
        chosen = [[names[index] for index in row] for row in nearest.tolist()]
        options["classes"] = dict(zip(texts, chosen, strict=True))
        for text, own in zip(texts, chosen, strict=True):
            print(f"{text}: searched {', '.join(own[:5])}{' and others' if len(own) > 5 else ''}")
    samples = Samples(texts, found.latents, images, found.scores, found.candidates)
    save_samples(samples, folder, options, {name: spec.to_dict() for name, spec in models.items()})
    kept, by = found.scores.shape[1], "AugCLIP" if views and not interrupted else "CLIP"
    print(f"the best {kept} of {candidates} for each of {len(texts)} prompts, in {seconds:.1f} s, are in")
    print(f"{folder / 'grid.png'}, with their {by} scores")
    print(f"{folder}{os.sep}*.png, results.json, latents.safetensors")
    if interrupted:
        print("interrupted: the best of what was drawn was written", file=sys.stderr)
        raise SystemExit(130)
