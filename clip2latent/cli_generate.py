"""The commands that draw from prompts, and draw again. Whatever is slow to import is imported inside them."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from clip2latent.outputs import choose_folder, slug
from clip2latent.progress import progress_bar

STAGES = ("prior", "drawing", "scoring")


def generate(
    prompts: list[str],
    checkpoint: str = "demo",
    num: int = 4,
    candidates: int | None = None,
    guidance: float | None = None,
    steps: int = 8,
    sampler: str = "dpmpp",
    truncation: float = 1.0,
    seed: int = 0,
    out: str | None = None,
    overwrite: bool = False,
    prompts_file: str | None = None,
    chunk: int = 64,
    template: str = "{}",
    negative: str | None = None,
    rank: str | None = None,
    spacing: str | None = None,
    eta: float = 0.0,
    guidance_rescale: float = 0.0,
    guidance_interval: list[int] | None = None,
    guidance_limit: float | None = None,
    refine: int | None = None,
) -> None:
    """Makes images of prompts and writes a labelled grid, PNGs, results.json and the latents.

    Args:
        prompts: Texts, each in quotes; picture files, for variations of them; mixtures of both, with weights if need
            be, as "photo.png | a smile::0.5"; - reads more from standard input, a line each.
        checkpoint: "demo", a training checkpoint (.ckpt), an exported folder, owner/name on the Hub, or a published
            prior of the original clip2latent: its .ckpt beside its yaml, or a yaml file as in configs/sample/.
        num: Images to keep for each prompt.
        candidates: Images to choose from for each prompt, by CLIP score (default: 16, or num where that is more).
        guidance: How strongly to follow the prompt; 1 is plain (default: what the checkpoint recommends).
        steps: Sampling steps.
        sampler: dpmpp, sde-dpmpp, ddim, ddpm, or clip2latent-skip (the original's, to reproduce its results).
        truncation: 1 for the full variety, towards 0 ever nearer to the average image.
        seed: The same seed gives the same images.
        out: Output folder (default: a new one, outputs/<prompt>-<number>).
        overwrite: Write into an output folder that already holds files.
        prompts_file: A file with more prompts: a line each, or .jsonl with {"prompt": "..."} lines; - is standard
            input.
        chunk: Images made at once; fewer need less memory. It is halved where memory runs out.
        template: Put around each text, as "a photograph of {}".
        negative: What not to draw: a prompt that guidance leads away from.
        rank: What to choose among the candidates by (default: the prior's own CLIP): augclip, the same over random
            views of each; or another CLIP, one the prior does not know: a yaml file as in configs/embedder/, a folder,
            MODEL/TAG of open_clip, or hf-hub:owner/name.
        spacing: Timesteps uniform in t, or in lambda, the log of the signal-to-noise ratio (default: as the sampler
            is used to).
        eta: Fresh noise of ddim, 0 to 1.
        guidance_rescale: From 0, off, to 1: large guidance keeps the spread of the plain prediction.
        guidance_interval: Guidance acts between these timesteps only, as [100,900].
        guidance_limit: How many standard deviations guidance may carry a latent's number.
        refine: Steps of refinement, as 100: each image is then mixed of five candidates and optimised, as by the
            command refine, and ranked by AugCLIP.
    """
    texts = all_prompts(prompts, prompts_file)
    from clip2latent.mixtures import read_mixtures

    mixtures = read_mixtures(texts, template)
    negatives = [] if negative is None else read_mixtures([negative])
    folder = choose_folder(out, slug(texts[0]), overwrite)
    from clip2latent.ranking import AUGCLIP, augclip, load_ranker, rank_by
    from clip2latent.results import save_samples
    from clip2latent.spec import ModelSpec
    from clip2latent.text2image import Sampling, TextToImage, count_candidates

    held_back = (guidance_rescale, tuple(guidance_interval) if guidance_interval else None, guidance_limit)
    sampling = Sampling(guidance, steps, sampler, truncation, seed, chunk, spacing, eta, *held_back)
    plan = None
    if refine is not None:
        from clip2latent.refinement import RECOMMENDED, Plan

        plan = Plan(num, refining=replace(RECOMMENDED, steps=refine, seed=seed, chunk=chunk))
    kept = num if plan is None else num * plan.basis
    candidates = count_candidates(kept, candidates)
    pipeline = TextToImage.from_pretrained(checkpoint)
    models = pipeline.identities()
    ranking = None
    if rank == AUGCLIP:
        ranking = rank_by(pipeline.embedder, pipeline.device, augclip(seed=seed, chunk=chunk))
    elif rank is not None:
        judge = load_ranker(rank).to(pipeline.device)
        models["rank"] = ModelSpec.of(rank, {}, judge).to_dict()
        ranking = rank_by(judge, pipeline.device)
        if models["rank"]["sha256"] == (models["embedder"] or {}).get("sha256"):
            print("warning: --rank names the CLIP that the prior is conditioned on, as without it", file=sys.stderr)
    warn_of_unknown_words(pipeline.embedder, [text for mixture in [*mixtures, *negatives] for text in mixture.texts])
    chosen = {"guidance": pipeline.recommended_guidance} if guidance is None else {}
    drawing = {**asdict(sampling), **chosen, "num": kept, "candidates": candidates}
    drawing |= {"template": template, "negative": negative}
    started = time.monotonic()
    with contextlib.ExitStack() as stack:
        total = len(texts) * candidates
        bars = {stage: stack.enter_context(progress_bar(stage, total)) for stage in STAGES}
        samples = pipeline.generate(
            texts, **drawing, ranking=ranking, stages=lambda stage, done: bars[stage].update(done)
        )
    seconds = time.monotonic() - started
    options = {"checkpoint": checkpoint, **drawing, "rank": rank}
    del options["chunk"]  # changes nothing
    if plan is not None:
        from clip2latent.cli_refine_run import refine_samples

        refine_samples(pipeline, samples, plan, folder, options, models)
        return
    save_samples(samples, folder, options, models)
    print(f"{total} images drawn in {seconds:.1f} s; for each prompt the best {num} of {candidates} are in")
    print(f"{folder / 'grid.png'}, with their {'CLIP scores' if rank is None else f'scores by {rank}'}")
    print(f"{folder}{os.sep}*.png, results.json, latents.safetensors")


def remake(image: str, checkpoint: str | None = None, out: str | None = None, overwrite: bool = False) -> None:
    """Draws a picture that generate wrote again, from what its file says, and compares them.

    Args:
        image: A PNG that generate wrote.
        checkpoint: Where the checkpoint is now (default: where it was).
        out: The file to write (default: beside the picture, <name>-remade.png).
        overwrite: Replace a file that is there.
    """
    from clip2latent.images import read_metadata, read_recipe, save_png

    metadata, recipe = read_metadata(Path(image)), read_recipe(Path(image))
    path = Path(out) if out else Path(image).with_name(f"{Path(image).stem}-remade.png")
    if path.exists() and not (overwrite and path.is_file()):
        raise ValueError(f"{path} exists: name another file by --out, or give --overwrite")
    if not path.absolute().parent.is_dir():
        raise ValueError(f"{path} cannot be made: there is no folder {path.absolute().parent}")
    import torch

    from clip2latent.remake import remake as draw_again
    from clip2latent.text2image import TextToImage

    threads = recipe.get("threads")
    if isinstance(threads, int) and 1 <= threads <= (os.cpu_count() or 1):
        torch.set_num_threads(threads)  # sums of other lengths round differently
    checkpoint = checkpoint or (metadata.get("options") or {}).get("checkpoint") or "demo"
    remade = draw_again(TextToImage.from_pretrained(checkpoint), image)
    save_png(remade.picture, path, metadata, recipe)
    if remade.differing:
        pixels = remade.picture.width * remade.picture.height
        why = "the machine or a package is another"
        print(f"warning: {remade.differing} of {pixels} pixels differ: {why}", file=sys.stderr)
    print(f"{path}" + ("" if remade.differing else f": equal to {image}, bit for bit"))


def warn_of_unknown_words(embedder: Any, prompts: Sequence[str]) -> None:
    """Prints a warning of words in prompts that the embedder says it never saw."""
    find = getattr(embedder, "unknown_words", None)
    unknown = dict.fromkeys(word for prompt in prompts for word in find(prompt)) if find else {}
    if unknown:
        words = ", ".join(repr(word) for word in unknown)
        print(f"warning: the demo never saw {words}: it knows avatars and objects only", file=sys.stderr)


def all_prompts(prompts: Sequence[str], prompts_file: str | None) -> list[str]:
    """Returns the prompts given, those of standard input in the place of "-", and a file's."""
    from clip2latent.prompts import check_prompts, read_prompts

    texts: list[str] = []
    for prompt in prompts:
        texts += [line.text for line in read_prompts("-")] if prompt == "-" else [prompt]
    if prompts_file:
        texts += [line.text for line in read_prompts(prompts_file)]
    if not texts:
        raise ValueError('no prompt: write what the picture shows, such as "an old man with glasses and a red hat"')
    return check_prompts(texts)
