"""How a checkpoint was trained and how it did, as far as it and the run's folder tell: for those who read about it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import torch
import yaml

from clip2latent.prior_files import find_prior

# Of the run's config.yaml, what tells how the weights came about; no paths.
_SETTINGS = {
    "model": (
        "noise_scale",
        "centre",
        "condition_dropout",
        "learning_rate",
        "weight_decay",
        "warmup_steps",
        "cosine_decay",
    ),
    "data": ("batch_size", "holdout"),
    "average": ("decay", "every_n_steps"),
    "trainer": (
        "max_steps",
        "precision",
        "gradient_clip_val",
        "accumulate_grad_batches",
        "devices",
        "num_nodes",
    ),
}


class TrainingRecord(NamedTuple):
    """What is known about a training.

    Attributes:
        settings: name -> value, plain types.
        scores: metric -> value at the step the checkpoint was written at.
        prompts: the prompts file it was validated on, where that still exists.
    """

    settings: dict[str, Any]
    scores: dict[str, float]
    prompts: str | None


def read_training(source: str | Path, config: dict[str, Any]) -> TrainingRecord:
    """Reads what a checkpoint, and config.yaml beside it, say about its training.

    Args:
        source: as `load_prior` takes it; it was loaded before, so that it is known to be sound.
        config: the checkpoint's description.
    """
    known = dict(config.get("training") or {})
    scores = {str(name): float(value) for name, value in (known.pop("scores", None) or {}).items()}
    path = find_prior(source).path
    if path.is_dir():
        return TrainingRecord(known, scores, None)
    checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    run = _read_run(path.with_name("config.yaml"), config)
    weights = "moving average" if "current_model_state" in checkpoint else "as optimised"
    step = int(checkpoint.get("global_step", 0))
    settings = known | _from_run(run) | {"steps": step, "weights": weights}
    scores |= _scores(checkpoint.get("callbacks") or {}, step)
    prompts = (run.get("validation") or {}).get("prompts")
    return TrainingRecord(settings, scores, prompts if prompts and Path(prompts).is_file() else None)


def _read_run(path: Path, config: dict[str, Any]) -> dict[str, Any]:
    """The run's config.yaml, where it is there and is that of this checkpoint; else {}."""
    try:
        run = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        return {}
    model = run.get("model") if isinstance(run, dict) else None
    if not isinstance(model, dict):
        return {}
    described = {**config["prior"], "noise_scale": config["noise_scale"]}
    named = ("dim", "depth", "heads", "dim_head", "noise_scale")
    return run if all(model.get(name, described.get(name)) == described.get(name) for name in named) else {}


def _from_run(run: dict[str, Any]) -> dict[str, Any]:
    found = {}
    for part, names in _SETTINGS.items():
        section = run.get(part)
        if isinstance(section, dict):
            prefix = "average_" if part == "average" else ""
            found |= {prefix + name: section[name] for name in names if section.get(name) is not None}
    if "seed_everything" in run:
        found["seed"] = run["seed_everything"]
    return found


def _scores(callbacks: dict[str, Any], step: int) -> dict[str, float]:
    """What the callbacks that choose checkpoints by a metric saw when this one was written."""
    found = {}
    for state in callbacks.values():
        if not isinstance(state, dict) or not state.get("monitor"):
            continue
        if state.get("current_score") is not None:  # Lightning's ModelCheckpoint
            found[str(state["monitor"])] = float(state["current_score"])
        for score, at in state.get("best") or []:  # saving.Checkpoints
            if int(at) == step:
                found[str(state["monitor"])] = float(score)
    return found
