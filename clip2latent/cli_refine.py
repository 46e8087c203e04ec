"""The command that refines: drawn from prompts or read from results, optimised, ranked again. Slow imports inside."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from clip2latent.cli_generate import warn_of_unknown_words
from clip2latent.outputs import choose_folder, slug
from clip2latent.progress import progress_bar

STEPS = 100
SAVE_EVERY = 60.0
"""Seconds from one saved state to the next."""


def refine(
    sources: list[str],
    steps: int | None = None,
    num: int = 1,
    basis: int = 5,
    views: int = 16,
    towards: str | None = None,
    weights: str = "shared",
    lr: float = 0.02,
    space: str | None = None,
    pull: float = 0.0,
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
        lr: How far a step goes, in standard deviations of the latents; for a thousand steps, 0.005.
        space: w+ lets each layer of a StyleGAN have a w of its own: higher scores, less like the generator's images.
        pull: How strongly images are held back, such as 0.1; 0 is not at all.
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
    from clip2latent.refine import Refining
    from clip2latent.refine_files import Run
    from clip2latent.refinement import Plan, make_task
    from clip2latent.starts import Drawing, checkpoint_of, described, read_sources

    refining = Refining(STEPS if steps is None else steps, lr, weights, noise, pull, patience, seed=seed, chunk=chunk)
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


def refine_samples(
    pipeline: Any, samples: Any, plan: Any, folder: Path, options: dict[str, Any], models: dict[str, Any]
) -> None:
    """Refines samples and writes the results, as the command does.

    Args:
        pipeline: drew the samples.
        samples: the best of each prompt, from which the plan's number of images is mixed.
        plan: how.
        folder: from `choose_folder`.
        options: what they were drawn with, plain types.
        models: the identities of the models, plain types.
    """
    from clip2latent.refine_files import Run
    from clip2latent.refinement import task_of

    carry_out(pipeline, Run(task_of(pipeline, samples, plan), plan, options | {"num": plan.num}, models), folder)


def carry_out(pipeline: Any, run: Any, folder: Path, every: int | None = None, state: Any = None) -> None:
    """Refines, watched, and writes the results; ends the process with code 130 where the user interrupted it.

    Args:
        pipeline: the models.
        run: what to refine.
        folder: from `choose_folder`, or the one the refinement began in.
        every: steps from one picture of the best so far to the next; None for none.
        state: where to go on from.
    """
    from clip2latent.refine_files import clear_run, save_run
    from clip2latent.refinement import run_task
    from clip2latent.results import save_samples

    if state is None:
        clear_run(folder)
    plan, rows = run.plan, len(run.task.basis)
    done = 0 if state is None else int(state.step)
    started = time.monotonic()
    with progress_bar("refining", rows * max(0, plan.refining.steps - done)) as bar:
        watch = _Watch(pipeline, run, folder, every, bar, done)
        outcome = run_task(pipeline, run.task, plan, watch, state)
    seconds = time.monotonic() - started
    end = outcome.refined.state
    save_run(folder, run, end, outcome)
    told = asdict(plan) | {"done": int(end.step)}
    del told["refining"]["chunk"]  # changes nothing
    save_samples(outcome.samples, folder, run.options | {"refine": told}, run.models)
    _say(outcome, folder, int(end.step) - done, seconds)
    if outcome.refined.interrupted:
        print(
            f"interrupted after {int(end.step)} of {plan.refining.steps} steps: the best so far was written;"
            f" sample.py refine --resume {folder} goes on",
            file=sys.stderr,
        )
        raise SystemExit(130)


class _Watch:
    """Shows how far a refinement is, saves it from time to time, and draws pictures of it when asked."""

    def __init__(self, pipeline: Any, run: Any, folder: Path, every: int | None, bar: Any, done: int) -> None:
        self.pipeline, self.run, self.folder, self.every = pipeline, run, folder, every
        self.bar, self.seen, self.saved = bar, done, time.monotonic()

    def __call__(self, state: Any) -> None:
        step, new = int(state.step), int(state.step) - self.seen
        self.bar.update(new * len(state.losses))
        self.bar.set_postfix(score=f"{1 - float(state.last.mean()):.4f}", best=f"{1 - float(state.losses.mean()):.4f}")
        self.seen = step
        if self.every and new and step % self.every == 0:
            self.draw(state)
        if time.monotonic() - self.saved > SAVE_EVERY:
            self.save(state)

    def draw(self, state: Any) -> None:
        from clip2latent.images import grid, save_png
        from clip2latent.latents import expand
        from clip2latent.redraw import redraw
        from clip2latent.refine_files import PICTURE

        prompts, rows = self.run.task.prompts, self.pipeline.generator.latent_shape[0]
        groups = self.pipeline.space.groups if state.best.shape[1] == len(self.pipeline.space.groups) else (1,) * rows
        images = redraw(self.pipeline, expand(state.best, groups), self.run.plan.refining.chunk).images
        sides = (len(prompts), -1)
        sheet = grid(images.unflatten(0, sides), prompts, 1 - state.losses.cpu().unflatten(0, sides))
        self.folder.mkdir(parents=True, exist_ok=True)
        save_png(sheet, self.folder / PICTURE.format(int(state.step)), {"options": self.run.options})

    def save(self, state: Any) -> None:
        from clip2latent.refine_files import save_run

        save_run(self.folder, self.run, state)
        self.saved = time.monotonic()


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
    from clip2latent.cli_search import load_banks
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


def _say(outcome: Any, folder: Path, steps: int, seconds: float) -> None:
    from clip2latent.refine_state import NOT_A_NUMBER, PLATEAU

    images = outcome.before.numel()
    for row, prompt in enumerate(outcome.samples.prompts):
        if (outcome.stopped[row] == NOT_A_NUMBER).any():
            print(f"warning: {prompt!r}: a loss was not a number; the best before it is kept", file=sys.stderr)
    before, after, clip = (float(scores.mean()) for scores in (outcome.before, outcome.samples.scores, outcome.clip))
    print(f"{images} images refined in {steps} steps, {seconds:.1f} s: AugCLIP {before:.3f} -> {after:.3f} (held-out")
    print(f"views, from the best candidate to the refined image), CLIP {clip:.3f}")
    stuck = int((outcome.stopped == PLATEAU).sum())
    if stuck:
        print(f"{stuck} of {images} made no more progress and were stopped")
    print(f"{folder / 'grid.png'}, with their AugCLIP scores")
    print(f"{folder}{os.sep}*.png, results.json, latents.safetensors; refining.* to go on from with --resume")


def _check_every(every: int | None) -> None:
    if every is not None and every < 1:
        raise ValueError(f"every={every}: expected at least 1")
