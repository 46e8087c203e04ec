"""A composition as the command runs it: watched, saved, pictured when asked, and written. Slow imports inside."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

from clip2latent.progress import progress_bar

HELD_OUT_VIEWS, HELD_OUT_SEED = 64, 2**31
SAVE_EVERY = 60.0
"""Seconds from one saved state to the next."""


class Models(NamedTuple):
    """The generator of the foreground, that of the background, the embedder that compares, and where they are."""

    foreground: Any
    background: Any
    embedder: Any
    device: Any


def carry_out(models: Models, run: Any, folder: Path, every: int | None = None, state: Any = None) -> None:
    """Composes, watched, and writes the results; ends the process with code 130 where the user interrupted it.

    Args:
        models: what draws and compares.
        run: a `composition_run.Run`.
        folder: from `choose_folder`, or the one the composition began in.
        every: steps, of all sizes and places together, from one picture of the best so far to the next; None for none.
        state: where to go on from.
    """
    import torch

    from clip2latent.compose import compose
    from clip2latent.composition import Part, draw_candidates
    from clip2latent.composition_files import save_composed
    from clip2latent.composition_run import clear_run, save_run
    from clip2latent.composition_state import State
    from clip2latent.halving import SEARCHES, total_steps
    from clip2latent.objectives import augclip_objective
    from clip2latent.perceptual import DISTANCES

    how, clip, started = run.composing, models.embedder, time.monotonic()
    if state is None:
        clear_run(folder)
    else:
        state = State.from_tensors(state.to_tensors(), models.device)
    sides = ((models.foreground, run.foreground), (models.background, run.background))
    parts = [Part(draws, held[:-1].to(models.device), held[-1].to(models.device)) for draws, held in sides]
    with torch.no_grad():
        target = clip.embed_text([run.prompt])[0]
    rng, own = torch.Generator(), torch.Generator().manual_seed(HELD_OUT_SEED)
    objective = augclip_objective(clip, target, views=run.views, rng=rng)
    held_out = augclip_objective(clip, target, views=HELD_OUT_VIEWS, rng=own, fixed=True)
    distance, done = DISTANCES[run.perceptual](clip), 0 if state is None else int(state.steps.sum())
    with progress_bar("composing", total_steps(SEARCHES[how.search](len(run.placements), how.steps)) - done) as bar:
        watch = _Watch(parts, run, folder, every, bar, done)
        made = compose(*parts, objective, distance, run.placements, how, held_out, watch, rng, state)
    for placement in made.broken:
        print(f"warning: {placement}: the loss ceased to be a number; what was best before is kept", file=sys.stderr)
    options = run.options | {"interrupted": made.interrupted}
    fused = draw_candidates(*parts, made.candidates, how.edges, how.chunk)
    save_composed(folder, run.prompt, made.candidates, fused, options, run.models)
    if made.interrupted:
        save_run(folder, run, made.state)
    else:
        clear_run(folder, pictures=False)
    best = made.candidates[0]
    print(
        f"size and place {best.placement}: AugCLIP score {1 - best.best.primary:.3f}, perceptual distance"
        f" {best.best.secondary:.3f}, in {time.monotonic() - started:.1f} s"
    )
    print(f"{folder / 'grid.png'}: the best of each size and place")
    print(f"{folder}{os.sep}*.png, results.json, foreground.safetensors, background.safetensors")
    if made.interrupted:
        print(f"interrupted: the best so far was written; sample.py compose --resume {folder} goes on", file=sys.stderr)
        raise SystemExit(130)


class _Watch:
    """Shows how far a composition is, saves it from time to time, and draws pictures of it when asked."""

    def __init__(self, parts: Any, run: Any, folder: Path, every: int | None, bar: Any, done: int) -> None:
        self.parts, self.run, self.folder, self.every = parts, run, folder, every
        self.bar, self.seen, self.saved = bar, done, time.monotonic()

    def __call__(self, report: Any) -> None:
        best = report.best
        self.bar.set_postfix_str(
            f"best {1 - best.best.primary:.3f} at {best.placement}, {report.left} left", refresh=False
        )
        self.bar.update(report.done - self.seen)
        if self.every and report.done // self.every > self.seen // self.every:
            self.draw(report)
        self.seen = report.done
        if time.monotonic() - self.saved > SAVE_EVERY:
            from clip2latent.composition_run import save_run

            save_run(self.folder, self.run, report.state)
            self.saved = time.monotonic()

    def draw(self, report: Any) -> None:
        from clip2latent.composition import draw_candidates
        from clip2latent.composition_run import PICTURE
        from clip2latent.images import save_png, to_pil

        image = draw_candidates(*self.parts, [report.best], self.run.composing.edges).images
        self.folder.mkdir(parents=True, exist_ok=True)
        save_png(to_pil(image)[0], self.folder / PICTURE.format(report.done), {"options": self.run.options})
