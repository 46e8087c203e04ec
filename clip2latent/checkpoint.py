"""A trained prior in a file: Lightning checkpoints and exported folders, which describe themselves."""

from __future__ import annotations

import json
import os
import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from clip2latent.bridge import Bridge
from clip2latent.diffusion import Schedule
from clip2latent.latents import LatentSpace
from clip2latent.prior import LatentPrior
from clip2latent.spec import ModelSpec

CONFIG_KEY = "clip2latent"
FORMAT = 1
_DEMO = "demo"
_KEYS = {"prior", "space", "timesteps", "noise_scale", "generator", "embedder", "dataset", "guidance"}


@dataclass(frozen=True)
class LoadedPrior:
    """A frozen prior with all that sampling from it needs.

    Attributes:
        prior: in eval mode, without gradients.
        space: between its tokens and the generator's latents.
        bridge: from embeddings of texts and images to what it is conditioned on.
        schedule: it was trained with.
        config: the checkpoint's description, plain types (see `describe`).
    """

    prior: LatentPrior
    space: LatentSpace
    bridge: Bridge
    schedule: Schedule
    config: dict[str, Any]

    @property
    def generator(self) -> ModelSpec:
        """The generator the latents are of."""
        return ModelSpec.from_dict(self.config["generator"])

    @property
    def embedder(self) -> ModelSpec:
        """The embedder the prior is conditioned on."""
        return ModelSpec.from_dict(self.config["embedder"])


def describe(
    prior: LatentPrior,
    space: LatentSpace,
    bridge: Bridge,
    dataset: dict[str, Any],
    noise_scale: float,
    guidance: float,
) -> dict[str, Any]:
    """Returns a checkpoint's description, plain types only.

    Args:
        prior: the network.
        space: of the generator's latents.
        bridge: of the embeddings.
        dataset: dataset.json's content.
        noise_scale: of the pseudo-text noise it was trained with.
        guidance: the recommended guidance scale.
    """
    return {
        "format": FORMAT,
        "prior": dict(prior.config),
        "space": {"groups": list(space.groups)},
        "timesteps": prior.config["timesteps"],
        "noise_scale": float(noise_scale),
        "centred": bool(bridge.image_mean.any()),
        "guidance": float(guidance),
        "generator": dataset["generator"],
        "embedder": dataset["embedder"],
        "dataset": {name: value for name, value in dataset.items() if name != "shards"},
    }


def check_same_models(config: dict[str, Any], dataset: dict[str, Any]) -> None:
    """Raises ValueError where a checkpoint and a dataset were made with different generators or embedders."""
    for role in ("generator", "embedder"):
        ours, theirs = ModelSpec.from_dict(config[role]), ModelSpec.from_dict(dataset[role])
        if not ours.same_model(theirs):
            raise ValueError(f"the checkpoint's {role} is {ours}, but the dataset was made with {theirs}")


def load_prior(source: str | Path = _DEMO) -> LoadedPrior:
    """Loads a trained prior; files cannot run code.

    Args:
        source: "demo" for the embedded one, a Lightning checkpoint (.ckpt), or an exported folder.

    Raises:
        ValueError: where it is not a checkpoint of this package and format, or its keys are not those of its
            description; they are listed.
        FileNotFoundError: where there is none.
    """
    name, config, state = _read(source)
    prior = LatentPrior(**config["prior"])
    width, num_tokens = config["prior"]["latent_dim"], config["prior"]["num_tokens"]
    space = LatentSpace(config["space"]["groups"], torch.zeros(num_tokens, width), torch.ones(num_tokens, width))
    bridge = Bridge.plain(config["prior"]["embedding_dim"])
    if not config.get("centred"):
        state |= {f"bridge.{key}": value for key, value in bridge.state_dict().items()}
    for module, prefix in ((prior, "prior."), (space, "space."), (bridge, "bridge.")):
        own = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
        expected = {key: tuple(value.shape) for key, value in module.state_dict().items()}
        found = {key: tuple(value.shape) for key, value in own.items()}
        if found != expected:
            differing = sorted(prefix + key for key in expected.keys() | found if expected.get(key) != found.get(key))
            raise ValueError(f"{name}: missing, unknown or misshapen weights: {', '.join(differing)}")
        module.load_state_dict(own)
        module.eval().requires_grad_(False)
    return LoadedPrior(prior, space, bridge, Schedule.cosine(config["timesteps"]), config)


def export_prior(checkpoint: str | Path, folder: str | Path) -> Path:
    """Writes a checkpoint as a folder: config.json and model.safetensors, the averaged weights only.

    Raises:
        ValueError: where the folder holds something already.
    """
    folder = Path(folder)
    if folder.exists() and any(folder.iterdir()):
        raise ValueError(f"{folder} is not empty: name another folder")
    _, config, state = _read(checkpoint)
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {key: value.contiguous().clone() for key, value in state.items()}
    temporary = folder / "model.safetensors.partial"
    safetensors.torch.save_file(tensors, temporary, metadata={"format": "pt"})
    os.replace(temporary, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")
    return folder


def _read(source: str | Path) -> tuple[str, dict[str, Any], dict[str, Tensor]]:
    """Returns a source's name, its description and its weights (prior.*, space.*, bridge.*) in float32."""
    path = Path(source)
    if str(source) == _DEMO:
        from clip2latent.assets import asset

        path = asset("demo-prior")
    if path.is_dir():
        config, state = _read_folder(path)
    elif path.is_file():
        config, state = _read_lightning(path)
    else:
        raise FileNotFoundError(f"checkpoint {path} does not exist: name a .ckpt file, an exported folder, or 'demo'")
    if not isinstance(config, dict) or config.get("format") != FORMAT:
        found = config.get("format") if isinstance(config, dict) else None
        raise ValueError(f"{path} has checkpoint format {found!r}, this version reads format {FORMAT}")
    missing = _KEYS - set(config)
    if missing:
        raise ValueError(f"the description in {path} lacks {', '.join(sorted(missing))}")
    kept = {key: value.float() for key, value in state.items() if key.startswith(("prior.", "space.", "bridge."))}
    return str(path), config, kept


def _read_folder(folder: Path) -> tuple[Any, dict[str, Tensor]]:
    for name in ("config.json", "model.safetensors"):
        if not (folder / name).is_file():
            raise ValueError(f"{folder} is not an exported prior: {name} is missing")
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        return config, safetensors.torch.load_file(folder / "model.safetensors")
    except (ValueError, safetensors.SafetensorError) as error:
        raise ValueError(f"{folder} cannot be read: {error}") from error


def _read_lightning(path: Path) -> tuple[Any, dict[str, Tensor]]:
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, KeyError, OSError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"{path} is not a checkpoint, or a damaged one: {reason}") from error
    if not isinstance(checkpoint, dict) or CONFIG_KEY not in checkpoint:
        raise ValueError(f"{path} is not a checkpoint of clip2latent: it has no {CONFIG_KEY!r} entry")
    return checkpoint[CONFIG_KEY], checkpoint["state_dict"]
