"""The runs of a noise sweep: one prior trained, and one scored, at each noise scale; what is done is not done again."""

from __future__ import annotations

import hashlib
import json
import os
import sys
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from clip2latent.assets import configs_folder

CONFIG = configs_folder() / "train/demo.yaml"


class Way(NamedTuple):
    """A way across the modality gap: centred embeddings or not, then noise of a scale; scale 0 is no noise."""

    alpha: float
    centred: bool

    @property
    def name(self) -> str:
        """The folder of its run."""
        return f"{'centred' if self.centred else 'plain'}-{self.alpha:g}"


class Settings(NamedTuple):
    """What all ways of a sweep have in common.

    Attributes:
        data: folder of the pairs.
        training: options of train.py beside configs/train/demo.yaml.
        validation: prompts file that chooses each run's best checkpoint.
        prompts: prompts file of the comparison.
        limit: prompts taken of it; None for all.
        num: images for each prompt.
        guidances: to compare.
        seed: of pairs, training and images.
        checkpoint: which of a run's is compared: "last", after the same steps for all, or "best".
    """

    data: Path
    training: tuple[str, ...]
    validation: Path
    prompts: Path
    limit: int | None
    num: int
    guidances: tuple[float, ...]
    seed: int
    checkpoint: str = "last"


class Interrupted(Exception):
    """Training ended before its last step; the message says why."""


def train_way(way: Way, settings: Settings, work: Path) -> Path:
    """Trains one prior, or what is left of it, and returns the checkpoint to compare.

    Raises:
        ValueError: the folder holds a run of other settings.
        Interrupted: the training ended early.
    """
    folder = work / way.name
    options = [*settings.training, f"--seed_everything={settings.seed}", f"--model.noise_scale={way.alpha}"]
    options += [f"--model.centre={str(way.centred).lower()}"]
    pairs = hashlib.sha256((settings.data / "dataset.json").read_bytes()).hexdigest()
    record = {"options": options, "dataset_sha256": pairs, "config": yaml.safe_load(CONFIG.read_text())}
    begun, done = folder / "begun.json", folder / "trained.json"
    if begun.exists() and json.loads(begun.read_text()) != record:
        raise ValueError(f"{folder} holds a run of other settings or pairs: name another --work, or remove it")
    if not done.exists():
        write(begun, json.dumps(record, indent=1))
        command = ["fit", "--config", str(CONFIG), f"--data.path={settings.data}", *options]
        command += [f"--trainer.default_root_dir={folder}", f"--validation.prompts={settings.validation}"]
        command += [f"--trainer.enable_progress_bar={sys.stderr.isatty()}"]
        code = _train([*command, *(["--ckpt_path=last"] if (folder / "last.ckpt").exists() else [])])
        if code:
            raise Interrupted(f"the training of {way.name} ended with code {code}")
        write(done, json.dumps({"options": options}))
    return folder / f"{settings.checkpoint}.ckpt"


def score(way: Way, checkpoint: Path, settings: Settings) -> dict[str, Any]:
    """Returns a trained way's rows of the table, and those that all ways have in common; made once.

    Returns:
        {"key", "rows": one for each guidance, "references": random latents and real pictures, "models"}, plain types.
    """
    from clip2latent.evaluate import Plan, critics, evaluate
    from clip2latent.prompts import read_prompts
    from clip2latent.text2image import Sampling, TextToImage

    kept = checkpoint.with_name(f"scores-{checkpoint.stem}.json")
    asked = [list(settings.guidances), settings.num, settings.limit, settings.seed, settings.prompts.read_text()]
    key = hashlib.sha256(json.dumps(asked).encode() + checkpoint.read_bytes()).hexdigest()
    if kept.exists() and (found := json.loads(kept.read_text()))["key"] == key:
        return found
    prompts = read_prompts(settings.prompts)[: settings.limit]
    pipeline = TextToImage.from_pretrained(checkpoint)
    plan = Plan(settings.num, settings.guidances, candidates=1, repeats=1, retrieval=0, fidelity=0)
    record = evaluate(pipeline, prompts, plan, Sampling(seed=settings.seed), *critics(prompts, "demo")).record
    by_key = {row["key"]: row for row in record["rows"]}
    recommended, step = pipeline.recommended_guidance, _step(checkpoint)
    rows = [
        {"way": way.name, "alpha": way.alpha, "centred": way.centred, "step": step, "guidance": scale}
        | _measures(by_key["prior" if scale == recommended else f"prior_{scale:g}"])
        for scale in settings.guidances
    ]
    references = {name: _measures(by_key[name]) for name in ("random", "real") if name in by_key}
    found = {"key": key, "rows": rows, "references": references, "models": record["models"]}
    write(kept, json.dumps(found, indent=1))
    return found


def write(path: Path, text: str) -> None:
    """Writes a file whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.partial")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)


def _measures(row: dict[str, Any]) -> dict[str, Any]:
    names = [
        name for measure in ("clip_score", "judge_accuracy", "diversity") for name in (measure, f"{measure}_stderr")
    ]
    return {name: row[name] for name in names}


def _step(checkpoint: Path) -> int:
    import torch

    return int(torch.load(checkpoint, map_location="cpu", weights_only=True)["global_step"])


def _train(arguments: list[str]) -> int:
    from clip2latent.cli_train import main

    warnings.filterwarnings("ignore", ".*LightningCLI's args parameter is intended.*")
    return main(arguments)
