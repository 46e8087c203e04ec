"""Trains the judge: `python -m demo.judge --preset cpu --work runs/demo/judge --out clip2latent/assets/demo-judge`."""

from __future__ import annotations

import argparse
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch.nn import functional as F
from torch.optim import AdamW
from torch.utils.data import DataLoader

from clip2latent.judge import AttributeJudge
from demo import avatars
from demo.augment import augment
from demo.data import UNKNOWN, Batch, Renders, World, labels, render, visible
from demo.training import Log, State, cosine, save_asset, step_rng

HELD_OUT = 1_000_003
"""The seed of the renders that nothing is trained on."""


@dataclass(frozen=True)
class Preset:
    """A training's budget: `steps` batches of `batch_size` renders."""

    steps: int
    batch_size: int = 64
    width: int = 16
    workers: int = 0
    save_every: int = 200
    held_out: int = 2000


PRESETS = {
    "cpu": Preset(steps=1800),
    "gpu": Preset(steps=2200, batch_size=256, width=32, workers=12),
    "smoke": Preset(steps=6, batch_size=16, width=8, save_every=3, held_out=32),
}


def train(world: World, preset: Preset, work: Path, out: Path, seed: int = 0, device: str = "cpu") -> dict[str, float]:
    """Trains a judge on augmented renders, or goes on where it was killed, and saves it.

    Args:
        world: whose attributes it learns to read.
        preset: the budget.
        work: folder of the state and the log.
        out: folder of the result.
        seed: of the weights, the renders and the augmentation.
        device: where to train.

    Returns:
        Accuracy on held-out renders for every attribute, and their mean.
    """
    torch.manual_seed(seed)
    judge = AttributeJudge(world.ATTRIBUTES, width=preset.width).to(device)
    optimizer = AdamW(judge.parameters(), lr=2e-3, weight_decay=0.02)
    state = State(work / "state.pt", {"seed": seed} | asdict(preset), judge=judge, optimizer=optimizer)
    log = Log(work / "log.jsonl")
    first = state.load()
    batches = DataLoader(Renders(world, seed, preset.batch_size, first), batch_size=None, num_workers=preset.workers)
    judge.train()
    for step, batch in zip(range(first, preset.steps), batches, strict=False):
        images = augment(batch.images.to(device), step_rng(seed, step))
        loss = _loss(judge, batch._replace(images=images), world)
        for group in optimizer.param_groups:
            group["lr"] = 2e-3 * cosine(step, preset.steps, warmup=50)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if (step + 1) % preset.save_every == 0:
            state.save(step + 1)
            log.write(step + 1, loss=loss.item(), images=(step + 1) * preset.batch_size)
    scores = accuracy(judge.eval(), world, preset.held_out)
    log.write(preset.steps, **scores)
    init_args = {"attributes": {name: list(v) for name, v in judge.attributes.items()}, "width": preset.width}
    config = {"class_path": "clip2latent.judge.AttributeJudge", "init_args": init_args, "accuracy": scores}
    save_asset(out, config, judge.state_dict())
    return scores


def _loss(judge: AttributeJudge, batch: Batch, world: World) -> torch.Tensor:
    """Mean cross entropy over the visible attributes."""
    targets = labels(judge.attributes, [visible(world, row) for row in batch.attributes])
    losses = [
        F.cross_entropy(logits, targets[name].to(logits.device), ignore_index=UNKNOWN, label_smoothing=0.02)
        for name, logits in judge(batch.images).items()
        if (targets[name] != UNKNOWN).any()
    ]
    return torch.stack(losses).mean()


@torch.no_grad()
def accuracy(judge: AttributeJudge, world: World, num: int, seed: int = HELD_OUT) -> dict[str, float]:
    """Returns the share of `num` renders that a judge reads right, for every attribute where visible, and the mean."""
    right: dict[str, list[torch.Tensor]] = {name: [] for name in judge.attributes}
    device = next(judge.parameters()).device
    for begin in range(0, num, 250):
        batch = render(world, seed, range(begin, min(begin + 250, num)))
        found = judge.classify(batch.images.to(device))
        for name, target in labels(judge.attributes, [visible(world, row) for row in batch.attributes]).items():
            right[name].append((found[name].cpu() == target)[target != UNKNOWN].float())
    scores = {name: float(torch.cat(hits).mean()) for name, hits in right.items()}
    return scores | {"mean": sum(scores.values()) / len(scores)}


def main(world: World = avatars) -> None:
    """Reads the command line and trains the judge of a world."""
    parser = argparse.ArgumentParser(description=f"Train the judge of {world.__name__}.")
    parser.add_argument("--preset", choices=sorted(PRESETS), default="cpu")
    parser.add_argument("--work", type=Path, required=True, help="folder of the resumable state and the log")
    parser.add_argument("--out", type=Path, required=True, help="folder of the trained judge")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    train(world, PRESETS[args.preset], args.work, args.out, args.seed, args.device)


if __name__ == "__main__":
    main()
