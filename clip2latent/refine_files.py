"""A refinement on disk: refining.json, which people can read, and refining.safetensors, from which it goes on."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

from clip2latent.refine import Refining
from clip2latent.refine_state import REASONS, State
from clip2latent.refinement import Outcome, Plan, Task
from clip2latent.state_files import check_models, clear_state, read_state, write_state

NAME = "refining"
PICTURE = "step-{:05d}.png"


class Run(NamedTuple):
    """A refinement: what is refined and how, and what results record of it.

    Attributes:
        task: what is refined.
        plan: how.
        options: of the results, plain types.
        models: the identities of the models, plain types.
    """

    task: Task
    plan: Plan
    options: dict[str, Any]
    models: dict[str, Any]


def save_run(folder: Path, run: Run, state: State, outcome: Outcome | None = None) -> None:
    """Writes a refinement into a folder, which is made; each file is whole at any time.

    Args:
        folder: where its results go.
        run: what is refined.
        state: how far it is.
        outcome: what came of it, once it has ended.
    """
    tensors = state.to_tensors() | {f"task.{name}": getattr(run.task, name) for name in ("targets", "basis")}
    record = {"prompts": run.task.prompts, "plan": asdict(run.plan), "options": run.options, "models": run.models}
    record |= {"step": int(state.step), "images": [] if outcome is None else _told(outcome)}
    write_state(folder, NAME, record, tensors)


def load_run(folder: Path | str) -> tuple[Run, State]:
    """Reads what `save_run` wrote.

    Raises:
        FileNotFoundError: where no refinement is kept.
        ValueError: for files that are damaged or of another kind.
    """
    record, tensors = read_state(folder, NAME, "refinement")
    try:
        plan = dict(record["plan"])
        plan = Plan(**{**plan, "refining": Refining(**plan["refining"])})
        prompts = [str(prompt) for prompt in record["prompts"]]
        task = Task(prompts, tensors["task.targets"], tensors["task.basis"])
        state = State.from_tensors(tensors)
        if len(task.targets) != len(prompts) or len(task.basis) != len(state.losses) or len(task.basis) % len(prompts):
            raise ValueError(f"{len(prompts)} prompts, but {len(task.basis)} bases and {len(state.losses)} states")
        return Run(task, plan, dict(record["options"]), dict(record["models"])), state
    except (KeyError, TypeError, ValueError, AttributeError, ZeroDivisionError) as error:
        raise ValueError(f"the refinement in {folder} cannot be read: {str(error) or type(error).__name__}") from error


def check_same_models(recorded: Mapping[str, Any], found: Mapping[str, Any], folder: Path | str) -> None:
    """Raises ValueError where generator or embedder are not those that a refinement began with."""
    models = [{name: record.get(name) for name in ("generator", "embedder")} for record in (recorded, found)]
    check_models(*models, folder, "refinement", "name the checkpoint it began with by --checkpoint")


def recorded_models(source: Path | str) -> dict[str, str] | None:
    """Returns what results say of their {"generator", "embedder"} where they name no checkpoint; None for others.

    Args:
        source: a folder of results, or its file of latents.
    """
    path = Path(source)
    path = (path if path.is_dir() else path.parent) / "results.json"
    try:
        options = json.loads(path.read_text(encoding="utf-8"))["options"]
        named = {name: options[name] for name in ("generator", "embedder")}
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return None if options.get("checkpoint") or not all(isinstance(name, str) for name in named.values()) else named


def clear_run(folder: Path) -> None:
    """Removes what an earlier refinement left in a folder besides its results."""
    clear_state(folder, NAME)
    for path in folder.glob("step-[0-9]*.png"):
        path.unlink(missing_ok=True)


def _told(outcome: Outcome) -> list[dict[str, Any]]:
    """What each image came to, in the order of the results' files."""
    columns = {"before": outcome.before, "after": outcome.samples.scores, "clip": outcome.clip}
    return [
        {
            "prompt_index": row,
            "candidate": int(outcome.samples.candidates[row, place]),
            **{name: round(float(scores[row, place]), 6) for name, scores in columns.items()},
            "found_at_step": int(outcome.found[row, place]),
            "stopped": REASONS[int(outcome.stopped[row, place])],
        }
        for row in range(outcome.before.shape[0])
        for place in range(outcome.before.shape[1])
    ]
