"""Tiny open_clip models at random weights, in folders, for tests of embedders."""

import json
from pathlib import Path

import torch
from safetensors.torch import save_file

from clip2latent import openclip

VISION = {"layers": 2, "width": 32, "head_width": 16, "patch_size": 8, "image_size": 32}
TEXT = {"context_length": 12, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 2}
TINY = {"embed_dim": 24, "vision_cfg": VISION, "text_cfg": TEXT}


def write_folder(folder: Path, model_cfg: dict, **config: object) -> Path:
    torch.manual_seed(0)
    folder.mkdir(exist_ok=True)
    state = openclip.build_clip(model_cfg).state_dict()
    save_file({name: value.clone() for name, value in state.items()}, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({"model_cfg": model_cfg, **config}))
    return folder


def images(num: int, side: int) -> torch.Tensor:
    return torch.rand(num, 3, side, side, generator=torch.Generator().manual_seed(1)) * 2 - 1
