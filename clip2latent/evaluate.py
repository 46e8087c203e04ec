"""Evaluation on prompts: the prior beside random latents, retrieval and real renders, by CLIP and by a judge."""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from clip2latent.evaluate_rows import Measured, collect, load_measured, measures, retrieved, save_measured
from clip2latent.fidelity import Judge, fidelity
from clip2latent.images import grid
from clip2latent.interfaces import Embedder
from clip2latent.metrics import accepted_values, clip_score, mean_over_prompts
from clip2latent.prompts import Prompt, check_prompts, texts_sha256
from clip2latent.references import World, best_of_each, drawn, random_latents, rendered, retrieve
from clip2latent.report import gaps_closed
from clip2latent.spec import weights_sha256
from clip2latent.text2image import Chunk, Sampling, TextToImage

Bar = Callable[[str, int], AbstractContextManager[Any]]
"""(name, total) -> a context whose value has update(done), such as tqdm's."""


@dataclass(frozen=True)
class Plan:
    """What to measure, in images.

    Attributes:
        num: images for each prompt and row.
        guidances: of the prior's rows; the recommended one joins them.
        candidates: images of which the best-of rows take one.
        repeats: how often they take it, for each prompt.
        retrieval: random latents in the retrieval's bank; 0 for no such row.
        fidelity: images of the generator set beside as many renders; 0 for none.
    """

    num: int = 8
    guidances: tuple[float, ...] = (1.0, 2.0, 3.0)
    candidates: int = 16
    repeats: int = 4
    retrieval: int = 30000
    fidelity: int = 5000

    def __post_init__(self) -> None:
        for name, least in {"num": 1, "candidates": 1, "repeats": 1, "retrieval": 0, "fidelity": 0}.items():
            if getattr(self, name) < least:
                raise ValueError(f"{name}={getattr(self, name)}: expected at least {least}")
        if 0 < self.retrieval < self.num:
            raise ValueError(f"retrieval={self.retrieval}: expected 0, or at least num={self.num}")
        if self.fidelity == 1:
            raise ValueError("fidelity=1: expected 0, or at least 2")
        if any(not 0 <= scale < math.inf for scale in self.guidances):
            raise ValueError(f"guidance={list(self.guidances)}: expected numbers from 0")


class Source(NamedTuple):
    """A row of the table to be: its key and name, its images per prompt, and what makes them."""

    key: str
    name: str
    num: int
    chunks: Callable[[], Iterable[Chunk]]


class Report(NamedTuple):
    """An evaluation: a record of plain types, and a picture of the first prompts with a column for each row."""

    record: dict[str, Any]
    picture: Image.Image


def critics(prompts: Sequence[Prompt], judge: str | None) -> tuple[Judge | None, World | None]:
    """Returns the judge and, where the demo's renderer is installed, the world that the prompts' attributes speak of.

    Both are None where no prompt names an attribute or where `judge` is None.
    """
    named = {name for prompt in prompts for name in prompt.attributes}
    if judge is None or not named:
        return None, None
    from clip2latent.judge import load_judge

    reads = load_judge(judge)
    for name in ("demo.avatars", "demo.single_objects"):
        try:
            world: Any = importlib.import_module(name)
        except ImportError:
            break
        if named | set(reads.attributes) <= set(world.ATTRIBUTES):
            return reads, world
    return reads, None


def evaluate(
    pipeline: TextToImage,
    prompts: Sequence[Prompt],
    plan: Plan,
    sampling: Sampling,
    judge: Judge | None = None,
    world: World | None = None,
    bar: Bar | None = None,
    holdout: Embedder | None = None,
    folder: Path | None = None,
) -> Report:
    """Measures every row of the plan; a row that the folder holds is not made again.

    Args:
        pipeline: the prior with its generator and embedder.
        prompts: P prompts; without attributes only CLIP score and diversity are measured.
        plan: what to measure.
        sampling: how the prior samples; its guidance is replaced by each of the plan's.
        judge: reads attributes off images; None for none.
        world: draws the ceiling, real pictures of the attributes; None for none.
        bar: makes progress bars.
        holdout: a CLIP on the pipeline's device that nothing was chosen by, for scores of its own; None for none.
        folder: of the rows that are done, with the same arguments all; None keeps none.

    Raises:
        ValueError: for attributes that the judge does not know.
    """
    texts = check_prompts([prompt.text for prompt in prompts])
    text = pipeline.embed_text(texts)
    with torch.no_grad():
        held_text = None if holdout is None else torch.cat([holdout.embed_text([one]).cpu() for one in texts])
    if judge is not None:
        for name, value in (item for prompt in prompts for item in prompt.attributes.items()):
            accepted_values(name, value, judge.attributes)
        if isinstance(judge, torch.nn.Module):
            judge.to(pipeline.device)
    sampling = replace(sampling, guidance=pipeline.recommended_guidance)
    bar = bar or _no_bar
    rows: list[Measured] = []
    for source in sources(pipeline, prompts, text, plan, sampling, world, bar):
        path = None if folder is None else folder / f"{source.key}.safetensors"
        row = None if path is None else load_measured(path)
        if row is None:
            chunks = _watched(source.chunks(), bar, source.name, len(prompts) * source.num)
            found = collect(chunks, len(prompts), source.num, judge, holdout, pipeline.device)
            numbers = {"key": source.key, "row": source.name, "images_per_prompt": source.num}
            numbers |= measures(found, text, prompts, judge) | retrieved("r_precision", found.embeddings, text)
            if held_text is not None and found.held is not None:
                numbers |= mean_over_prompts("holdout_score", clip_score(found.held, held_text).mean(1).tolist())
                numbers |= retrieved("holdout_r_precision", found.held, held_text)
            first = clip_score(found.embeddings[:, :1], text)[: len(found.pictures), 0]
            row = Measured(numbers, found.pictures, first)
            if path is not None:
                save_measured(row, path)
        rows.append(row)
    made = None
    if judge is not None and world is not None and plan.fidelity:
        latents = random_latents(pipeline.generator, plan.fidelity, (sampling.seed, 3))
        images = (pipeline.draw(part) for block in latents for part in block.split(sampling.chunk))
        with bar("generator against renders", 3 * plan.fidelity) as progress:
            made = fidelity(images, judge, world, plan.fidelity, (sampling.seed, 4), pipeline.device, progress.update)
    record = {
        "plan": asdict(plan),
        "sampling": asdict(sampling),
        "prompts": texts,
        "texts_sha256": texts_sha256(texts),
        "models": models_of(pipeline, judge, holdout),
        "rows": [row.numbers for row in rows],
        "gap_closed": gaps_closed([row.numbers for row in rows]),
        "generator": made,
    }
    side = pipeline.generator.resolution
    columns = [F.interpolate(row.pictures, size=(side, side), mode="area") for row in rows]
    shown, scores = torch.stack(columns, dim=1), torch.stack([row.scores for row in rows], dim=1)
    return Report(record, grid(shown, texts[: len(shown)], scores, [row.numbers["row"] for row in rows]))


def sources(
    pipeline: TextToImage,
    prompts: Sequence[Prompt],
    text: Tensor,
    plan: Plan,
    sampling: Sampling,
    world: World | None,
    bar: Bar,
) -> list[Source]:
    """Returns the table's rows, unmade; `sampling` holds the recommended guidance."""
    count, group, chunk = len(prompts), plan.repeats * plan.candidates, sampling.chunk
    best = f"best of {plan.candidates}"

    def random(per_prompt: int, use: int) -> Iterator[Chunk]:
        latents = random_latents(pipeline.generator, count * per_prompt, (sampling.seed, use))
        return drawn(pipeline, latents, per_prompt, chunk)

    def prior(per_prompt: int, guidance: float | None) -> Iterator[Chunk]:
        return pipeline.stream(text, per_prompt, replace(sampling, guidance=guidance))

    def best_of(name: str, candidates: Iterable[Chunk]) -> Iterator[Chunk]:
        watched = _watched(candidates, bar, f"{name}, choosing", count * group)
        kept = best_of_each(watched, text, plan.repeats, plan.candidates)
        return drawn(pipeline, kept, plan.repeats, chunk)

    def retrieval() -> Iterator[Chunk]:
        with bar("searching random latents", plan.retrieval) as progress:
            kept = retrieve(pipeline, text, plan.retrieval, plan.num, (sampling.seed, 2), chunk, progress.update)
        return drawn(pipeline, kept, plan.num, chunk)

    rows = [Source("random", "random latents", plan.num, lambda: random(plan.num, 0))]
    name = f"random, {best}"
    rows.append(Source("random_best", name, plan.repeats, lambda n=name: best_of(n, random(group, 1))))
    for scale in sorted({*plan.guidances, sampling.guidance}):
        key, note = ("prior", " (recommended)") if scale == sampling.guidance else (f"prior_{scale:g}", "")
        rows.append(Source(key, f"prior, guidance {scale:g}{note}", plan.num, lambda g=scale: prior(plan.num, g)))
    name = f"prior, {best}"
    rows.append(Source("prior_best", name, plan.repeats, lambda n=name: best_of(n, prior(group, sampling.guidance))))
    if plan.retrieval:
        rows.append(Source("retrieval", f"best {plan.num} of {plan.retrieval} random", plan.num, retrieval))
    if world is not None:
        chunks = lambda: rendered(pipeline, world, prompts, plan.num, (sampling.seed, 5))  # noqa: E731
        rows.append(Source("real", "real pictures", plan.num, chunks))
    return rows


def models_of(pipeline: TextToImage, judge: Judge | None, holdout: Embedder | None) -> dict[str, Any]:
    """Every model that the numbers rest on, with the hash of its weights as they are in memory."""
    parts = {"generator": pipeline.generator, "embedder": pipeline.embedder, "prior": pipeline.prior}
    parts |= {"judge": judge, "holdout": holdout}
    return {
        name: {**(pipeline.config.get(name, {}) if name != "prior" else {}), "sha256": weights_sha256(module)}
        for name, module in parts.items()
        if isinstance(module, torch.nn.Module)
    }


def _watched(chunks: Iterable[Chunk], bar: Bar, name: str, total: int) -> Iterator[Chunk]:
    with bar(name, total) as progress:
        for chunk in chunks:
            yield chunk
            progress.update(len(chunk.prompt))


class _no_bar:
    def __init__(self, name: str, total: int) -> None:
        pass

    def __enter__(self) -> _no_bar:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def update(self, done: int) -> None:
        pass
