"""One Weights & Biases run per run folder, however often the training is restarted."""

from __future__ import annotations

import secrets
import sys
from pathlib import Path
from typing import Any

ID_FILE = "wandb-id.txt"


def keep_run(logger: Any, folder: Path) -> None:
    """Gives a WandbLogger's options the run folder as their place and the folder's run id, made once.

    Args:
        logger: the options as the command line read them (class_path, init_args); others are left alone.
        folder: the run's folder.
    """
    if str(getattr(logger, "class_path", "")).rpartition(".")[2] != "WandbLogger":
        return
    options = logger.init_args
    if options.get("save_dir") in (None, "."):
        options.save_dir = str(folder)
    if not (options.get("id") or options.get("version")):
        options.id = _run_id(folder)
    # wandb writes beside other runs where the folder is missing.
    Path(options.save_dir).mkdir(parents=True, exist_ok=True)


def finish_run(exit_code: int) -> None:
    """Writes out and ends the run that is open, if there is one; another training in this process starts its own."""
    wandb = sys.modules.get("wandb")
    if wandb is not None and getattr(wandb, "run", None) is not None:
        wandb.finish(exit_code=exit_code)


def _run_id(folder: Path) -> str:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / ID_FILE
    try:
        with open(path, "x", encoding="utf-8") as file:
            file.write(secrets.token_hex(4))
    except FileExistsError:
        pass
    # Of several processes only the first one's logger ever opens a run: it does not matter which of them wrote.
    return path.read_text(encoding="utf-8").strip()
