"""Refinements and compositions for a visitor, watched while they run; one that is stopped gives its best so far."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any, NamedTuple

import torch

from clip2latent import compose as composing
from clip2latent.bank import Banks
from clip2latent.composition import Composing, Part, draw_candidates
from clip2latent.composition_files import save_composed
from clip2latent.halving import SEARCHES, total_steps
from clip2latent.images import to_pil
from clip2latent.latents import expand
from clip2latent.objectives import augclip_objective
from clip2latent.outputs import slug
from clip2latent.paste import Placement
from clip2latent.perceptual import DISTANCES
from clip2latent.redraw import redraw
from clip2latent.refine_state import State
from clip2latent.refinement import Plan, run_task, task_of
from clip2latent.results import save_samples
from clip2latent.sampling import Sampling
from clip2latent.text2image import TextToImage
from clip2latent.web.drawing import CHUNK, results_folder, unknown_words
from clip2latent.web.outcome import Outcome, Progress, Shot, Watch, pack, read_shots
from clip2latent.web.pictures import encode
from clip2latent.web.requests import Compose, Refine

PREVIEW_SECONDS = 1.0
"""From one picture of a running optimisation to the next."""
VIEWS, COMPOSE_LR, CANDIDATES, BASIS, HELD_OUT_SEED = 16, 0.005, 400, 5, 2**31


class Behind(NamedTuple):
    """What composes: a generator's banks and its embedder's, and what they are, plain types."""

    banks: Banks
    models: dict[str, Any]


def refine(pipeline: TextToImage, request: Refine, watch: Watch) -> Outcome:
    """Refines images of a prompt, as the command refine does.

    Raises:
        ValueError: for a prompt that the model cannot read.
        Stopped: where the visitor stopped the work before the refinement began.
    """
    started = time.monotonic()
    refining = replace(Plan().refining, steps=request.steps, seed=request.seed, chunk=CHUNK)
    plan = Plan(request.num, refining=refining)
    kept = request.num * plan.basis
    sampling = Sampling(None, seed=request.seed, chunk=CHUNK)
    drawing = asdict(sampling) | {"num": kept, "candidates": max(16, kept), "guidance": pipeline.recommended_guidance}
    samples = pipeline.generate([request.prompt], **drawing, progress=lambda number: watch.check())
    task = task_of(pipeline, samples, plan)

    def look(state: State) -> tuple[Shot, ...]:
        space, rows = pipeline.space, pipeline.generator.latent_shape[0]
        groups = space.groups if state.best.shape[1] == len(space.groups) else (1,) * rows
        pictures = to_pil(redraw(pipeline, expand(state.best, groups), CHUNK).images)
        scores = (1 - state.losses.cpu()).tolist()
        return tuple(
            Shot(encode(picture), f"step {int(state.step)}", score)
            for picture, score in zip(pictures, scores, strict=True)
        )

    told = _teller(watch, "refining", request.steps, look)
    outcome = run_task(pipeline, task, plan, lambda state: told(int(state.step), state))
    state = outcome.refined.state
    refined = asdict(plan) | {"done": int(state.step)}
    del refined["refining"]["chunk"], drawing["chunk"]  # changes nothing
    options = {"checkpoint": request.model, **drawing, "num": request.num, "template": "{}", "negative": None}
    with results_folder() as folder:
        options |= {"rank": None, "refine": refined}
        save_samples(outcome.samples, folder, options, pipeline.identities())
        before, after = float(outcome.before.mean()), float(outcome.samples.scores.mean())
        note = f"{int(state.step)} of {request.steps} steps, AugCLIP score {before:.3f} before, {after:.3f} after,"
        note += f" {time.monotonic() - started:.1f} s" + (", stopped" if outcome.refined.interrupted else "")
        note += unknown_words(pipeline, [request.prompt])
        return Outcome(read_shots(folder, lambda entry: ""), note, None, pack(folder), slug(request.prompt))


def compose(behind: Behind, request: Compose, watch: Watch) -> Outcome:
    """Pastes a generated picture onto another and optimises both, as the command compose does.

    Raises:
        ValueError: for texts that the embedder cannot read.
        Stopped: where the visitor stopped the work before the composition began.
    """
    started = time.monotonic()
    banks, models = behind
    device, clip = banks.device, banks.embedder
    texts = {name: getattr(request, name) or request.prompt for name in ("foreground", "background")}
    placements = [Placement(request.scale, place) for place in request.locations]
    how = Composing(request.steps, COMPOSE_LR, seed=request.seed, edges="seamless")
    drawn = banks.generator.sample_latents(256, torch.Generator().manual_seed(request.seed))
    unit = drawn.std(dim=0).clamp_min(1e-3).to(device)
    watch.tell(Progress("searching where to begin", 0, 0))
    with torch.no_grad():
        targets = torch.cat([clip.embed_text([text]) for text in texts.values()])
    picked = banks.of(request.seed).pick(targets, CANDIDATES, BASIS, lambda number: watch.check())
    parts = [Part(banks.generator, latents.to(device), unit) for latents in picked.latents]
    with torch.no_grad():
        target = clip.embed_text([request.prompt])[0]
    rng, own = (torch.Generator().manual_seed(seed) for seed in (request.seed, HELD_OUT_SEED))
    objective = augclip_objective(clip, target, views=VIEWS, rng=rng)
    held_out = augclip_objective(clip, target, views=4 * VIEWS, rng=own, fixed=True)
    total = total_steps(SEARCHES[how.search](len(placements), how.steps))

    def look(report: Any) -> tuple[Shot, ...]:
        picture = to_pil(draw_candidates(*parts, [report.best], how.edges).images)[0]
        return (Shot(encode(picture), report.best.placement.location, 1 - report.best.best.primary),)

    told = _teller(watch, "composing", total, look)
    distance = DISTANCES["features"](clip)
    made = composing.compose(
        *parts, objective, distance, placements, how, held_out, lambda report: told(report.done, report), rng
    )
    options = {"command": "compose", "prompt": request.prompt, **texts, "generator": request.generator}
    options |= {"foreground_generator": request.generator, "embedder": "demo", "scales": [request.scale]}
    options |= {"locations": list(request.locations), "steps": how.steps, "way": how.way, "weight": how.weight}
    options |= {"perceptual": "features", "search": how.search, "edges": how.edges, "basis": BASIS}
    options |= {"weights": how.weights, "candidates": CANDIDATES, "views": VIEWS, "lr": how.lr, "seed": request.seed}
    options |= {"interrupted": made.interrupted}
    with results_folder() as folder:
        fused = draw_candidates(*parts, made.candidates, how.edges)
        save_composed(folder, request.prompt, made.candidates, fused, options, models)
        shots = read_shots(folder, lambda entry: entry["location"])
        shots += tuple(Shot((folder / f"{name}.png").read_bytes(), name, None, f"{name}.png") for name in texts)
        note = f"{len(placements)} places tried, {time.monotonic() - started:.1f} s"
        note += ", stopped" if made.interrupted else ""
        words = unknown_words(banks, [request.prompt, *texts.values()])
        return Outcome(shots, note + words, None, pack(folder), f"compose-{slug(request.prompt, 40)}")


def _teller(
    watch: Watch, stage: str, total: int, look: Callable[[Any], tuple[Shot, ...]]
) -> Callable[[int, Any], None]:
    """Returns what tells progress, with a picture now and then; a KeyboardInterrupt ends the work with its best."""
    seen = time.monotonic()

    def tell(done: int, state: Any) -> None:
        nonlocal seen
        if watch.stopped():
            raise KeyboardInterrupt
        shots: tuple[Shot, ...] = ()
        if time.monotonic() - seen >= PREVIEW_SECONDS:
            shots, seen = look(state), time.monotonic()
        watch.tell(Progress(stage, done, total, shots))

    return tell
