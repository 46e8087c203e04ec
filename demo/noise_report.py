"""What a noise sweep found, for people: a table in Markdown, and a plot against the noise scale as SVG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from clip2latent import plot

Row = Mapping[str, Any]
MEASURES = {"clip_score": "CLIP score", "judge_accuracy": "judge accuracy", "diversity": "diversity"}
BRIDGES = {False: "embeddings as they are", True: "centred"}


def markdown(record: Mapping[str, Any], picture: str) -> str:
    """Returns the report; `record` is noise_sweep's, `picture` the SVG's name beside it."""
    used, rows = record["settings"], record["rows"]
    chosen = "checkpoints that scored best on other prompts" if used["checkpoint"] == "best" else "last checkpoints"
    lines = [
        "# How much noise crosses the modality gap",
        "",
        "A prior is trained on embeddings of images and asked with embeddings of texts. In training, noise turns each",
        "embedding e into normalise(e + α n/|n|); the noise scale α is varied here, as in figure 5 of Pinkney and Li",
        "(2022), and once more with each modality's mean taken off first (centred). α = 0 is no noise.",
        "",
        f"![CLIP score and judge accuracy against the noise scale]({picture})",
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
        head = f"| {BRIDGES[row['centred']]} | {row['alpha']:g} | {row['guidance']:g} |"
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
    panels = [
        plot.Panel(MEASURES[measure], "noise scale α", _lines(rows, measure, guidances))
        for measure in ("clip_score", "judge_accuracy")
    ]
    return plot.svg("CLIP score and judge accuracy against the noise scale", panels)


def _lines(rows: Sequence[Row], measure: str, guidances: Sequence[float]) -> dict[str, list[plot.Point]]:
    lines: dict[str, list[plot.Point]] = {}
    for row in rows:
        if row["guidance"] in guidances and row[measure] is not None:
            name = f"{BRIDGES[row['centred']]}, guidance {row['guidance']:g}"
            point = plot.Point(row["alpha"], row[measure], row[f"{measure}_stderr"] or 0.0)
            lines.setdefault(name, []).append(point)
    return lines


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
