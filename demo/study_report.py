"""What the robustness studies found, for people: rows, tables in Markdown, plots as SVG."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from typing import Any

from clip2latent.metrics import mean_over_prompts
from clip2latent.plot import Panel, Point, svg
from demo.evolution import Evolving
from demo.study_ablation import Variant, rounds
from demo.study_attack import GENUINE, STEPS

Row = Mapping[str, Any]
NAMES = {
    "clip": "CLIP",
    "augclip": "AugCLIP",
    "own class": "judge: own class",
    "target class": "judge: target's class",
    "judge": "judge",
    "seconds": "s per prompt",
}


def rows_of(records: Iterable[Mapping[str, Any]], over_seeds: bool) -> list[dict[str, Any]]:
    """Returns {"way", "at", "problems", measure: mean, measure_stderr, "by_problem"} of each way and place, in order.

    Args:
        records: of cells.
        over_seeds: all seeds have the same problems, and a problem's number is its mean; else each seed has its own.
    """
    groups: dict[tuple[str, int], list[Mapping[str, list[float]]]] = {}
    for record in records:
        for point in record["points"]:
            groups.setdefault((record["way"], point["at"]), []).append(point["numbers"])
    rows = []
    for (way, at), seeds in groups.items():
        numbers = {}
        for name in seeds[0]:
            lists = [one[name] for one in seeds]
            each = [sum(some) / len(some) for some in zip(*lists, strict=True)] if over_seeds else list(chain(*lists))
            numbers[name] = [round(value, 5) for value in each]
        row: dict[str, Any] = {"way": way, "at": at, "seeds": len(seeds), "problems": len(numbers["clip"])}
        for name, values in numbers.items():
            row |= mean_over_prompts(name, values)
        rows.append(row | {"by_problem": numbers})
    return rows


def plot(study: str, rows: Sequence[Row], used: Mapping[str, Any]) -> str:
    """Returns the plots of a study; `used` are its settings."""
    if study == "ablation":
        return svg("Ablation", _ablation_panels(rows, used))
    title, axis = {"attack": ("Attack", "budget of 255"), "start": ("Start from another class", "steps")}[study]
    measures = [name for name in NAMES if name in rows[0]]
    panels = []
    for measure in measures:
        lines: dict[str, list[Point]] = {}
        ends = sorted({row["at"] for row in rows})
        for row in rows:
            lines.setdefault(row["way"], []).append(_point(row["at"], row, measure))
        if study == "attack":
            lines = {way: _with_start(way, points, lines, ends) for way, points in lines.items() if way != "untouched"}
        panels.append(Panel(NAMES[measure], axis, lines))
    return svg(title, panels)


def markdown(record: Mapping[str, Any], name: str) -> str:
    """Returns the report; `record` is demo.studies' own, `name` that of its files."""
    used, studies = record["settings"], record["studies"]
    lines = [
        "# FuseDream's studies of robustness, on the demo",
        "",
        "Scores are cosines of the demo's CLIP: of the image as it is, and AugCLIP, their mean over"
        " 32 random views that nothing was optimised",
        "or chosen by. The judge is a classifier of class, colour and ground that no way knows of. ± is the standard"
        " error over the problems.",
        f"One thread of a CPU; {used['views']} views at each step, learning rate {used['lr']:g} standard deviations of"
        f" the latents, {used['seeds']} seed{'s' if used['seeds'] > 1 else ''} from {used['seed']}.",
    ]
    for study, rows in studies.items():
        head, told, table = {"attack": _attack, "start": _start, "ablation": _ablation}[study](rows, used)
        lines += ["", f"## {head}", "", *told, "", f"![{head}]({name}-{study}.svg)", "", *table]
    if not studies:
        lines += ["", "Nothing is done yet."]
    return "\n".join([*lines, "", f"Made by `python -m demo.studies`, commit {record['commit'] or 'unknown'}.", ""])


def _attack(rows: Sequence[Row], used: Mapping[str, Any]) -> tuple[str, list[str], list[str]]:
    told = [
        f"{rows[0]['problems']} renders of one object, each with a text that names another class; every number of the"
        " picture may change by the budget.",
        "Pictures of the target are renders of the class that the text names, on the same ground and in the same"
        " colour.",
        "AugCLIP is attacked by fresh views at each step. Scores are of 8 bit pictures.",
        *_attack_told(rows),
    ]
    table = _table(rows, "budget", ("clip", "augclip", "own class", "target class"))
    return "Attack: a small perturbation that scores high", told, table


def _attack_told(rows: Sequence[Row]) -> list[str]:
    untouched = next((row for row in rows if row["way"] == "untouched"), None)
    genuine = next((row for row in rows if row["way"] == GENUINE), None)
    if untouched is None or genuine is None:
        return []
    told = []
    for row in (row for row in rows if row["way"].endswith(f"{STEPS} steps")):
        shares = []
        for name in ("clip", "augclip"):
            share = (row[name] - untouched[name]) / (genuine[name] - untouched[name])
            shares.append(f"{100 * share:.0f} % by {NAMES[name]}")
        told.append(
            f"{row['way']}, {row['at']} of 255: of the way to the score of a picture of the target,"
            f" {' and '.join(shares)}; the judge sees the target in {100 * row['target class']:.0f} %."
        )
    return ["", *(f"- {line}" for line in told)]


def _start_told(rows: Sequence[Row]) -> list[str]:
    told = []
    for way in dict.fromkeys(row["way"] for row in rows):
        first, *_, last = [row for row in rows if row["way"] == way]
        told.append(
            f"- {way}, {last['at']} steps: CLIP {first['clip']:.3f} to {last['clip']:.3f}, AugCLIP"
            f" {first['augclip']:.3f} to {last['augclip']:.3f}; the judge sees the target's class in"
            f" {100 * last['target class']:.0f} %, the first class in {100 * last['own class']:.0f} %."
        )
    return ["", *told]


def _start(rows: Sequence[Row], used: Mapping[str, Any]) -> tuple[str, list[str], list[str]]:
    told = [
        f"{rows[0]['problems']} images of the class-conditional generator, each with a text that names another class;"
        " one latent, z and class vector, optimised",
        "by Adam from there. What is measured is the latent at that step, not the best one so far.",
        *_start_told(rows),
    ]
    table = _table(rows, "steps", ("clip", "augclip", "own class", "target class"))
    return "Start from another class: a dog to become a cat", told, table


def _ablation(rows: Sequence[Row], used: Mapping[str, Any]) -> tuple[str, list[str], list[str]]:
    evolving = Evolving(rounds(used["steps"]))
    told = [
        f"{rows[0]['problems']} prompts, one image of each. All of it: the best k = {Variant().keep} of"
        f" M = {used['searched'][0]} random candidates by CLIP, all policies, {used['steps']} steps of Adam,",
        "the best latent by held-out views. Differences to it are within prompts. The judge's number is the share of"
        " the attributes named that it sees.",
        f"CMA-ES starts from the best candidate and has {evolving.rounds} rounds of {evolving.population} images;"
        f" its deviation at the start, {evolving.sigma:g}, was not tuned.",
    ]
    whole = rows[0]["by_problem"]
    table = [
        "| variant | AugCLIP | difference | CLIP | judge | difference | s per prompt |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        cells = [_cell(row, "augclip", 4), _against(row, whole, "augclip", 4), _cell(row, "clip", 4)]
        cells += [_cell(row, "judge", 3), _against(row, whole, "judge", 3), f"{row['seconds']:.1f}"]
        table.append(f"| {row['way']} | {' | '.join(cells)} |")
    return "Ablation: one part left out, or changed", told, table


def _ablation_panels(rows: Sequence[Row], used: Mapping[str, Any]) -> list[Panel]:
    whole = rows[0]
    views = [row for row in rows if row["way"] == whole["way"] or row["way"].startswith("without")]
    scatter = {row["way"]: [_point(row["augclip"], row, "judge")] for row in views}
    panels = [Panel("judge against AugCLIP", "AugCLIP", scatter)]
    for name, number in (("k", Variant().keep), ("M", used["searched"][0])):
        own = [(int(row["way"].split(" = ")[1]), row) for row in rows if row["way"].startswith(f"{name} = ")]
        line = sorted([(number, whole), *own], key=lambda pair: pair[0])
        for measure in ("augclip", "judge"):
            points = [_point(x, row, measure) for x, row in line]
            panels.append(Panel(f"{NAMES[measure]} against {name}", name, {whole["way"]: points}, logarithmic=True))
    return panels


def _with_start(way: str, points: list[Point], lines: Mapping[str, list[Point]], ends: Sequence[int]) -> list[Point]:
    """Begins a line at the untouched pictures; what has no budget is a line across."""
    if len(ends) > 1 and [point.x for point in points] == [0]:
        return [points[0], points[0]._replace(x=ends[-1])]
    return [*lines.get("untouched", []), *points]


def _table(rows: Sequence[Row], place: str, measures: Sequence[str]) -> list[str]:
    lines = [f"| way | {place} | {' | '.join(NAMES[name] for name in measures)} |", "|---" * (2 + len(measures)) + "|"]
    for row in sorted(rows, key=lambda row: row["at"]):
        cells = [_cell(row, name, 3) for name in measures]
        lines.append(f"| {row['way']} | {row['at']} | {' | '.join(cells)} |")
    return lines


def _against(row: Row, whole: Mapping[str, list[float]], measure: str, digits: int) -> str:
    if row["by_problem"] is whole:
        return ""
    pairs = zip(row["by_problem"][measure], whole[measure], strict=True)
    difference = mean_over_prompts(measure, [one - other for one, other in pairs])
    return f"{difference[measure]:+.{digits}f} ± {difference[f'{measure}_stderr'] or 0:.{digits}f}"


def _point(x: float, row: Row, measure: str) -> Point:
    return Point(x, row[measure], row[f"{measure}_stderr"] or 0.0)


def _cell(row: Row, measure: str, digits: int) -> str:
    return f"{row[measure]:.{digits}f} ± {row[f'{measure}_stderr'] or 0:.{digits}f}"
