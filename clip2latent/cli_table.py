"""The command that makes the papers' tables: ways to images of prompts beside each other. Slow imports inside."""

from __future__ import annotations

import shutil
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from clip2latent.cli_generate import warn_of_unknown_words
from clip2latent.cli_score import PAGE, write_page
from clip2latent.outputs import choose_folder, device_name, filled, provenance, write_json
from clip2latent.progress import progress_bar
from clip2latent.unfinished import kept_work

SETTINGS, FILES = "table.json", ("grid.png", "metrics.json", "metrics.md", PAGE)
VIEWS, LEAST = 64, 100
"""Views of each picture that its AugCLIP is measured over; images in a part of the inception score."""


def table(
    prompts: str,
    methods: list[str] | None = None,
    checkpoint: str = "demo",
    generator: str | None = None,
    embedder: str = "demo",
    candidates: int = 16,
    random: int = 1000,
    retrieval: int = 30000,
    steps: int = 8,
    guidance: float | None = None,
    optimising: int = 100,
    lr: float = 0.05,
    basis: int = 5,
    views: int = 16,
    together: int = 1,
    reference: str | None = None,
    features: str | None = None,
    holdout: str | None = None,
    out: str | None = None,
    overwrite: bool = False,
    seed: int = 0,
    chunk: int = 64,
) -> None:
    """Compares ways to an image of each prompt, priors, searches and optimisers, by their scores and seconds.

    The ways: random, search, retrieval, prior-full, prior-respaced, prior, clip, augclip, refined, real. Killed, the
    same command with the same --out goes on; more methods are added to those that are there.

    Args:
        prompts: A prompts file; .jsonl with {"prompt", "attributes"} lines for judge accuracy too.
        methods: The ways, as [random,prior,clip] (default: all that there can be).
        checkpoint: As for generate.
        generator: A generator as for search, in place of a checkpoint, for the ways that take no prior.
        embedder: Its CLIP, as for search.
        candidates: Images of the prior of which CLIP chooses.
        random: Random latents that search takes the best of, and that clip and augclip begin from the best of.
        retrieval: The same of retrieval.
        steps: Sampling steps of the way prior; prior-full takes all of the training's, prior-respaced 25.
        guidance: Of the prior (default: what the checkpoint recommends).
        optimising: Steps of the optimiser, of clip, augclip and refined.
        lr: How far these go, in standard deviations of the latents; for a thousand steps, 0.005.
        basis: Candidates that augclip and refined mix.
        views: Views of an image that they look at in each step.
        together: Prompts that they optimise at once, which takes less time for each.
        reference: A folder of real pictures, for FID, KID, precision and recall; renders for the demo's own.
        features: As for score (default: the embedded judge that knows the prompts' attributes, or else the CLIP).
        holdout: Another CLIP to score by, one that nothing is chosen by: as for generate's rank.
        out: Output folder (default: a new one, outputs/table-<number>); give one that was begun, to go on or to add.
        overwrite: Write into an output folder that holds files, and begin anew where they are of another table.
        seed: The same seed gives the same images.
        chunk: Images made at once; fewer need less memory.
    """
    from clip2latent.prompts import read_prompts, texts_sha256

    read = read_prompts(prompts)
    begun = out is not None and (Path(out) / SETTINGS).is_file()
    folder = choose_folder(out, "table", overwrite or begun)
    import torch

    from clip2latent import table as tables
    from clip2latent import table_scoring as scores
    from clip2latent.bank import Banks
    from clip2latent.folder_scores import Measuring
    from clip2latent.html_page import markdown
    from clip2latent.images import save_png
    from clip2latent.pages import page_of
    from clip2latent.ranking import load_ranker
    from clip2latent.spec import ModelSpec
    from clip2latent.ways import Effort, Setting

    numbers = {"candidates": candidates, "random": random, "retrieval": retrieval, "basis": basis, "views": views}
    numbers |= {"steps": steps, "guidance": guidance, "optimising": optimising, "lr": lr, "seed": seed}
    splits = max(1, min(10, len(read) // LEAST))  # an inception score of few images is low
    effort, how = Effort(**numbers, chunk=chunk), Measuring(splits=splits, seed=seed, chunk=min(chunk, 64))
    if together < 1:
        raise ValueError(f"together={together}: expected at least 1")
    models = _load(checkpoint, generator, embedder, chunk)
    chosen = scores.choose_features(read, features)
    world = scores.world_of(read, chosen)
    keys = _methods(methods, generator is None, world is not None)
    warn_of_unknown_words(models.embedder, [prompt.text for prompt in read])
    given: dict[str, Any] = {"models": models.identities(), "prompts": [prompt._asdict() for prompt in read]}
    work = kept_work(folder / SETTINGS, folder / "ways", given | {"effort": numbers}, "a table", overwrite)
    device = torch.device(models.device)
    banks = Banks(models.generator, models.embedder, work / "bank", device, chunk)
    targets = scores.targets_of(models.embedder, read)
    setting = Setting(models, [prompt.text for prompt in read], targets, banks.of(seed), effort)
    others = [] if holdout is None else [load_ranker(holdout).to(device)]
    extractor = scores.load_features(chosen, models.embedder, embedder, device)
    clips = [{"source": "the models' own", **models.identities()["embedder"]}]
    clips += [{"source": holdout, **ModelSpec.of(str(holdout), {}, other).to_dict()} for other in others]
    try:
        seen = scores.see_reference(reference, world, read, work, extractor, how, device, progress_bar)
        inputs = scores.plain_inputs(clips, extractor, seen, how, VIEWS)
        scoring = tables.Scoring([models.embedder, *others], extractor, seen, how, VIEWS, inputs)
        rows = [tables.make_row(key, setting, work, read, scoring, together, world, progress_bar) for key in keys]
    except KeyboardInterrupt:
        print(f"interrupted: what was drawn is kept; the same command with --out {folder} goes on", file=sys.stderr)
        raise SystemExit(130) from None
    shutil.rmtree(work / "seen", ignore_errors=True)
    options = {"prompts": prompts, "checkpoint": None if generator else checkpoint, "generator": generator}
    options |= {"embedder": embedder, "features": chosen, "reference": reference, "holdout": holdout}
    record: dict[str, Any] = {"options": options, "effort": asdict(effort), "together": together}
    record |= {"prompts": setting.prompts, "texts_sha256": texts_sha256(setting.prompts), "views": VIEWS}
    record |= {"models": {**models.identities(), "features": extractor.identity, "clips": clips}}
    record |= {"device": device_name(device), "threads": torch.get_num_threads(), "bank": tables.bank_seconds(work)}
    record |= {"ways": rows, **provenance(), "pictures": {FILES[0]: "The first prompts"}, "files": list(FILES)}
    text = "\n\n".join(f"{table.title}\n\n{markdown(table)}".lstrip() for table in page_of(record).tables)
    with filled(folder, FILES[1]) as staging:
        save_png(tables.picture_of(work, rows, read), staging / FILES[0], {"options": options})
        write_json(staging / FILES[1], record)
        (staging / FILES[2]).write_text(f"{text}\n", encoding="utf-8")
        write_page(staging)
    print(text)
    print(f"\n{', '.join(str(folder / name) for name in FILES)}; pictures in {work}")


def _load(checkpoint: str, generator: str | None, embedder: str, chunk: int) -> Any:
    """Loads a prior with its models, or a generator and an embedder."""
    if generator is None:
        from clip2latent.text2image import TextToImage

        return TextToImage.from_pretrained(checkpoint)
    from clip2latent.cli_banks import load_banks
    from clip2latent.priorless import Priorless, sampled_space

    banks, specs = load_banks(generator, embedder, "off", chunk)
    config = {name: spec.to_dict() for name, spec in specs.items()}
    return Priorless(banks.generator, banks.embedder, sampled_space(banks.generator), banks.device, config)


def _methods(methods: list[str] | None, prior: bool, world: bool) -> list[str]:
    """Returns the ways asked for, or all; ValueError for those that cannot be."""
    from clip2latent.table import REAL
    from clip2latent.ways import WAYS

    possible = [key for key, way in WAYS.items() if prior or not way.prior] + ([REAL] if world else [])
    for key in methods or []:
        if key in (*WAYS, REAL) and key not in possible:
            what = "prompts of the demo's worlds with attributes" if key == REAL else "a prior: leave --generator out"
            raise ValueError(f"methods: {key} needs {what}")
        if key not in possible:
            raise ValueError(f"methods: {key!r} is none of {', '.join(possible)}")
    return list(dict.fromkeys(methods or possible))
