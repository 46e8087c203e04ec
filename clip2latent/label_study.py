"""How many images a search needs: best score against images drawn and against k, guided by labels and not.

The measurements of Du, Yin and Gu, "CLIP-guided Zero-Shot Text-to-Image Generation", figure 2 and tables 1 to 3. Their
Frechet distance is of Inception features; here it is of the embedder's, which needs no other network.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from clip2latent.bank import Banks
from clip2latent.fidelity import Judge
from clip2latent.images import from_uint8
from clip2latent.initial import Bar, no_bar, tell_best
from clip2latent.label_search import (
    Candidates,
    check_classes,
    embed_candidates,
    label_embeddings,
    lay_out,
    nearest_classes,
    rows_of,
    score_candidates,
)
from clip2latent.metrics import accepted_values, judge_accuracy, normalised_frechet
from clip2latent.prompts import Prompt
from clip2latent.references import World, fitting_attributes

COMPARED = 10000
"""Images that a Frechet distance is taken of, at most."""
PICTURED = 6
"""Prompts shown in the picture, at most: evenly spaced ones."""


@dataclass(frozen=True)
class Settings:
    """What to measure.

    Attributes:
        candidates: images drawn for each prompt, b_max.
        labels: the numbers k of classes to choose from, None for 1, 2, 5, 10 and so on; all classes, which is no
            guidance, join them.
        seeds: how many.
        seed: the first.
        threshold: the score to pass; None for that of real pictures, and without them of the unguided search.
    """

    candidates: int = 100
    labels: tuple[int, ...] | None = None
    seeds: int = 3
    seed: int = 0
    threshold: float | None = None

    def __post_init__(self) -> None:
        for name in ("candidates", "seeds"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)}: expected at least 1")
        if self.seed < 0:
            raise ValueError(f"seed={self.seed}: expected an integer from 0")

    def steps(self) -> list[int]:
        """Returns the numbers of images that results are told at: 1, 2, 5, 10 and so on, and the last."""
        return [*_round_numbers(self.candidates), self.candidates]

    def judged(self) -> list[int]:
        """Returns the numbers of images that a judge sees the best of: 1, 10, 100 and so on, and the last."""
        return [*_round_numbers(self.candidates, (1,)), self.candidates]


class Study(NamedTuple):
    """What a study found.

    Attributes:
        record: plain types.
        shown: p of the prompts.
        images: their best images by k, of the first seed, [p, K, 3, R, R].
        scores: of these images, [p, K].
    """

    record: dict[str, Any]
    shown: list[str]
    images: Tensor
    scores: Tensor


class Real(NamedTuple):
    """Real pictures: their embeddings [n, E], and their mean cosine with their own prompts, where they have such."""

    embeddings: Tensor
    score: float | None


def study(
    banks: Banks,
    prompts: Sequence[Prompt],
    targets: Tensor,
    settings: Settings,
    real: Real | None = None,
    judge: Judge | None = None,
    bar: Bar = no_bar,
) -> Study:
    """Searches for every prompt with every k and seed.

    Args:
        banks: of a ClassConditional generator; where they are kept, a study that was stopped goes on.
        prompts: P prompts.
        targets: their embeddings [P, E].
        settings: what to measure.
        real: real pictures, for the threshold and for Frechet distances; None for none.
        judge: reads the attributes that prompts name off the best images; None for none.
        bar: makes progress bars.

    Raises:
        ValueError: for a generator without classes, a k beyond them, and attributes that the judge does not know.
    """
    names = check_classes(banks.generator)
    if judge is not None:
        for name, value in (item for prompt in prompts for item in prompt.attributes.items()):
            accepted_values(name, value, judge.attributes)
    chosen = _round_numbers(len(names)) if settings.labels is None else settings.labels
    ks = sorted({*chosen, len(names)})
    labels = label_embeddings(names, banks.embedder)
    nearest = [nearest_classes(targets, labels, k) for k in ks]
    seeds = range(settings.seed, settings.seed + settings.seeds)
    found: dict[int, list[dict[str, Any]]] = {k: [] for k in ks}
    shown = torch.arange(0, len(prompts), -(-len(prompts) // PICTURED))
    pictures: list[tuple[Tensor, Tensor]] = []
    for seed in seeds:
        plans = [lay_out(own, settings.candidates, seed) for own in nearest]
        with bar(f"seed {seed}", sum(rows_of(plans).values())) as progress:
            tables = score_candidates(plans, targets, banks, progress.update, tell_best(progress))
        with bar(f"seed {seed}, measuring", len(ks)) as progress:
            for k, plan, table in zip(ks, plans, tables, strict=True):
                found[k].append(_measured(plan, table, prompts, banks, settings, real, judge))
                if seed == settings.seed:
                    pictures.append(_best_images(_rows(plan, shown), table[shown], banks))
                progress.update(1)
    record = {
        "settings": {**asdict(settings), "labels": ks, "steps": settings.steps()},
        "classes": len(names),
        "prompts": [prompt.text for prompt in prompts],
        "real_score": None if real is None else real.score,
        "rows": [{"k": k, **_summed(found[k], settings)} for k in ks],
    }
    record["thresholds"] = _thresholds(record, found, settings)
    images, scores = (torch.stack(parts, dim=1) for parts in zip(*pictures, strict=True))
    return Study(record, [prompts[row].text for row in shown.tolist()], images, scores)


def real_pictures(world: World, prompts: Sequence[Prompt], targets: Tensor, banks: Banks, num: int, seed: int) -> Real:
    """Draws `num` real pictures of what each prompt names, the rest at random, and embeds them."""
    pictures = []
    for row, prompt in enumerate(prompts):
        for index in range(num):
            rng = np.random.default_rng((seed, row, index))
            pictures.append(world.draw(fitting_attributes(world, prompt.attributes, rng), rng))
    embeddings = embed_pictures(from_uint8(np.stack(pictures)), banks)
    own = targets.float().cpu().repeat_interleave(num, dim=0)
    return Real(embeddings, float(F.cosine_similarity(embeddings, own, dim=-1).mean()))


@torch.no_grad()
def embed_pictures(images: Tensor, banks: Banks) -> Tensor:
    """Embeds images [n, 3, R, R] in [-1, 1] into [n, E], on the CPU."""
    parts = images.split(banks.chunk)
    return torch.cat([banks.embedder.embed_images(part.to(banks.device)).float().cpu() for part in parts])


def needed_for(curve: Sequence[float], threshold: float) -> int | None:
    """Returns how many images it takes for a curve (its entry b - 1 is of b images) to pass a threshold, if it does."""
    return next((number for number, score in enumerate(curve, 1) if score > threshold), None)


def _round_numbers(limit: int, factors: Sequence[int] = (1, 2, 5)) -> list[int]:
    """Returns the powers of ten times the factors, in order, below a limit."""
    numbers = [factor * 10**power for power in range(len(str(limit))) for factor in factors]
    return [number for number in numbers if number < limit]


def _measured(
    plan: Candidates,
    table: Tensor,
    prompts: Sequence[Prompt],
    banks: Banks,
    settings: Settings,
    real: Real | None,
    judge: Judge | None,
) -> dict[str, Any]:
    """One k and seed: the curve of the best score, the judge's accuracy by number of images, and the distance."""
    measured: dict[str, Any] = {"curve": table.double().cummax(dim=1).values.mean(dim=0).tolist()}
    if judge is not None:
        best = torch.stack([table[:, :number].argmax(dim=1) for number in settings.judged()], dim=1)  # [P, steps]
        measured["judge"] = dict(zip(settings.judged(), _accuracies(plan, best, prompts, banks, judge), strict=True))
    if real is not None and len(real.embeddings) > 1:
        num = max(1, min(settings.candidates, COMPARED // len(prompts)))
        fake = embed_candidates(plan, num, banks).flatten(0, 1)
        measured["frechet"] = normalised_frechet(real.embeddings, fake) if len(fake) > 1 else None
    return measured


def _accuracies(
    plan: Candidates, best: Tensor, prompts: Sequence[Prompt], banks: Banks, judge: Judge
) -> list[float | None]:
    """Returns the judge's accuracy on each column of candidates [P, n]; each image is drawn once."""
    rows = torch.arange(len(best))[:, None].expand_as(best)
    places, inverse = torch.stack([rows, best], dim=-1).flatten(0, 1).unique(dim=0, return_inverse=True)
    own = _rows(plan, places[:, 0])
    images = banks.draw(own.latents(places[:, 1:], banks)[:, 0])
    read: dict[str, list[Tensor]] = {}
    with torch.no_grad():
        for part in images.split(banks.chunk):
            for name, values in judge.classify(part.to(banks.device)).items():
                read.setdefault(name, []).append(values.cpu())
    seen = {name: torch.cat(parts)[inverse].view_as(best) for name, parts in read.items()}
    named = [prompt.attributes for prompt in prompts]
    columns = ({name: values[:, [column]] for name, values in seen.items()} for column in range(best.shape[1]))
    return [judge_accuracy(column, named, judge.attributes).mean for column in columns]


def _best_images(plan: Candidates, table: Tensor, banks: Banks) -> tuple[Tensor, Tensor]:
    scores, best = table.max(dim=1, keepdim=True)
    return banks.draw(plan.latents(best, banks)[:, 0]), scores[:, 0]


def _rows(plan: Candidates, prompts: Tensor) -> Candidates:
    """Returns the candidates of some prompts [n]."""
    return Candidates(plan.classes[prompts], plan.rows[prompts], plan.seed)


def _summed(found: Sequence[Mapping[str, Any]], settings: Settings) -> dict[str, Any]:
    """Mean and deviation over the seeds of what each seed measured."""
    curves = torch.tensor([one["curve"] for one in found], dtype=torch.float64)  # [S, b_max]
    summed: dict[str, Any] = {"best": _spread(curves[:, -1].tolist())}
    summed["curve"] = {number: _spread(curves[:, number - 1].tolist()) for number in settings.steps()}
    if "judge" in found[0]:
        summed["judge"] = {number: _spread([one["judge"][number] for one in found]) for number in found[0]["judge"]}
    if "frechet" in found[0]:
        summed["frechet"] = _spread([one["frechet"] for one in found])
    return summed


def _thresholds(
    record: Mapping[str, Any], found: Mapping[int, Sequence[Mapping[str, Any]]], settings: Settings
) -> list[dict[str, Any]]:
    """How many images every k needs to pass: a given score, or real pictures', and the unguided search's best."""
    wanted = {"given": settings.threshold, "real pictures": record["real_score"]}
    wanted["all classes, their last image"] = record["rows"][-1]["best"]["mean"]
    return [
        {"name": name, "score": score, "needed": {k: _needed(found[k], score) for k in found}}
        for name, score in wanted.items()
        if score is not None
    ]


def _needed(found: Sequence[Mapping[str, Any]], threshold: float) -> dict[str, Any]:
    """The numbers of the seeds, None for one that does not pass; no mean where any does not."""
    return _spread([needed_for(one["curve"], threshold) for one in found])


def _spread(values: Sequence[float | None]) -> dict[str, Any]:
    known = [value for value in values if value is not None]
    x = torch.tensor(known, dtype=torch.float64)
    complete = len(known) == len(values)
    return {
        "mean": float(x.mean()) if complete else None,
        "std": float(x.std()) if complete and len(known) > 1 else None,
        "seeds": list(values),
    }
