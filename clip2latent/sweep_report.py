"""What a sweep found, for people: tables in Markdown, and a plot against the number of steps as SVG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from clip2latent.plot import Panel, Point, svg

Row = Mapping[str, Any]
MEASURES = {
    "clip_score": "CLIP score",
    "judge_accuracy": "judge accuracy",
    "diversity": "diversity",
    "latent_std_within": "latent std within",
    "latent_std_overall": "latent std overall",
}


def markdown(record: Mapping[str, Any], picture: str) -> str:
    """Returns a report of the command's record; `picture` is the SVG's name beside it."""
    rows, grid = record["rows"], record["grid"]
    options, reference, counts = record["options"], rows[0], sorted({row["images_per_prompt"] for row in rows})
    numbers = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    lines = [
        "# Quality of sampling: samplers, steps and guidance",
        "",
        f"Checkpoint {options['checkpoint']}, the {len(record['prompts'])} prompts of {options['prompts']}, {numbers}",
        f"images of each, seed {record['seed']}; a prompt's first, second, ... image starts from the same noise in all",
        "rows.",
        "",
        f"![CLIP score and diversity against the number of steps]({picture})",
        "",
        "- CLIP score: cosine of an image and its prompt.",
        "- Judge accuracy: share of the prompts' attributes that an independent classifier sees in the images.",
        "- Diversity: mean of 1 - cosine over the pairs of a prompt's images.",
        "- Latent std: mean over channels of the deviation of the standardised latents, within a prompt and overall;",
        "  that of the training data is 1 overall.",
        "",
        "± is one standard error over the prompts (jackknife). ms: milliseconds an image takes, of the prior alone and",
        f"with generator and CLIP, in batches of {record['chunk']} on {record['device']} (threads:"
        f" {record['threads']}), with whatever else the machine had to do.",
        "",
        *_against(reference, [row for row in rows if row["guidance"] == reference["guidance"]]),
        "",
        *_all(rows),
    ]
    whys: dict[str, list[str]] = {}
    for out in record["left_out"]:
        whys.setdefault(out["why"], []).append(out["name"])
    if whys:
        lines += ["", "Left out:", "", *(f"- {', '.join(names)}: {why}" for why, names in whys.items())]
    limit = grid["steps_per_prompt"]
    lines += ["", f"Rows of many steps are of fewer images: {limit} steps for each prompt."] if limit else []
    lines += ["", f"Made by `sample.py sweep`, commit {record['commit'] or 'unknown'}.", ""]
    return "\n".join(lines)


def plot(rows: Sequence[Row]) -> str:
    """Returns a plot of CLIP score and diversity against steps at the first row's guidance, a line for each sampler."""
    near = sorted((row for row in rows if row["guidance"] == rows[0]["guidance"]), key=_order)
    panels = []
    for measure in ("clip_score", "diversity"):
        lines: dict[str, list[Point]] = {}
        for row in near:
            if row[measure] is not None:
                point = Point(row["steps"], row[measure], row["versus_reference"][measure]["difference_stderr"] or 0.0)
                lines.setdefault(row["sampler"], []).append(point)
        title = f"{MEASURES[measure]}, guidance {rows[0]['guidance']:g}"
        panels.append(
            Panel(title, f"steps (bars: standard error of the difference from {rows[0]['name']})", lines, True)
        )
    return svg("CLIP score and diversity against the number of steps", panels)


def _against(reference: Row, rows: Sequence[Row]) -> list[str]:
    """The table of relative differences from the reference."""
    lines = [
        f"## Against {reference['name']}, at guidance {reference['guidance']:g}",
        "",
        "Relative differences in per cent, on the same prompts and the images that both have.",
        f"{reference['name']} itself: {_values(reference)}.",
        "",
        f"| sampler | steps | images | {' | '.join(MEASURES.values())} | ms, prior | ms |",
        f"|---|---|---|{'---|' * len(MEASURES)}---|---|",
    ]
    for row in sorted(rows, key=_order):
        versus = row["versus_reference"]
        cells = [_per_cent(versus[measure]) for measure in MEASURES]
        cells += [f"{1000 * row[time]:.1f}" for time in ("prior_seconds_per_image", "seconds_per_image")]
        lines.append(f"| {row['sampler']} | {row['steps']} | {versus['images_per_prompt']} | {' | '.join(cells)} |")
    return lines


def _all(rows: Sequence[Row]) -> list[str]:
    """The table of the measures themselves."""
    lines = [
        "## All",
        "",
        f"| guidance | sampler | steps | images | {' | '.join(MEASURES.values())} |",
        f"|---|---|---|---|{'---|' * len(MEASURES)}",
    ]
    for row in sorted(rows, key=_order):
        head = f"| {row['guidance']:g} | {row['sampler']} | {row['steps']} | {row['images_per_prompt']} |"
        lines.append(f"{head} {' | '.join(_value(row, measure) for measure in MEASURES)} |")
    return lines


def _order(row: Row) -> tuple[float, int]:
    return row["guidance"], row["steps"]


def _value(row: Row, measure: str) -> str:
    value, error = row[measure], row[f"{measure}_stderr"]
    if value is None:
        return "-"
    return f"{value:.3f}" + (f" ± {error:.3f}" if error is not None else "")


def _values(row: Row) -> str:
    known = [f"{name} {_value(row, measure)}" for measure, name in MEASURES.items() if row[measure] is not None]
    return ", ".join(known)


def _per_cent(versus: Mapping[str, float | None]) -> str:
    value, error = versus["relative"], versus["relative_stderr"]
    if not value:
        return "-" if value is None else "0"
    return f"{100 * value:+.1f}" + (f" ± {100 * error:.1f}" if error is not None else "")
