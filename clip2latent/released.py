"""Reads the authors' published checkpoints (justinpinkney/clip2latent; lambdalabs/clip2latent on the Hub).

A file holds the state of dalle2-pytorch 0.2.38's DiffusionPriorTrainer: the prior as it was trained last and, to sample
from, its moving average, each with the tables of its schedule and the statistics of its latents.
"""

from __future__ import annotations

import math
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from clip2latent.bridge import Bridge
from clip2latent.diffusion import Schedule
from clip2latent.downloads import cached_file, is_remote
from clip2latent.generators.official import check_state
from clip2latent.latents import LatentSpace
from clip2latent.released_config import YAML, find_published, named_models, resolved
from clip2latent.released_prior import ReleasedPrior, official_name
from clip2latent.released_records import load_inert, plain

AVERAGE = "ema_diffusion_prior.ema_model."
_MARK = b"ema_diffusion_prior."
_HEAD = 2**23  # bytes; names stand before the values
_SCHEDULE = {"betas", "alphas_cumprod", "alphas_cumprod_prev", "sqrt_alphas_cumprod", "sqrt_one_minus_alphas_cumprod"}
_SCHEDULE |= {"log_one_minus_alphas_cumprod", "sqrt_recip_alphas_cumprod", "sqrt_recipm1_alphas_cumprod"}
_SCHEDULE |= {"posterior_variance", "posterior_log_variance_clipped", "posterior_mean_coef1", "posterior_mean_coef2"}
# The original computes normalised embeddings and throws them away: their statistics mean nothing.
_STATISTICS = {"latent_mean", "latent_std", "embed_mean", "embed_std"}
_NETWORK = {"dim", "num_timesteps", "depth", "dim_head", "heads"}
# Options of the diffusion: the values that are read, where only some are.
_DIFFUSION = {
    "image_embed_dim": None,
    "timesteps": None,
    "image_embed_scale": None,
    "text_embed_scale": None,
    "beta_schedule": None,
    "cond_drop_prob": None,
    "loss_type": None,
    "condition_on_text_encodings": None,
    "predict_x_start": (True,),
    "init_image_embed_l2norm": (False,),
    "sampling_clamp_l2norm": (False,),
    "training_clamp_l2norm": (False,),
}


class Released(NamedTuple):
    """A published prior in this package's parts; see `checkpoint.LoadedPrior`.

    Attributes:
        prior: the moving average, in eval mode, without gradients.
        space: between its tokens and the generator's latents.
        bridge: leaves embeddings as CLIP gives them, with their own norm.
        schedule: it was trained with.
        config: a description, plain types, with its generator and its embedder.
    """

    prior: ReleasedPrior
    space: LatentSpace
    bridge: Bridge
    schedule: Schedule
    config: dict[str, Any]


def is_released(source: str | Path) -> bool:
    """Tells whether a source is a published checkpoint or a yaml file; an address of a .ckpt file is fetched first."""
    text = str(source)
    if not is_remote(text) and Path(source).suffix in YAML:
        return True
    if is_remote(text) and ".ckpt" in text.rpartition("/")[2]:
        source = cached_file(text)
    if not Path(source).is_file():
        return False
    with Path(source).open("rb") as stream:
        return _MARK in stream.read(_HEAD)


def load_released(source: str | Path) -> Released:
    """Loads a published checkpoint; files cannot run code.

    Args:
        source: the checkpoint (.ckpt) with its configuration (.yaml) beside it, a path or an address; or the path of a
            yaml file that names a checkpoint, a generator and an embedder, such as configs/sample/released-ffhq.yaml.

    Raises:
        FileNotFoundError: a file is missing, or must not be downloaded.
        ValueError: a file is not what it should be; weights that do not fit the configuration are listed.
        OSError: the download failed.
    """
    published = find_published(source)
    content = _read(published.checkpoint, published.name)
    config = published.config
    if config is None and isinstance(within := plain(content.get("cfg")), dict):
        config = resolved(within)
    if config is None:
        beside = Path(published.name).with_suffix(".yaml").name
        raise ValueError(f"{published.name}: its configuration is missing; put the authors' {beside} beside it")
    average = _average(content["state_dict"], published.name)
    try:
        prior, space, schedule = _parts(average, config)
        models = {"generator": published.generator, "embedder": published.embedder}
        if None in models.values():
            named = named_models(config, space.groups, published.checkpoint.parent)
            models = {role: model or named[role] for role, model in models.items()}
    except (TypeError, ValueError) as error:
        raise ValueError(f"{published.name}: {error}") from error
    described = {
        "released": published.name,
        "prior": dict(prior.config),
        "space": {"groups": list(space.groups)},
        "timesteps": schedule.timesteps,
        "noise_scale": config["data"].get("embed_noise_scale", config["data"].get("noise_scale")),
        "guidance": published.guidance,
        **models,
    }
    return Released(prior, space, Bridge.plain(prior.config["embedding_dim"]), schedule, described)


def _read(path: Path, name: str) -> dict[str, Any]:
    try:
        content = load_inert(path)
    except (pickle.UnpicklingError, RuntimeError, EOFError, LookupError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())[:300]
        raise ValueError(
            f"{name} is damaged, or holds more than tensors, plain types and a configuration of omegaconf, which is not"
            f" read: {reason}"
        ) from None
    if not isinstance(content, dict) or not isinstance(content.get("state_dict"), dict):
        raise ValueError(f"{name} is not a published checkpoint: it has no 'state_dict'")
    return content


def _average(state: Mapping[str, Any], name: str) -> dict[str, Tensor]:
    """Returns the moving average's tensors by their names in it, in float32."""
    average = {key.removeprefix(AVERAGE): value for key, value in state.items() if key.startswith(AVERAGE)}
    if not average or not all(isinstance(value, Tensor) for value in average.values()):
        raise ValueError(f"{name} is not a published checkpoint: it has no weights {AVERAGE}*, which are sampled from")
    return {key: value.float() for key, value in average.items()}


def _parts(state: dict[str, Tensor], config: Mapping[str, Any]) -> tuple[ReleasedPrior, LatentSpace, Schedule]:
    """Builds what the configuration describes, with the weights of a state dict, strictly."""
    network, diffusion, data = _sections(config)
    groups = tuple(int(size) for size in data["latent_repeats"])
    width, num_tokens = int(network["dim"]), int(data["n_latents"])
    if len(groups) != num_tokens:
        raise ValueError(f"data.latent_repeats: expected n_latents={num_tokens} numbers, got {list(groups)}")
    prior = ReleasedPrior(
        dim=width,
        depth=int(network["depth"]),
        heads=int(network["heads"]),
        dim_head=int(network["dim_head"]),
        timesteps=int(network["num_timesteps"]),
        num_tokens=num_tokens,
        embedding_scale=float(diffusion.get("text_embed_scale") or 1.0),
    )
    official = {name: f"net.{official_name(name)}" for name in prior.state_dict()}
    expected = {official[name]: weight for name, weight in prior.state_dict().items()}
    expected |= {name: state["betas"] for name in _SCHEDULE if "betas" in state}
    expected |= {name: state[name] for name in _STATISTICS & state.keys()}
    check_state(state, expected, "the network of the configuration")
    prior.load_state_dict({name: state[official[name]] for name in official})
    if len(state["betas"]) != prior.config["timesteps"]:
        raise ValueError(f"num_timesteps={prior.config['timesteps']}, but the schedule has {len(state['betas'])} betas")
    scale = diffusion.get("image_embed_scale")
    scale = math.sqrt(width) if scale is None else float(scale)  # dalle2-pytorch's default
    space = LatentSpace(groups, *_statistics(state, num_tokens, width, scale))
    schedule = Schedule(torch.cumprod(1 - state["betas"].double(), dim=0))
    return prior.eval().requires_grad_(False), space.requires_grad_(False), schedule


def _statistics(state: Mapping[str, Tensor], num_tokens: int, width: int, scale: float) -> list[Tensor]:
    """Returns the latents' mean [K, D], and their deviation [K, D] for tokens that were scaled."""
    shape = (num_tokens, width) if num_tokens > 1 else (width,)
    mean, std = (state.get(f"latent_{name}", torch.full(shape, value)) for name, value in (("mean", 0.0), ("std", 1.0)))
    for name, value in (("latent_mean", mean), ("latent_std", std)):
        if tuple(value.shape) != shape:
            raise ValueError(f"{name}: expected {list(shape)} of n_latents={num_tokens}, found {list(value.shape)}")
    return [mean.view(num_tokens, width), std.view(num_tokens, width) / scale]


def _sections(config: Mapping[str, Any]) -> tuple[Mapping[str, Any], Mapping[str, Any], Mapping[str, Any]]:
    """Returns model.network, model.diffusion and data, checked for what they must have and for what is not read."""
    model = config.get("model") if isinstance(config.get("model"), Mapping) else {}
    network, diffusion, data = model.get("network"), model.get("diffusion"), config.get("data")
    if not all(isinstance(section, Mapping) for section in (network, diffusion, data)):
        raise ValueError(f"the configuration has {', '.join(config)}: expected model.network, model.diffusion and data")
    missing = sorted(_NETWORK - network.keys()) + sorted({"n_latents", "latent_repeats"} - data.keys())
    unread = sorted(network.keys() - _NETWORK) + sorted(diffusion.keys() - _DIFFUSION.keys())
    unread += [
        f"{name}={diffusion[name]}"
        for name, values in _DIFFUSION.items()
        if values is not None and diffusion.get(name, values[0]) not in values
    ]
    if missing or unread:
        problems = [f"lacks {', '.join(missing)}"] * bool(missing) + [f"has {', '.join(unread)}"] * bool(unread)
        raise ValueError(f"the configuration {' and '.join(problems)}, which no published prior does")
    sizes = {"image_embed_dim": network["dim"], "timesteps": network["num_timesteps"]}
    for name, size in sizes.items():
        if diffusion.get(name, size) != size:
            raise ValueError(f"model.diffusion.{name}: expected the network's {size}, got {diffusion[name]}")
    return network, diffusion, data
