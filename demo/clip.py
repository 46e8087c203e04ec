"""Trains the demo's CLIP: `python -m demo.clip --preset cpu --work runs/demo/clip --out clip2latent/assets/demo-clip`.

An open_clip model learns to match images and captions of both worlds. Linear heads on the embeddings, thrown away
afterwards, also have to tell every attribute: from the image where it is visible, from the caption where it is named.
They make the fine attributes (expressions, eyes) come early, and draw the two towers together.
"""

from __future__ import annotations

import argparse
import copy
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import AdamW
from torch.utils.data import DataLoader

from clip2latent import openclip
from clip2latent.embedders import OpenCLIPEmbedder
from demo import avatars, clip_scores, objects
from demo.augment import augment
from demo.clip_losses import Heads, contrast_and_attributes, encode_captions
from demo.data import World
from demo.judge import HELD_OUT
from demo.pairs import Pairs, Source
from demo.training import Log, State, cosine, follow, save_asset, step_rng
from demo.vocabulary import count_words, learn_merges, vocab_size, write_merges

WORLDS: dict[str, World] = {"avatars": avatars, "objects": objects}
MERGES = "merges.txt.gz"
CONTEXT = 40
"""The grammars' longest captions take 34 tokens; a user's words that are not in the vocabulary take several each."""
MEAN, STD = (0.5, 0.5, 0.5), (0.3, 0.3, 0.3)


@dataclass(frozen=True)
class Preset:
    """A training's budget and the model's size.

    Attributes:
        steps: batches of `avatars` + `objects` pairs.
        avatars: pairs of avatars in a batch.
        objects: pairs of objects in a batch.
        pool: different images drawn of each world.
        width: of the image tower.
        layers: blocks in each of the image tower's stages.
        dim: E.
        rate: the highest learning rate.
        workers: processes that draw and write; 0 for the training's own.
        save_every: steps between two states.
        score_every: steps between two evaluations.
        sets: sets of pairs in an evaluation.
    """

    steps: int
    avatars: int = 96
    objects: int = 48
    pool: int = 40_000
    width: int = 16
    layers: tuple[int, ...] = (1, 2, 2, 1)
    dim: int = 128
    rate: float = 1.5e-3
    workers: int = 0
    save_every: int = 100
    score_every: int = 500
    sets: int = 10


PRESETS = {
    "cpu": Preset(steps=3200),
    "gpu": Preset(steps=12_000, avatars=256, objects=128, width=32, workers=12),
    "smoke": Preset(steps=4, avatars=8, objects=8, pool=16, layers=(1, 1, 1, 1), dim=32, save_every=2, sets=1),
}


def model_cfg(preset: Preset, vocabulary: int) -> dict[str, Any]:
    """Returns open_clip's configuration of the model."""
    vision = {
        "layers": list(preset.layers),
        "width": preset.width,
        "head_width": 64,
        "image_size": 64,
        "patch_size": None,
    }
    text = {"context_length": CONTEXT, "vocab_size": vocabulary, "width": 128, "heads": 4, "layers": 3}
    return {"embed_dim": preset.dim, "vision_cfg": vision, "text_cfg": text}


def train(
    preset: Preset, work: Path, out: Path, seed: int = 0, device: str = "cpu", bf16: bool = True
) -> dict[str, Any]:
    """Trains a CLIP, or goes on where it was killed, and saves the average of its weights.

    Args:
        preset: the budget.
        work: folder of the state, the log and the newest snapshot of the result.
        out: folder of the result.
        seed: of the weights, the pairs and the augmentation.
        device: where to train.
        bf16: compute the towers in bfloat16, which saves a quarter of the time where the processor can.

    Returns:
        Retrieval and zero-shot accuracy on held-out pairs of both worlds.
    """
    torch.manual_seed(seed)
    work.mkdir(parents=True, exist_ok=True)
    config = _config(preset, seed, work)
    clip = openclip.build_clip(config["model_cfg"]).to(device)
    clip.visual.to(memory_format=torch.channels_last)
    tokenizer = openclip.build_tokenizer(config["model_cfg"], work / MERGES)
    heads = Heads(preset.dim, WORLDS).to(device)
    average = copy.deepcopy(clip).eval().requires_grad_(False)
    optimizer = AdamW(_groups(clip, heads), lr=preset.rate, betas=(0.9, 0.98))
    settings = {"seed": seed} | asdict(preset) | {"layers": list(preset.layers)}
    state = State(work / "state.pt", settings, clip=clip, heads=heads, average=average, optimizer=optimizer)
    log = Log(work / "log.jsonl")
    embedder = _embedder(average, tokenizer, config)

    first = state.load()
    pairs = Pairs(_sources(preset), seed, preset.pool, first)
    batches = DataLoader(pairs, batch_size=None, num_workers=preset.workers)
    clip.train()
    for step, parts in zip(range(first, preset.steps), batches, strict=False):
        rate = preset.rate * cosine(step, preset.steps, warmup=200)
        for group in optimizer.param_groups:
            group["lr"] = rate
        images = _normalise(augment(torch.cat([part.images for part in parts]).to(device), step_rng(seed, step)))
        tokens = tokenizer([caption for part in parts for caption in part.captions]).to(device)
        with torch.autocast(torch.device(device).type, torch.bfloat16, enabled=bf16):
            image, text = clip.encode_image(images), encode_captions(clip, tokens)
        losses = contrast_and_attributes(clip.logit_scale, heads, image.float(), text.float(), parts)
        optimizer.zero_grad()
        sum(losses.values()).backward()
        nn.utils.clip_grad_norm_(clip.parameters(), 1.0)
        optimizer.step()
        follow(average, clip, decay=min(0.998, (step + 1) / (step + 10)))
        if (step + 1) % preset.save_every == 0:
            state.save(step + 1)
            log.write(
                step + 1, **{name: loss.item() for name, loss in losses.items()}, scale=clip.logit_scale.exp().item()
            )
        if (step + 1) % preset.score_every == 0 and step + 1 < preset.steps:
            _export(work / "latest", work, config, average)
            log.write(step + 1, **scores(embedder, sets=min(2, preset.sets)))
    result = scores(embedder, preset.sets)
    log.write(preset.steps, **result)
    _export(out, work, config | {"scores": result}, average)
    return result


def scores(embedder: OpenCLIPEmbedder, sets: int) -> dict[str, Any]:
    """Scores an embedder on `sets` times 100 held-out pairs of both worlds."""
    found: dict[str, Any] = {}
    for name, world in WORLDS.items():
        retrieval = clip_scores.retrieval(embedder, world, HELD_OUT, sets)._asdict()
        zero_shot = clip_scores.zero_shot(embedder, world, prompts(name), HELD_OUT, 100 * sets)
        found[name] = {key: round(value, 3) for key, value in retrieval.items()}
        found[f"{name}_zero_shot"] = {key: round(value, 3) for key, value in zero_shot.items()}
    return found


def prompts(name: str, seed: int = HELD_OUT, num: int = 12) -> clip_scores.Prompts:
    """Returns zero-shot prompts for every attribute's values: sentences that name it and nothing else, if there are."""
    if name == "objects":
        return clip_scores.terse_prompts(objects, seed, num)
    rng = np.random.default_rng(seed)
    found = {}
    for attribute, values in avatars.ATTRIBUTES.items():
        hat = {"hat": "any"} if attribute == "hat_color" else {}
        for value in values:
            found[attribute, value] = [avatars.caption_of({attribute: value} | hat, rng) for _ in range(num)]
    return found


def _normalise(images: Tensor) -> Tensor:
    mean, std = (torch.tensor(values, device=images.device).view(3, 1, 1) for values in (MEAN, STD))
    return (((images + 1) / 2 - mean) / std).contiguous(memory_format=torch.channels_last)


def _sources(preset: Preset) -> list[Source]:
    """Groups are for what is seen but hard to tell by its words; an object's second is left alone."""
    hard = dict.fromkeys(("age", "beard", "expression", "hair_color", "hair_style", "skin"), 2.0)
    faces = dict.fromkeys(avatars.ATTRIBUTES, 1.0) | hard
    things = {"class": 2.0, "color": 1.0, "ground": 1.0}
    return [
        Source(avatars, preset.avatars, preset.avatars // 8, faces),
        Source(objects, preset.objects, preset.objects // 12, things),
    ]


def _groups(clip: nn.Module, heads: Heads) -> list[dict[str, Any]]:
    """Weight decay for matrices only."""
    parameters = [*clip.parameters(), *heads.parameters()]
    matrices = [p for p in parameters if p.ndim > 1]
    return [
        {"params": matrices, "weight_decay": 0.05},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]


def _config(preset: Preset, seed: int, work: Path) -> dict[str, Any]:
    """Learns the vocabulary from captions and returns the asset's configuration."""
    words = sorted({part for world in WORLDS.values() for part in world.WORDS})
    sample = range(min(1000, preset.pool))
    captions = [world.example(seed, index).caption for world in WORLDS.values() for index in sample]
    merges = learn_merges(count_words(captions, words))
    write_merges(work / MERGES, merges)
    preprocess = {"mean": list(MEAN), "std": list(STD), "size": 64, "interpolation": "bicubic"}
    return {
        "model_cfg": model_cfg(preset, vocab_size(merges)),
        "preprocess_cfg": preprocess,
        "merges": MERGES,
        "words": sorted(count_words([], words)),
    }


def _embedder(clip: nn.Module, tokenizer: Any, config: Mapping[str, Any]) -> OpenCLIPEmbedder:
    dim, resolution = config["model_cfg"]["embed_dim"], config["preprocess_cfg"]["size"]
    return OpenCLIPEmbedder(clip, tokenizer, tokenizer.context_length, dim, resolution, MEAN, STD, config["words"])


def _export(folder: Path, work: Path, config: Mapping[str, Any], clip: nn.Module) -> None:
    save_asset(folder, config, clip.state_dict())
    temporary = folder / "merges.tmp"
    temporary.write_bytes((work / MERGES).read_bytes())
    os.replace(temporary, folder / MERGES)


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description="Train the demo's CLIP on both worlds.")
    parser.add_argument("--preset", choices=sorted(PRESETS), default="cpu")
    parser.add_argument("--work", type=Path, required=True, help="folder of the resumable state and the log")
    parser.add_argument("--out", type=Path, required=True, help="folder of the trained model")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--fp32", action="store_true", help="compute in float32, for processors without bfloat16")
    args = parser.parse_args()
    train(PRESETS[args.preset], args.work, args.out, args.seed, args.device, bf16=not args.fp32)


if __name__ == "__main__":
    main()
