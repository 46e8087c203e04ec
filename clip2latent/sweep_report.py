"""What a sweep found, for people: tables in Markdown, and plots against what was varied as SVG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from clip2latent.plot import Panel, Point, svg

Row = Mapping[str, Any]
MEASURES = {
    "clip_score": "CLIP score",
    "judge_accuracy": "judge accuracy",
    "diversity": "diversity",
    "latent_std_within": "latent std within",
    "latent_std_overall": "latent std overall",
}
PLOTTED = ("clip_score", "judge_accuracy", "diversity")


class Axis(NamedTuple):
    """What a sweep varies: its plain value, its name on an axis, and what tells lines apart in a plot against it."""

    plain: Any
    name: str
    lines: Sequence[str]
    logarithmic: bool = False


AXES = {
    "steps": Axis(None, "number of steps", ("sampler", "guidance"), True),
    "truncation": Axis(1.0, "truncation", ("guidance", "candidates", "sampler")),
    "guidance": Axis(None, "guidance", ("truncation", "sampler", "candidates")),
    "candidates": Axis(1, "number of candidates", ("guidance", "truncation", "sampler"), True),
    "sampler": Axis(None, "sampler", ()),
}


def markdown(record: Mapping[str, Any], picture: str) -> str:
    """Returns a report of the command's record; `picture` is the SVG's name beside it."""
    rows, grid = record["rows"], record["grid"]
    options, reference, counts = record["options"], rows[0], sorted({row["images_per_prompt"] for row in rows})
    numbers = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    varied = [name for name in AXES if name in _varied(rows)]
    lines = [
        f"# Quality of sampling: {_listed([f'{name}s' if name == 'sampler' else name for name in varied])}",
        "",
        f"Checkpoint {options['checkpoint']}, the {len(record['prompts'])} prompts of {options['prompts']}, {numbers}",
        f"images of each, seed {record['seed']}; a prompt's first, second, ... image starts from the same noise in all",
        "rows.",
        "",
        f"![CLIP score and diversity against the {next(iter(_plots(rows)), 'steps')}]({picture})",
        "",
        f"Bars: standard error of the difference from {reference['name']}.",
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
        *_against(reference, [row for row in rows if row["guidance"] == reference["guidance"]], _shown(rows)),
        "",
        *_all(rows, _shown(rows)),
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
    """Returns the plot against the number of steps, or where that does not vary against what does."""
    found = curves(rows)
    return found[0] if found else svg("One way to sample", [Panel("curve of one point", "", {})])


def curves(rows: Sequence[Row]) -> list[str]:
    """Returns plots of CLIP score, judge accuracy and diversity against each number that varies.

    Everything but that number, and what tells the lines apart, is as in the first row, the reference.
    """
    return [_plot(rows, *found) for found in _plots(rows).items()]


def _plots(rows: Sequence[Row]) -> dict[str, tuple[str, dict[str, list[Row]]]]:
    """Axis -> what tells its lines apart, and these, of rows from left to right; where a line has several points."""
    found = {}
    varied, reference = _varied(rows), rows[0]
    for axis, (_, _, others, _) in AXES.items():
        if axis not in varied or not others:
            continue
        apart = next((other for other in others if other in varied), others[0])
        lines: dict[str, list[Row]] = {}
        for row in sorted(rows, key=lambda row: (_at(row, apart), _at(row, axis))):
            if all(_at(row, name) == _at(reference, name) for name in AXES if name not in (axis, apart)):
                value = _at(row, apart)
                lines.setdefault(value if apart == "sampler" else f"{apart} {value:g}", []).append(row)
        if any(len(line) > 1 for line in lines.values()):
            found[axis] = (apart, lines)
    return found


def _plot(rows: Sequence[Row], axis: str, found: tuple[str, dict[str, list[Row]]]) -> str:
    apart, ways = found
    fixed = [name for name in AXES if name not in (axis, apart) and name in _varied(rows)]
    said = ", ".join(f"{'' if name == 'sampler' else f'{name} '}{_at(rows[0], name)}" for name in fixed)
    panels = []
    for measure in PLOTTED:
        lines = {
            title: [
                Point(_at(row, axis), row[measure], row["versus_reference"][measure]["difference_stderr"] or 0.0)
                for row in line
                if row[measure] is not None
            ]
            for title, line in ways.items()
        }
        lines = {title: points for title, points in lines.items() if points}
        if lines:
            title = f"{MEASURES[measure]}{f', {said}' if said else ''}"
            panels.append(Panel(title, AXES[axis].name, lines, AXES[axis].logarithmic))
    note = f"bars: standard error of the difference from {rows[0]['name']}"
    return svg(f"CLIP score and diversity against the {AXES[axis].name} ({note})", panels)


def _at(row: Row, axis: str) -> Any:
    return row.get(axis, AXES[axis].plain)


def _varied(rows: Sequence[Row]) -> list[str]:
    return [axis for axis in AXES if len({_at(row, axis) for row in rows}) > 1]


def _shown(rows: Sequence[Row]) -> list[str]:
    """Truncation and candidates where a table must tell them."""
    return [axis for axis in ("truncation", "candidates") if axis in _varied(rows) or _at(rows[0], axis) != 1]


def _listed(names: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(names[:-1]), *names[-1:]])) or "one way"


def _against(reference: Row, rows: Sequence[Row], shown: Sequence[str]) -> list[str]:
    """The table of relative differences from the reference."""
    more = "".join(f" {name} |" for name in shown)
    lines = [
        f"## Against {reference['name']}, at guidance {reference['guidance']:g}",
        "",
        "Relative differences in per cent, on the same prompts and the images that both have.",
        f"{reference['name']} itself: {_values(reference)}.",
        "",
        f"| sampler | steps |{more} images | {' | '.join(MEASURES.values())} | ms, prior | ms |",
        f"|---|---|{'---|' * len(shown)}---|{'---|' * len(MEASURES)}---|---|",
    ]
    for row in sorted(rows, key=_order):
        versus = row["versus_reference"]
        cells = [f"{_at(row, name):g}" for name in shown] + [str(versus["images_per_prompt"])]
        cells += [_per_cent(versus[measure]) for measure in MEASURES]
        cells += [f"{1000 * row[time]:.1f}" for time in ("prior_seconds_per_image", "seconds_per_image")]
        lines.append(f"| {row['sampler']} | {row['steps']} | {' | '.join(cells)} |")
    return lines


def _all(rows: Sequence[Row], shown: Sequence[str]) -> list[str]:
    """The table of the measures themselves."""
    more = "".join(f" {name} |" for name in shown)
    lines = [
        "## All",
        "",
        f"| guidance | sampler | steps |{more} images | {' | '.join(MEASURES.values())} |",
        f"|---|---|---|{'---|' * len(shown)}---|{'---|' * len(MEASURES)}",
    ]
    for row in sorted(rows, key=_order):
        cells = [f"{_at(row, name):g}" for name in shown] + [str(row["images_per_prompt"])]
        cells += [_value(row, measure) for measure in MEASURES]
        lines.append(f"| {row['guidance']:g} | {row['sampler']} | {row['steps']} | {' | '.join(cells)} |")
    return lines


def _order(row: Row) -> tuple[float, ...]:
    return row["guidance"], row["steps"], *(_at(row, name) for name in ("truncation", "candidates"))


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
