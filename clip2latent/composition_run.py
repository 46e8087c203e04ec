"""A running composition on disk: composing.json and composing.safetensors, from which it goes on."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from clip2latent.composition import Composing
from clip2latent.composition_state import State
from clip2latent.paste import Placement, check_placement
from clip2latent.state_files import clear_state, read_state, write_state

NAME = "composing"
PICTURE = "step-{:05d}.png"


class Run(NamedTuple):
    """A composition: what is composed and how, and what results record of it.

    Attributes:
        prompt: what the whole should show.
        placements: the sizes and places that are tried.
        composing: how.
        views: augmented views of an image at each step.
        perceptual: the distance, one of `perceptual.DISTANCES`.
        foreground: its basis [M, L, D] and its unit [L, D], in one tensor [M + 1, L, D].
        background: likewise.
        options: of the results, plain types.
        models: the descriptions of the models, plain types.
    """

    prompt: str
    placements: list[Placement]
    composing: Composing
    views: int
    perceptual: str
    foreground: Tensor
    background: Tensor
    options: dict[str, Any]
    models: dict[str, Any]


def save_run(folder: Path, run: Run, state: State) -> None:
    """Writes a composition into a folder, which is made; each file is whole at any time."""
    tensors = state.to_tensors() | {f"run.{name}": getattr(run, name) for name in ("foreground", "background")}
    record = {name: getattr(run, name) for name in ("prompt", "placements", "views", "perceptual", "options", "models")}
    record |= {"composing": asdict(run.composing), "steps": int(state.steps.sum()), "left": len(state.rows)}
    write_state(folder, NAME, record, tensors)


def load_run(folder: Path | str) -> tuple[Run, State]:
    """Reads what `save_run` wrote.

    Raises:
        FileNotFoundError: where no composition is kept, such as where it has come to its end.
        ValueError: for files that are damaged or of another kind.
    """
    record, tensors = read_state(folder, NAME, "composition")
    try:
        placements = [check_placement(Placement(float(scale), str(place))) for scale, place in record["placements"]]
        plain = {"prompt": str(record["prompt"]), "views": int(record["views"]), "perceptual": record["perceptual"]}
        plain |= {"options": dict(record["options"]), "models": dict(record["models"])}
        parts = {name: tensors[f"run.{name}"] for name in ("foreground", "background")}
        state = State.from_tensors(tensors)
        if len(state.steps) != len(placements):
            raise ValueError(f"{len(placements)} sizes and places, but {len(state.steps)} states")
        return Run(placements=placements, composing=Composing(**record["composing"]), **plain, **parts), state
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ValueError(f"the composition in {folder} cannot be read: {str(error) or type(error).__name__}") from error


def clear_run(folder: Path, pictures: bool = True) -> None:
    """Removes what goes on from a folder, and the pictures that were drawn on the way."""
    clear_state(folder, NAME)
    for path in folder.glob("step-[0-9]*.png") if pictures else ():
        path.unlink(missing_ok=True)
