"""A row of an evaluation's table: what is gathered from the images of P prompts, N each, its measures, and its file."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from clip2latent.fidelity import Judge
from clip2latent.interfaces import Embedder
from clip2latent.metrics import clip_score, diversity, judge_accuracy, mean_over_prompts
from clip2latent.metrics_retrieval import r_precision
from clip2latent.outputs import whole_file
from clip2latent.prompts import Prompt
from clip2latent.samples import Chunk

PICTURED = 8
"""Prompts shown in the picture."""


class Row(NamedTuple):
    """What was gathered.

    Attributes:
        embeddings: [P, N, E].
        held: a held-out CLIP's [P, N, E], of another width; None without one.
        read: attribute -> a judge's readings [P, N].
        pictures: the first images [p, 3, R, R] of the first prompts.
    """

    embeddings: Tensor
    held: Tensor | None
    read: dict[str, Tensor]
    pictures: Tensor


class Measured(NamedTuple):
    """A row as it is kept: its numbers, plain types, and the pictures [p, 3, R, R] of the first prompts, scored [p]."""

    numbers: dict[str, Any]
    pictures: Tensor
    scores: Tensor


@torch.no_grad()
def collect(
    chunks: Iterable[Chunk],
    prompts: int,
    num: int,
    judge: Judge | None,
    holdout: Embedder | None,
    device: torch.device,
) -> Row:
    """Gathers P * num images that come in any order, in chunks."""
    embeddings: list[Tensor] = []
    held: list[Tensor] = []
    seen: dict[str, list[Tensor]] = {name: [] for name in (judge.attributes if judge is not None else ())}
    places, pictures = [], {}
    for chunk in chunks:
        places.append(chunk.prompt * num + chunk.candidate)
        embeddings.append(chunk.embeddings)
        if holdout is not None:
            held.append(holdout.embed_images(chunk.images.to(device)).cpu())
        if judge is not None:
            for name, values in judge.classify(chunk.images.to(device)).items():
                seen[name].append(values.cpu())
        for index in ((chunk.candidate == 0) & (chunk.prompt < PICTURED)).nonzero()[:, 0].tolist():
            pictures[int(chunk.prompt[index])] = chunk.images[index].clone()
    order = torch.cat(places).argsort()
    by_prompt = (prompts, num)
    read = {name: torch.cat(parts)[order].unflatten(0, by_prompt) for name, parts in seen.items()}
    shown = torch.stack([pictures[index] for index in sorted(pictures)])
    others = torch.cat(held)[order].unflatten(0, by_prompt) if held else None
    return Row(torch.cat(embeddings)[order].unflatten(0, by_prompt), others, read, shown)


def measures(found: Row, text: Tensor, prompts: Sequence[Prompt], judge: Judge | None) -> dict[str, Any]:
    """A row's measures, with standard errors over the prompts."""
    embeddings = found.embeddings
    numbers = mean_over_prompts("clip_score", clip_score(embeddings, text).mean(1).tolist())
    numbers |= mean_over_prompts("diversity", diversity(embeddings).tolist() if embeddings.shape[1] > 1 else [])
    if judge is None:
        return numbers | mean_over_prompts("judge_accuracy", [])
    judged = judge_accuracy(found.read, [prompt.attributes for prompt in prompts], judge.attributes)
    numbers |= mean_over_prompts("judge_accuracy", [value for value in judged.by_prompt if value is not None])
    return numbers | {
        "judge_accuracy": judged.mean,
        "judge_accuracy_by_attribute": judged.by_attribute,
        "judged_pairs": judged.count,
    }


def retrieved(name: str, embeddings: Tensor, text: Tensor) -> dict[str, Any]:
    """R-precision among 99 other prompts, or as many as there are; None for one prompt."""
    own = torch.arange(len(text)).repeat_interleave(embeddings.shape[1])
    distractors = min(99, len(text) - 1)
    return {name: r_precision(embeddings.flatten(0, 1), text, own, distractors)._asdict() if distractors else None}


def save_measured(measured: Measured, path: Path) -> None:
    """Writes a row as safetensors, whole or not at all."""
    tensors = {"pictures": measured.pictures.contiguous(), "scores": measured.scores.contiguous()}
    with whole_file(path) as partial:
        partial.write_bytes(safetensors.torch.save(tensors, {"numbers": json.dumps(measured.numbers)}))


def load_measured(path: Path) -> Measured | None:
    """Reads a kept row; None where there is none."""
    if not path.is_file():
        return None
    with safetensors.safe_open(path, "pt") as file:
        numbers = json.loads(file.metadata()["numbers"])
        return Measured(numbers, file.get_tensor("pictures"), file.get_tensor("scores"))
