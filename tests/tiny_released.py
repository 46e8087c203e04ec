"""A published checkpoint written anew from recorded weights."""

import shutil
from collections.abc import Callable
from pathlib import Path

import torch
import yaml
from golden_cases import Case

from clip2latent.released import AVERAGE


def published(case: Case, folder: Path, **entries) -> Path:
    """Writes style.ckpt and style.yaml in the authors' layout: the case's weights as the average, others beside it."""
    state = {AVERAGE + name: value for name, value in case.weights.items()}
    for other in ("diffusion_prior.", "ema_diffusion_prior.online_model."):
        state |= {other + name: value + 1 for name, value in case.weights.items()}
    state |= {name: torch.ones(1) for name in ("step", "ema_diffusion_prior.initted", "ema_diffusion_prior.step")}
    torch.save({"state_dict": state, **entries}, folder / "style.ckpt")
    shutil.copyfile(case.folder / "released_style.yaml", folder / "style.yaml")
    return folder / "style.ckpt"


def change_config(checkpoint: Path, edit: Callable[[dict], object]) -> None:
    """Edits the configuration beside a checkpoint."""
    path = checkpoint.with_suffix(".yaml")
    config = yaml.safe_load(path.read_text())
    edit(config)
    path.write_text(yaml.safe_dump(config))


def tokens(case, name: str) -> torch.Tensor:
    """A recorded tensor [..., B, D] or [..., B, K, D] as [..., B, K, D]."""
    value = case.io[name]
    return value.unflatten(-1, (1, -1)) if case.config["n_latents"] == 1 else value


class Running:
    """Whoever unpickles it runs its code."""

    ran = False

    def __reduce__(self):
        return Running.run, ()

    @staticmethod
    def run(*_) -> None:
        Running.ran = True
