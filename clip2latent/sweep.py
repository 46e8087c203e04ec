"""A sweep: a prior's images under many ways to sample, each way measured and compared with one of them."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from clip2latent.evaluate import Bar
from clip2latent.fidelity import Judge
from clip2latent.metrics import accepted_values
from clip2latent.paired import MEASURES, Found, compare, estimate, measures
from clip2latent.prompts import Prompt
from clip2latent.sampling import Sampling, check_at_least
from clip2latent.sweep_drawing import Drawn, draw, load_drawn, save_drawn
from clip2latent.text2image import TextToImage

FEWEST, SHOWN = 4, 10
"""Images of a prompt that `Grid.steps_per_prompt` leaves at least, and ways whose pictures are shown."""


class Cell(NamedTuple):
    """A way to sample: each image is the best, by CLIP score, of so many candidates."""

    sampler: str
    steps: int
    guidance: float
    truncation: float = 1.0
    candidates: int = 1

    @property
    def name(self) -> str:
        """Such as dpmpp-8-2, or dpmpp-8-2-t0.7-best16, which `Cell.named` reads."""
        kept = f"-t{self.truncation:.12g}" if self.truncation != 1 else ""
        chosen = f"-best{self.candidates}" if self.candidates != 1 else ""
        return f"{self.sampler}-{self.steps}-{self.guidance:.12g}{kept}{chosen}"

    @classmethod
    def named(cls, name: str) -> Cell:
        """Reads a name; ValueError for what is none."""
        found = re.fullmatch(r"(.+)-(\d+)-([\d.e+]+)(?:-t([\d.e+]+))?(?:-best(\d+))?", name)
        try:
            sampler, steps, guidance, truncation, candidates = found.groups() if found else [name]
            return cls(sampler, int(steps), float(guidance), float(truncation or 1), int(candidates or 1))
        except ValueError:
            raise ValueError(
                f"reference={name!r}: expected sampler-steps-guidance, such as ddpm-1000-2, with -t and the truncation"
                " and -best and the candidates where these are not 1"
            ) from None


@dataclass(frozen=True)
class Grid:
    """Ways to sample: all combinations of guidances, steps, samplers, truncations and candidates.

    Attributes:
        guidances: scales.
        steps: numbers of sampling steps.
        samplers: names, as in `sampling.SAMPLERS`.
        truncations: 1 for the full variety, towards 0 ever nearer to the average image.
        candidates: numbers of images of which CLIP chooses each; 1 for no choice.
        num: images for each prompt and way, after the choice.
        num_other: the same at other guidances than the reference's; None for `num`.
        steps_per_prompt: sampling steps that a way may spend on each prompt: one of many steps draws fewer images, but
            `FEWEST` (the reference draws `num`); None for no such limit.
        reference: the way that all are compared with, such as "ddpm-1000-2"; None for ddpm with the most steps and the
            prior's recommended guidance.
    """

    guidances: tuple[float, ...] = (1.0, 1.5, 2.0, 3.0)
    steps: tuple[int, ...] = (4, 8, 16, 50)
    samplers: tuple[str, ...] = ("dpmpp", "sde-dpmpp", "ddim", "ddpm")
    truncations: tuple[float, ...] = (1.0,)
    candidates: tuple[int, ...] = (1,)
    num: int = 8
    num_other: int | None = None
    steps_per_prompt: int | None = None
    reference: str | None = None

    def __post_init__(self) -> None:
        for name in ("guidances", "steps", "samplers", "truncations", "candidates"):
            if not getattr(self, name):
                raise ValueError(f"{name} is empty: expected at least one")
        counts = {"num": self.num, "num_other": self.num_other, "steps_per_prompt": self.steps_per_prompt}
        check_at_least(1, **{name: count for name, count in counts.items() if count is not None})
        for cell in [*self._cells(), *([Cell.named(self.reference)] if self.reference else [])]:
            Sampling(cell.guidance, cell.steps, cell.sampler, cell.truncation)  # raises where one of them is wrong
            check_at_least(1, candidates=cell.candidates)

    def cells(self, recommended: float) -> list[Cell]:
        """Returns the reference, the others at its guidance, and the rest, those of few steps first.

        `recommended` is the prior's guidance.
        """
        named = Cell("ddpm", max(self.steps), recommended) if self.reference is None else Cell.named(self.reference)
        others = (cell for cell in self._cells() if cell != named)
        return [named, *sorted(others, key=lambda cell: cell.guidance != named.guidance)]

    def images(self, cell: Cell, reference: Cell) -> int:
        """Returns how many images of each prompt a way has."""
        num = self.num if cell.guidance == reference.guidance or self.num_other is None else self.num_other
        if self.steps_per_prompt is None or cell == reference:
            return num
        return min(num, max(FEWEST, self.steps_per_prompt // cell.steps))

    def _cells(self) -> list[Cell]:
        guidances, truncations = (sorted(set(map(float, values))) for values in (self.guidances, self.truncations))
        by_cost = product(
            sorted(set(self.steps)), guidances, dict.fromkeys(self.samplers), truncations, sorted(set(self.candidates))
        )
        return [Cell(sampler, steps, guidance, *rest) for steps, guidance, sampler, *rest in by_cost]


class Swept(NamedTuple):
    """What a sweep found.

    Attributes:
        record: plain types: "reference", the name; "rows", the measures of each way, the reference's first (see `row`);
            "left_out", the ways that cannot be, and "why".
        pictures: way -> the first images of the first prompts, uint8 [p, R, R, 3]; of some ways.
    """

    record: dict[str, Any]
    pictures: dict[str, Tensor]


def sweep(
    pipeline: TextToImage,
    prompts: Sequence[Prompt],
    grid: Grid,
    common: Sampling,
    folder: Path,
    judge: Judge | None = None,
    bar: Bar | None = None,
    told: Callable[[str], None] = lambda line: None,
) -> Swept:
    """Draws and measures every way of the grid; a way whose images the folder holds is measured, not drawn again.

    Args:
        pipeline: the prior with its generator and embedder.
        prompts: P prompts; without attributes there is no judge accuracy.
        grid: the ways to sample.
        common: what they have in common: seed and chunk.
        folder: of the ways' files, of the same models, prompts and seed all.
        judge: reads attributes off images; None for none.
        bar: makes progress bars.
        told: called with a line about each way.

    Raises:
        ValueError: for a reference that cannot be, and for attributes that the judge does not know.
    """
    for name, value in (item for prompt in prompts for item in prompt.attributes.items() if judge is not None):
        accepted_values(name, value, judge.attributes)
    text, cells = pipeline.embed_text([prompt.text for prompt in prompts]), grid.cells(pipeline.recommended_guidance)
    rows: list[dict[str, Any]] = []
    left_out: list[dict[str, Any]] = []
    pictures: dict[str, Tensor] = {}
    names: dict[Any, str] = {}
    reference: Found | None = None
    most = max(*grid.candidates, cells[0].candidates)
    for number, cell in enumerate(cells, 1):
        sampling = Sampling(cell.guidance, cell.steps, cell.sampler, cell.truncation, common.seed, common.chunk)
        heading = f"{number} of {len(cells)}, {cell.name}"
        try:
            pipeline.stream(text[:1], 1, sampling)  # draws nothing, but raises for what cannot be
            table = tuple(tuple(column.tolist()) for column in sampling.table(pipeline.schedule))
            twin = names.setdefault((cell[2:], table), cell.name)
            if twin != cell.name:
                raise ValueError(f"takes the very steps of {twin}")
        except ValueError as error:
            if reference is None:
                raise ValueError(f"reference={cell.name}: {error}") from error
            left_out.append({"name": cell.name, **cell._asdict(), "why": str(error)})
            told(f"{heading}: left out, {error}")
            continue
        num = grid.images(cell, cells[0])
        path = folder / f"{cell._replace(candidates=1).name}-{_digest(table)}.safetensors"
        drawn = load_drawn(path, num * cell.candidates)
        if drawn is None:
            drawn = draw(pipeline, prompts, sampling, num * most, judge, bar, heading)
            save_drawn(drawn, path)
            drawn = drawn.first(num * cell.candidates)
        chosen = drawn.best(text, cell.candidates)
        reference = reference or chosen.found
        if cell.candidates == 1 and chosen.pictures is not None and len(pictures) < SHOWN:
            pictures[cell.name] = chosen.pictures
        rows.append(row(cell, chosen, reference, text))
        told(f"{heading}: CLIP score {rows[-1]['clip_score']:.4f}, {chosen.seconds * 1000:.1f} ms an image")
    return Swept({"reference": cells[0].name, "rows": rows, "left_out": left_out}, pictures)


def _digest(table: tuple[tuple[float, ...], ...]) -> str:
    """Names a table of steps: what was drawn by another one, of another version say, is not taken for this way's."""
    return hashlib.sha256(repr(table).encode()).hexdigest()[:8]


def row(cell: Cell, drawn: Drawn, reference: Found, text: Tensor) -> dict[str, Any]:
    """Returns a way's measures, each with its standard error, and how far they are from the reference's; plain types.

    The two are compared on the images that both have, of the same prompts and from the same noise.
    """
    num = drawn.found.hits.shape[1]
    record = {"name": cell.name, **cell._asdict(), "images_per_prompt": num}
    made = measures(drawn.found, text)
    for name in MEASURES:
        record[name], record[f"{name}_stderr"] = estimate(made.get(name))
    both = min(num, reference.hits.shape[1])
    ours, theirs = (measures(found.first(both), text) for found in (drawn.found, reference))
    record["versus_reference"] = {"images_per_prompt": both}
    for name in MEASURES:
        found = compare(ours.get(name), theirs.get(name))
        numbers = ("difference", "difference_stderr", "relative", "relative_stderr")
        values = (*found.absolute, *found.relative) if found is not None else (None,) * 4
        record["versus_reference"][name] = dict(zip(numbers, values, strict=True))
    return record | {"seconds_per_image": drawn.seconds, "prior_seconds_per_image": drawn.prior_seconds}
