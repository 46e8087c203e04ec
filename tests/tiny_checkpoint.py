"""An exported prior of a few thousand random weights over the tiny models, for tests of whatever loads one."""

import json
from pathlib import Path

import safetensors.torch
import torch
from tiny_models import TinyEmbedder, TinyGenerator

from clip2latent.bridge import Bridge
from clip2latent.checkpoint import describe
from clip2latent.latents import LatentSpace
from clip2latent.prior import LatentPrior
from clip2latent.spec import ModelSpec


def write_tiny_checkpoint(folder: Path, embedder: str = "tiny_models.TinyEmbedder", **changes) -> Path:
    """Writes config.json and model.safetensors; `changes` replace entries of config.json."""
    torch.manual_seed(0)
    prior = LatentPrior(embedding_dim=5, latent_dim=4, dim=8, depth=1, heads=2, dim_head=4, timesteps=50)
    space = LatentSpace((3,), torch.full((1, 4), 0.5), torch.full((1, 4), 2.0))
    dataset = {
        "generator": ModelSpec.of("tiny_models.TinyGenerator", {}, TinyGenerator()).to_dict(),
        "embedder": ModelSpec.of(embedder, {}, TinyEmbedder()).to_dict(),
        "shards": [],
    }
    folder.mkdir(parents=True)
    bridge = Bridge.plain(5)
    config = describe(prior, space, bridge, dataset, noise_scale=0.5, guidance=2.0) | changes
    (folder / "config.json").write_text(json.dumps(config))
    parts = {"prior": prior, "space": space}
    state = {f"{name}.{key}": value.clone() for name, part in parts.items() for key, value in part.state_dict().items()}
    safetensors.torch.save_file(state, folder / "model.safetensors")
    return folder


class ChoosyEmbedder(TinyEmbedder):
    """Knows which words it never saw: all but "a red hat"."""

    def unknown_words(self, prompt: str) -> list[str]:
        return [word for word in prompt.split() if word not in ("a", "red", "hat")]
