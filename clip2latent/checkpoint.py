"""A trained prior in a file: Lightning checkpoints and exported folders, which describe themselves."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

from clip2latent.bridge import Bridge
from clip2latent.diffusion import Schedule
from clip2latent.latents import LatentSpace
from clip2latent.prior import LatentPrior
from clip2latent.prior_files import CONFIG, DEMO, WEIGHTS, find_prior
from clip2latent.spec import ModelSpec

CONFIG_KEY = "clip2latent"
FORMAT = 1
_PARTS = ("prior.", "space.", "bridge.")
_KEYS = {"prior", "space", "timesteps", "noise_scale", "generator", "embedder", "dataset", "guidance"}


@dataclass(frozen=True)
class LoadedPrior:
    """A frozen prior with all that sampling from it needs.

    Attributes:
        prior: in eval mode, without gradients; a `ReleasedPrior` where it came from the original clip2latent.
        space: between its tokens and the generator's latents.
        bridge: from embeddings of texts and images to what it is conditioned on.
        schedule: it was trained with.
        config: the checkpoint's description, plain types (see `describe`).
    """

    prior: nn.Module
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
    training: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Returns a checkpoint's description, plain types only.

    Args:
        prior: the network.
        space: of the generator's latents.
        bridge: of the embeddings.
        dataset: dataset.json's content.
        noise_scale: of the pseudo-text noise it was trained with.
        guidance: the recommended guidance scale.
        training: settings of the training, plain types, for those who read about the checkpoint.
    """
    summary = {name: value for name, value in dataset.items() if name != "shards"}
    if dataset.get("shards"):
        summary |= {"num_shards": len(dataset["shards"]), "shards_sha256": _digest(dataset["shards"])}
    described = {
        "format": FORMAT,
        "prior": dict(prior.config),
        "space": {"groups": list(space.groups)},
        "timesteps": prior.config["timesteps"],
        "noise_scale": float(noise_scale),
        "centred": bool(bridge.image_mean.any()),
        "guidance": float(guidance),
        "generator": dataset["generator"],
        "embedder": dataset["embedder"],
        "dataset": summary,
    }
    return {**described, "training": dict(training)} if training else described


def _digest(shards: list[dict[str, Any]]) -> str:
    """Hashes the list that `sha256sum *.tar` prints, so that it can be made again from the shards alone."""
    listed = sorted((str(shard.get("name", "")), str(shard.get("sha256", ""))) for shard in shards)
    return hashlib.sha256("".join(f"{sha256}  {name}\n" for name, sha256 in listed).encode()).hexdigest()


def check_same_models(config: dict[str, Any], dataset: dict[str, Any]) -> None:
    """Raises ValueError where a checkpoint and a dataset were made with different generators or embedders."""
    for role in ("generator", "embedder"):
        ours, theirs = ModelSpec.from_dict(config[role]), ModelSpec.from_dict(dataset[role])
        if not ours.same_model(theirs):
            raise ValueError(f"the checkpoint's {role} is {ours}, but the dataset was made with {theirs}")


def load_prior(source: str | Path = DEMO) -> LoadedPrior:
    """Loads a trained prior; files cannot run code.

    Args:
        source: "demo" for the embedded one, a Lightning checkpoint (.ckpt), an exported folder, an address of either,
            or owner/name on the Hugging Face Hub (see `find_prior`); or a checkpoint of the original clip2latent (see
            `released.load_released`).

    Raises:
        ValueError: where it is not a checkpoint of this package and format, or its keys are not those of its
            description; they are listed.
        FileNotFoundError: where there is none.
        OSError: where the download failed.
    """
    from clip2latent.released import is_released, load_released  # reaches generators, which training must not

    if is_released(source):
        return LoadedPrior(*load_released(source))
    name, config, state = _read(source)
    try:
        prior = LatentPrior(**config["prior"])
    except TypeError as error:
        raise ValueError(f"{name}: its description of the prior is not one of this version's: {error}") from error
    width, num_tokens = config["prior"]["latent_dim"], config["prior"]["num_tokens"]
    space = LatentSpace(config["space"]["groups"], torch.zeros(num_tokens, width), torch.ones(num_tokens, width))
    bridge = Bridge.plain(config["prior"]["embedding_dim"])
    if not config.get("centred"):  # checkpoints from before there were bridges hold no means
        state = {f"bridge.{key}": value for key, value in bridge.state_dict().items()} | state
    for module, prefix in ((prior, "prior."), (space, "space."), (bridge, "bridge.")):
        own = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
        _check_keys(own, module.state_dict(), prefix, name)
        module.load_state_dict(own)
        module.eval().requires_grad_(False)
    return LoadedPrior(prior, space, bridge, Schedule.cosine(config["timesteps"]), config)


def _check_keys(found: dict[str, Tensor], expected: dict[str, Tensor], prefix: str, name: str) -> None:
    missing = [prefix + key for key in sorted(expected.keys() - found)]
    unknown = [prefix + key for key in sorted(found.keys() - expected)]
    misshapen = [
        f"{prefix}{key} {tuple(found[key].shape)} in place of {tuple(expected[key].shape)}"
        for key in sorted(expected.keys() & found)
        if found[key].shape != expected[key].shape
    ]
    wrong = {"missing": missing, "unknown": unknown, "misshapen": misshapen}
    if any(wrong.values()):
        listed = "; ".join(f"{kind} {', '.join(keys)}" for kind, keys in wrong.items() if keys)
        raise ValueError(f"{name}: the weights are not those of its description: {listed}")


def export_prior(checkpoint: str | Path, folder: str | Path, training: Mapping[str, Any] | None = None) -> Path:
    """Writes a checkpoint as a folder: config.json and model.safetensors, the averaged weights only.

    Args:
        checkpoint: as `load_prior` takes it.
        folder: new, or empty.
        training: what else is known about the training, plain types, for config.json.

    Raises:
        ValueError: where the folder holds something already.
    """
    folder = Path(folder)
    if folder.exists() and any(folder.iterdir()):
        raise ValueError(f"{folder} is not empty: name another folder")
    _, config, state = _read(checkpoint)
    folder.mkdir(parents=True, exist_ok=True)
    config = {**config, "training": {**config.get("training", {}), **training}} if training else config
    tensors = {key: value.contiguous().clone() for key, value in state.items()}
    temporary = folder / f"{WEIGHTS}.partial"
    # save_file would make a file that its owner alone can read.
    temporary.write_bytes(safetensors.torch.save(tensors, metadata={"format": "pt"}))
    os.replace(temporary, folder / WEIGHTS)
    (folder / CONFIG).write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")
    return folder


def _read(source: str | Path) -> tuple[str, dict[str, Any], dict[str, Tensor]]:
    """Returns a source's name, its description and its weights (prior.*, space.*, bridge.*) in float32."""
    path, name, remote = find_prior(source)
    config, state = _read_folder(path) if path.is_dir() else _read_lightning(path)
    if not isinstance(config, dict) or config.get("format") != FORMAT:
        found = config.get("format") if isinstance(config, dict) else None
        raise ValueError(f"{name} has checkpoint format {found!r}, this version reads format {FORMAT}")
    missing = _KEYS - set(config)
    if missing:
        raise ValueError(f"the description in {name} lacks {', '.join(sorted(missing))}")
    for role in ("generator", "embedder"):
        class_path = ModelSpec.from_dict(config[role]).class_path
        if remote and not class_path.startswith("clip2latent."):
            raise ValueError(
                f"the downloaded {name} names the {role} {class_path!r}, which is not of this package: download it"
                " yourself, and give its path, if you trust it"
            )
    foreign = sorted(key for key in state if not key.startswith(_PARTS))
    if foreign:
        raise ValueError(f"{name}: the weights are not those of its description: unknown {', '.join(foreign)}")
    return name, config, {key: value.float() for key, value in state.items()}


def _read_folder(folder: Path) -> tuple[Any, dict[str, Tensor]]:
    for name in (CONFIG, WEIGHTS):
        if not (folder / name).is_file():
            raise ValueError(f"{folder} is not an exported prior: {name} is missing")
    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        return config, safetensors.torch.load_file(folder / WEIGHTS)
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
    # A training module may hold more than its prior.
    state = {key: value for key, value in checkpoint["state_dict"].items() if key.startswith(_PARTS)}
    return checkpoint[CONFIG_KEY], state
