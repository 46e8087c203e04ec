"""What a noise sweep found, for people: a table in Markdown, and a plot against the noise scale as SVG."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

Row = Mapping[str, Any]
MEASURES = {"clip_score": "CLIP score", "judge_accuracy": "judge accuracy", "diversity": "diversity"}
BRIDGES = {False: ("embeddings as they are", "#1f5fbf"), True: ("centred", "#c2410c")}
DASHES = ("", "7 4", "2 3", "9 3 2 3")


def markdown(record: Mapping[str, Any], plot: str) -> str:
    """Returns the report; `record` is noise_sweep's, `plot` the SVG's name beside it."""
    used, rows = record["settings"], record["rows"]
    chosen = "checkpoints that scored best on other prompts" if used["checkpoint"] == "best" else "last checkpoints"
    lines = [
        "# How much noise crosses the modality gap",
        "",
        "A prior is trained on embeddings of images and asked with embeddings of texts. In training, noise turns each",
        "embedding e into normalise(e + α n/|n|); the noise scale α is varied here, as in figure 5 of Pinkney and Li",
        "(2022), and once more with each modality's mean taken off first (centred). α = 0 is no noise.",
        "",
        f"![CLIP score and judge accuracy against the noise scale]({plot})",
        "",
        f"The demo's prior, {used['pairs']} pairs, configs/train/demo.yaml"
        + (f" with `{' '.join(used['training'])}`" if used["training"] else "")
        + f", seed {used['seed']}; {used['prompts']} prompts, {used['num']} images each, of the {chosen}.",
        "Mean ± standard error over the prompts; a training with another seed would differ too.",
        "",
        "| bridge | noise scale α | guidance | CLIP score | judge accuracy | diversity | step |",
        "|---|---|---|---|---|---|---|",
    ]
    tops = {measure: _top(rows, measure) for measure in ("clip_score", "judge_accuracy")}
    for row in rows:
        cells = [_cell(row, measure, row is tops.get(measure)) for measure in MEASURES]
        head = f"| {BRIDGES[row['centred']][0]} | {row['alpha']:g} | {row['guidance']:g} |"
        lines.append(f"{head} {' | '.join(cells)} | {row['step']} |")
    names = {"random": "random latents", "real": "real pictures"}
    for name, row in record["references"].items():
        lines.append(f"| {names[name]} | | | {' | '.join(_cell(row, measure, False) for measure in MEASURES)} | |")
    found = [f"{MEASURES[measure]} is highest at {_told(row)}" for measure, row in tops.items() if row is not None]
    lines += ["", ("; ".join(found) + "." if found else "Nothing was measured."), ""]
    lines += [f"Made by `python -m demo.noise_sweep`, commit {record['commit'] or 'unknown'}.", ""]
    return "\n".join(lines)


def svg(rows: Sequence[Row], guidances: Sequence[float]) -> str:
    """Returns a plot: CLIP score at the left, judge accuracy at the right, a line for each bridge and guidance."""
    shown = [row for row in rows if row["guidance"] in guidances]
    width, height, parts = 860, 352 + 24 * max(1, len(guidances)), []
    for number, measure in enumerate(("clip_score", "judge_accuracy")):
        known = [row for row in shown if row[measure] is not None]
        parts.append(_panel(known, measure, guidances, 60 + number * 430, 40, 350, 250))
    legend = []
    for number, (centred, scale) in enumerate(sorted({(row["centred"], row["guidance"]) for row in shown})):
        (name, colour), x, y = BRIDGES[centred], 60 + 430 * (number % 2), 356 + 24 * (number // 2)
        legend.append(_line([(x, y), (x + 34, y)], colour, DASHES[guidances.index(scale) % len(DASHES)]))
        legend.append(_text(x + 42, y + 4, f"{name}, guidance {scale:g}", "start"))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}"'
        ' font-family="sans-serif" font-size="13"><title>CLIP score and judge accuracy against the noise scale</title>'
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>{"".join(parts)}{"".join(legend)}</svg>\n'
    )


def _panel(
    rows: Sequence[Row], measure: str, guidances: Sequence[float], left: int, top: int, width: int, height: int
) -> str:
    if not rows:
        return _text(left + width / 2, top + height / 2, f"no {MEASURES[measure]}", "middle")
    errors = [row[f"{measure}_stderr"] or 0.0 for row in rows]
    ticks_x = _ticks(0, max(max(row["alpha"] for row in rows), 0.25))
    ticks_y = _ticks(
        min(row[measure] - error for row, error in zip(rows, errors, strict=True)),
        max(row[measure] + error for row, error in zip(rows, errors, strict=True)),
    )

    def place(alpha: float, value: float) -> tuple[float, float]:
        x = (alpha - ticks_x[0]) / (ticks_x[-1] - ticks_x[0])
        y = (value - ticks_y[0]) / (ticks_y[-1] - ticks_y[0])
        return left + width * x, top + height * (1 - y)

    parts = [_text(left + width / 2, top - 16, MEASURES[measure], "middle", 15)]
    for tick in ticks_y:
        parts.append(_line([place(ticks_x[0], tick), place(ticks_x[-1], tick)], "#e2e2e6"))
        parts.append(_text(left - 8, place(0, tick)[1] + 4, f"{tick:.3g}", "end"))
    for tick in ticks_x:
        parts.append(_text(place(tick, 0)[0], top + height + 20, f"{tick:g}", "middle"))
    parts.append(_text(left + width / 2, top + height + 40, "noise scale α", "middle"))
    lines = [(centred, index) for centred in BRIDGES for index in range(len(guidances))]
    for number, (centred, index) in enumerate(lines):
        own = [row for row in rows if row["centred"] == centred and row["guidance"] == guidances[index]]
        aside = 4 * (number - (len(lines) - 1) / 2)  # so that error bars stand beside each other
        points = [(x + aside, y) for x, y in (place(row["alpha"], row[measure]) for row in own)]
        colour = BRIDGES[centred][1]
        parts.append(_line(points, colour, DASHES[index % len(DASHES)]))
        for row, (x, y) in zip(own, points, strict=True):
            error = row[f"{measure}_stderr"] or 0.0
            ends = [(x, place(row["alpha"], row[measure] + sign * error)[1]) for sign in (-1, 1)]
            parts.append(_line(ends, colour, width=1) + f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>')
    return "".join(parts)


def _ticks(low: float, high: float) -> list[float]:
    """Returns four to nine round numbers at equal distances, of which the outer ones enclose both."""
    span = max(high - low, 1e-3)
    unit = 10 ** math.floor(math.log10(span / 4))
    step = next(factor * unit for factor in (1, 2, 2.5, 5, 10) if span / (factor * unit) <= 6)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(number * step, 10) for number in range(first, max(last, first + 1) + 1)]


def _line(points: Sequence[tuple[float, float]], colour: str, dash: str = "", width: float = 1.6) -> str:
    if len(points) < 2:
        return ""
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    dashes = f' stroke-dasharray="{dash}"' if dash else ""
    return f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="{width}"{dashes}/>'


def _text(x: float, y: float, text: str, anchor: str, size: int = 13) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}" fill="#14141a">{text}</text>'


def _top(rows: Sequence[Row], measure: str) -> Row | None:
    known = [row for row in rows if row[measure] is not None]
    return max(known, key=lambda row: row[measure], default=None)


def _told(row: Row) -> str:
    return f"α = {row['alpha']:g} {'centred' if row['centred'] else 'without centring'}, guidance {row['guidance']:g}"


def _cell(row: Row, measure: str, top: bool) -> str:
    value, error = row[measure], row[f"{measure}_stderr"]
    if value is None:
        return "-"
    text = f"{value:.3f}" + (f" ± {error:.3f}" if error is not None else "")
    return f"**{text}**" if top else text
