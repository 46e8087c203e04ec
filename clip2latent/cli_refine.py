"""The command that refines: drawn from prompts or read from results, optimised, ranked again. Slow imports inside."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from clip2latent.cli_generate import warn_of_unknown_words
from clip2latent.cli_refine_run import carry_out
from clip2latent.outputs import choose_folder, slug
from clip2latent.progress import progress_bar

STEPS = 100


def refine(
    sources: list[str],
    steps: int | None = None,
    num: int = 1,
    basis: int = 5,
    views: int = 16,
    towards: str | None = None,
    weights: str = "shared",
    lead: float | None = 0.7,
    lr: float = 0.2,
    decay: str = "cosine",
    space: str | None = None,
    pull: float = 0.1,
    pull_to: str = "sample",
    noise: float = 0.0,
    patience: int | None = 200,
    every: int | None = None,
    resume: str | None = None,
    checkpoint: str | None = None,
    candidates: int | None = None,
    guidance: float | None = None,
    sampling_steps: int = 8,
    seed: int = 0,
    out: str | None = None,
    overwrite: bool = False,
    chunk: int = 64,
) -> None:
    """Refines images of prompts or of results: optimises their latents until augmented views agree with the prompt.

    The best candidates of a prompt are mixed, and mixture and weights optimised together (FuseDream). Ctrl-C writes the
    best so far; --resume goes on from there.

    Args:
        sources: Prompts as for generate, folders of results, or latents.safetensors files.
        steps: Steps of the optimiser (default: 100, or what a resumed refinement had left).
        num: Images of each prompt, each from candidates of its own.
        basis: How many candidates each image is mixed of.
        views: Augmented views that an image is judged by at each step; more are slower and steadier.
        towards: The prompt to refine towards, for results of other prompts or of none (default: their own).
        weights: shared, one for each candidate in the mixture, or each, one for each of their numbers.
        lead: The weight that an image's best candidate has in its mixture at first; null for one like the others', as
            FuseDream.
        lr: How far a step goes at first, in standard deviations of the latents.
        decay: cosine, which lets the steps become ever smaller up to the last; or constant, as FuseDream does with a
            thousand steps of 0.005.
        space: w+ lets each layer of a StyleGAN have a w of its own: higher scores, less like the generator's images.
        pull: How strongly images are held near what they start from; 0, not at all, scores higher and looks worse.
        pull_to: Where to: sample, each image's best candidate, or mean, the average image.
        noise: Noise added to the latents at each step, such as 0.01.
        patience: Steps without progress after which an image is left as it is.
        every: Write a picture of the best so far after each so many steps.
        resume: A folder to go on in, with the options it began with; --steps may be more, counted from its start.
        checkpoint: As for generate (default: what the results were made with, or demo).
        candidates: Images to draw for each new prompt (default: 16, or what the mixtures take where that is more).
        guidance: How strongly to follow new prompts (default: what the checkpoint recommends).
        sampling_steps: Sampling steps of new prompts.
        seed: Of new prompts and of the views.
        out: Output folder (default: a new one, outputs/refine-<prompt>-<number>).
        overwrite: Write into an output folder that already holds files.
        chunk: Images drawn at once; fewer need less memory.
    """
    if resume is not None:
        _go_on(resume, sources, steps, every, checkpoint)
        return
    if not sources:
        raise ValueError('nothing to refine: give a prompt such as "an old man", or a folder that generate wrote')
    from clip2latent.refine_files import Run
    from clip2latent.refinement import RECOMMENDED, Plan, make_task
    from clip2latent.starts import Drawing, checkpoint_of, described, read_sources

    how = {
        "weights": weights,
        "lead": lead,
        "noise": noise,
        "pull": pull,
        "patience": patience,
        "seed": seed,
        "chunk": chunk,
    }
    refining = replace(RECOMMENDED, steps=STEPS if steps is None else steps, lr=lr, decay=decay, **how)
    plan = Plan(num, basis, views, space, pull_to, refining)
    kept = num * basis if candidates is None else min(num * basis, candidates)
    drawing = Drawing(kept, candidates, guidance, sampling_steps, seed, chunk)
    read = read_sources(sources)
    unnamed = [
        source.text for source in read if source.saved and not (source.saved.checkpoint or source.saved.generator)
    ]
    if unnamed and towards is None:
        raise ValueError(f"{unnamed[0]} does not say what its images should show: give the prompt by --towards")
    _check_every(every)
    first = Path(sources[0]).name if os.path.exists(sources[0]) else sources[0]
    folder = choose_folder(out, f"refine-{slug(towards or first, 40)}", overwrite)
    named = None if checkpoint else _models_of(read)
    checkpoint = None if named else checkpoint or checkpoint_of(read)
    pipeline = _load(checkpoint, named)
    found = _candidates(pipeline, read, drawing)
    prompts = [label if towards is None else towards for label, _ in found]
    warn_of_unknown_words(pipeline.embedder, prompts)
    task = make_task(pipeline, prompts, [latents for _, latents in found], plan)
    if named:
        options = {"command": "refine", "sources": list(sources), **named, "seed": seed}
    else:
        options = described("refine", pipeline, sources, checkpoint, drawing)
    carry_out(
        pipeline, Run(task, plan, options | {"num": num, "towards": towards}, pipeline.identities()), folder, every
    )


def _go_on(resume: str, sources: Sequence[str], steps: int | None, every: int | None, checkpoint: str | None) -> None:
    from clip2latent.refine_files import check_same_models, load_run

    if sources:
        raise ValueError(f"--resume goes on with what {resume} holds: leave {sources[0]!r} out")
    _check_every(every)
    run, state = load_run(resume)
    refining = run.plan.refining
    refining = replace(refining, steps=refining.steps if steps is None else steps)
    if int(state.step) >= refining.steps:
        raise ValueError(f"{resume} has done {int(state.step)} of {refining.steps} steps: give more by --steps")
    run = run._replace(plan=replace(run.plan, refining=refining))
    checkpoint = checkpoint or run.options.get("checkpoint")
    pipeline = _load(checkpoint, None if checkpoint else run.options)
    check_same_models(run.models, pipeline.identities(), resume)
    carry_out(pipeline, run, Path(resume), every, state)


def _models_of(read: Sequence[Any]) -> dict[str, str] | None:
    """Returns the generator and the embedder of results that no prior drew, such as a search's; None for others."""
    from clip2latent.refine_files import recorded_models

    found = [recorded_models(source.text) if source.saved else None for source in read]
    if not any(found):
        return None
    if any(models != found[0] for models in found):
        raise ValueError("results of a search can be refined together with results of the same models only")
    return found[0]


def _load(checkpoint: str | None, named: Mapping[str, Any] | None) -> Any:
    """Loads a checkpoint's models, or a generator and an embedder by name."""
    if checkpoint:
        from clip2latent.text2image import TextToImage

        return TextToImage.from_pretrained(checkpoint)
    from clip2latent.cli_banks import load_banks
    from clip2latent.priorless import Priorless, sampled_space

    banks, specs = load_banks(named["generator"], named["embedder"], "off", 1)
    config = {name: spec.to_dict() for name, spec in specs.items()}
    return Priorless(banks.generator, banks.embedder, sampled_space(banks.generator), banks.device, config)


def _candidates(pipeline: Any, read: Sequence[Any], drawing: Any) -> list[tuple[str, Any]]:
    """Returns each prompt of each source and its latents [N, L, D], best first."""
    from clip2latent.starts import gather

    texts = [source.text for source in read if source.saved is None]
    drawn = iter([])
    saved = [gather(pipeline, [source], drawing) if source.saved else None for source in read]
    if texts:
        total = len(texts) * max(drawing.candidates or 16, drawing.num)
        with progress_bar("drawing", total) as bar:
            drawn = iter(pipeline.generate(texts, **asdict(drawing), progress=bar.update).latents)
    found = []
    for source, starts in zip(read, saved, strict=True):
        if starts is None:
            found.append((source.text, next(drawn)))
        else:
            labels = source.saved.labels
            found += zip(labels, starts.latents.unflatten(0, (len(labels), -1)), strict=True)
    return found


def _check_every(every: int | None) -> None:
    if every is not None and every < 1:
        raise ValueError(f"every={every}: expected at least 1")
