"""Ways to images of prompts that the refinement table compares, each a run that is kept and goes on where it ended."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import safetensors.torch
import torch
from torch import Tensor

from clip2latent.bank import Banks
from clip2latent.initial import Picking
from clip2latent.initial import from_labels as label_guided
from clip2latent.interfaces import Objective
from clip2latent.objectives import augclip_objective, clip_objective
from clip2latent.priorless import Priorless
from clip2latent.refine import HELD_OUT, Refining, entropy, refine
from clip2latent.refine_state import State
from clip2latent.text2image import TextToImage

CHECK = 25
SAVE_EVERY = 60.0
"""Seconds from one saved state to the next."""


class Found(NamedTuple):
    """Latents [P, L, D] that a way found, after so many steps, and what it had cost by then.

    Attributes:
        steps: of an optimiser; 0 without one.
        images: drawn for each prompt; views and looks at held-out views are not counted.
        seconds: of the processor, for all prompts.
        latents: [P, L, D].
    """

    steps: int
    images: int
    seconds: float
    latents: Tensor


class Setting(NamedTuple):
    """What all ways have in common.

    Attributes:
        pipeline: the models.
        prompts: P texts.
        targets: [P, E].
        views: of an image at each step, and as many held out.
        seed: of everything.
        work: folder of what is done.
        go: do what is not done yet; else only read what is.
    """

    pipeline: TextToImage | Priorless
    prompts: list[str]
    targets: Tensor
    views: int
    seed: int
    work: Path
    go: bool = True


class NotDone(Exception):
    """A way that has not been begun, where nothing is to be done."""


def from_prior(setting: Setting, candidates: int, keep: int) -> tuple[Tensor, float]:
    """Returns the prior's best latents [P, keep, L, D], by CLIP score, and its seconds."""

    def make() -> Tensor:
        options = {"num": keep, "candidates": candidates, "seed": setting.seed}
        return setting.pipeline.generate(setting.prompts, **options).latents

    return _kept(setting, f"prior-{candidates}.safetensors", make)


def from_bank(setting: Setting, images: int, keep: int) -> tuple[Tensor, float]:
    """Returns random latents' best [P, keep, L, D], by CLIP score, of one bank for all prompts, and its seconds."""
    pipeline = setting.pipeline

    def make() -> Tensor:
        banks = Banks(pipeline.generator, pipeline.embedder, None, pipeline.device)
        return banks.of(setting.seed).pick(setting.targets.cpu(), images, keep).latents

    return _kept(setting, f"bank-{images}.safetensors", make)


def from_labels(setting: Setting, images: int, keep: int, k: int) -> tuple[Tensor, float]:
    """Returns label-guided latents' best [P, keep, L, D], of the k classes nearest to each prompt, and its seconds."""
    pipeline = setting.pipeline

    def make() -> Tensor:
        banks = Banks(pipeline.generator, pipeline.embedder, None, pipeline.device)
        initial = label_guided(banks, Picking(keep, images, setting.seed), k)
        return initial(setting.prompts, setting.targets.cpu()).latents

    return _kept(setting, f"labels-{k}-{images}.safetensors", make)


def optimised(
    setting: Setting, key: str, basis: Tensor, refining: Refining, marks: Sequence[int], plain: bool = False
) -> list[Found]:
    """Returns what a refinement of bases [P, M, L, D] found by each of `marks`, or by those that it has passed.

    Args:
        setting: models and prompts.
        key: name of its files.
        basis: to start from.
        refining: how; its steps are the last mark's.
        marks: multiples of `CHECK`.
        plain: optimise plain CLIP instead of AugCLIP, and choose by it too.
    """
    pipeline, space = setting.pipeline, setting.pipeline.space
    rng, held = torch.Generator(), torch.Generator().manual_seed(entropy(setting.seed, HELD_OUT))
    objective = held_out = clip_objective(pipeline.embedder, setting.targets)
    if not plain:
        common = {"views": setting.views}
        objective = augclip_objective(pipeline.embedder, setting.targets, rng=rng, **common)
        held_out = augclip_objective(pipeline.embedder, setting.targets, rng=held, fixed=True, **common)
    track = _Track(setting.work / f"{key}.safetensors", marks)
    if setting.go and (track.state is None or int(track.state.step) < marks[-1]):
        _optimise(setting, basis, refining, objective, held_out, track, rng)
    return [
        Found(mark, mark, track.seconds[mark], space.expand(tokens).cpu())
        for mark, tokens in sorted(track.best.items())
    ]


def _optimise(
    setting: Setting,
    basis: Tensor,
    refining: Refining,
    objective: Objective,
    held_out: Objective,
    track: _Track,
    rng: torch.Generator,
) -> None:
    space = setting.pipeline.space
    unit = space.expand(torch.where(space.std > 0, space.std, torch.ones_like(space.std))[None])[0]
    options = {"groups": space.groups, "unit": unit, "rng": rng, "state": track.state}
    refined = refine(setting.pipeline.generator, objective, basis, refining, held_out, track, **options)
    track.save(refined.state)
    if refined.interrupted:
        raise KeyboardInterrupt


class _Track:
    """Notes a refinement's best at its marks, with the processor's seconds, and keeps it on disk."""

    def __init__(self, path: Path, marks: Sequence[int]) -> None:
        self.path, self.marks, self.saved, self.state = path, set(marks), time.monotonic(), None
        self.best: dict[int, Tensor] = {}
        self.seconds: dict[int, float] = {}
        self.before = 0.0
        if path.is_file():
            tensors = safetensors.torch.load_file(path)
            self.state = State.from_tensors(tensors)
            self.before = float(tensors["seconds"])
            for mark in tensors["marks"].tolist():
                self.best[mark], self.seconds[mark] = tensors[f"best-{mark}"], float(tensors[f"seconds-{mark}"])
        self.began = time.process_time()

    def __call__(self, state: State) -> None:
        step = int(state.step)
        if step in self.marks and step not in self.best:
            self.best[step], self.seconds[step] = state.best, self.so_far()
            print(f"{self.path.stem}: {step} steps, {self.seconds[step]:.0f} s", flush=True)
        if time.monotonic() - self.saved > SAVE_EVERY:
            self.save(state)

    def so_far(self) -> float:
        return self.before + time.process_time() - self.began

    def save(self, state: State) -> None:
        self.state, self.saved = state, time.monotonic()
        tensors = state.to_tensors() | {"seconds": torch.tensor(self.so_far(), dtype=torch.float64)}
        tensors["marks"] = torch.tensor(sorted(self.best), dtype=torch.int64)
        for mark in self.best:
            tensors[f"best-{mark}"] = self.best[mark].detach().cpu().clone()
            tensors[f"seconds-{mark}"] = torch.tensor(self.seconds[mark], dtype=torch.float64)
        _write(self.path, tensors)


def check_work(work: Path, settings: dict[str, Any]) -> None:
    """Makes the work folder; ValueError where it holds runs of other settings."""
    work.mkdir(parents=True, exist_ok=True)
    path = work / "settings.json"
    if path.exists() and json.loads(path.read_text()) != settings:
        raise ValueError(f"{work} holds runs of other settings: name another --work, or remove it")
    path.write_text(json.dumps(settings, indent=1) + "\n")


def _kept(setting: Setting, name: str, make: Callable[[], Tensor]) -> tuple[Tensor, float]:
    """Returns latents and the seconds they took, made once."""
    path = setting.work / name
    if not path.is_file():
        if not setting.go:
            raise NotDone(name)
        began = time.process_time()
        latents = make().cpu().contiguous()
        seconds = torch.tensor(time.process_time() - began, dtype=torch.float64)
        _write(path, {"latents": latents, "seconds": seconds})
        print(f"{path.stem}: {float(seconds):.0f} s", flush=True)
    tensors = safetensors.torch.load_file(path)
    return tensors["latents"], float(tensors["seconds"])


def _write(path: Path, tensors: dict[str, Tensor]) -> None:
    partial = path.with_name(f".{path.name}.partial")
    safetensors.torch.save_file(tensors, partial)
    os.replace(partial, path)
