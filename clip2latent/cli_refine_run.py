"""A refinement as the commands run it: watched, saved, pictured when asked, and written. Slow imports inside."""

from __future__ import annotations

import os
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from clip2latent.progress import progress_bar

SAVE_EVERY = 60.0
"""Seconds from one saved state to the next."""


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


def _say(outcome: Any, folder: Path, steps: int, seconds: float) -> None:
    from clip2latent.refine_state import NOT_A_NUMBER, PLATEAU

    images = outcome.before.numel()
    for row, prompt in enumerate(outcome.samples.prompts):
        if (outcome.stopped[row] == NOT_A_NUMBER).any():
            print(f"warning: {prompt!r}: a loss was not a number; the best before it is kept", file=sys.stderr)
    before, after, clip = (float(scores.mean()) for scores in (outcome.before, outcome.samples.scores, outcome.clip))
    print(
        f"{images} images refined in {steps} steps, {seconds:.1f} s; over held-out views their mean AugCLIP score went"
    )
    print(f"from {before:.3f}, that of the best candidates, to {after:.3f}; their CLIP score is {clip:.3f}")
    stuck = int((outcome.stopped == PLATEAU).sum())
    if stuck:
        print(f"{stuck} of {images} made no more progress and were stopped")
    print(f"{folder / 'grid.png'}, with their AugCLIP scores")
    print(f"{folder}{os.sep}*.png, results.json, latents.safetensors; refining.* to go on from with --resume")
