"""What a study of label-guided search found, for people: tables in Markdown, and plots as SVG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from clip2latent.plot import Panel, Point, svg

Row = Mapping[str, Any]


def plot(record: Mapping[str, Any]) -> str:
    """Returns two panels: the best score against the number of images, and after the last image against k."""
    rows, classes = record["rows"], record["classes"]
    curves = {
        name_of(row["k"], classes): [Point(number, one["mean"], one["std"] or 0.0) for number, one in _curve(row)]
        for row in rows
    }
    last = record["settings"]["candidates"]
    against_k = {"mean of the seeds": [Point(row["k"], row["best"]["mean"], row["best"]["std"] or 0.0) for row in rows]}
    panels = [
        Panel("best score against images drawn", "images drawn for each prompt", curves, logarithmic=True),
        Panel(f"best score of {last} images", "k, classes to choose from", against_k, logarithmic=True),
    ]
    return svg("Label-guided search", panels)


def markdown(record: Mapping[str, Any], picture: str, examples: str) -> str:
    """Returns the report.

    Args:
        record: of `label_study.study`, with "models", "command" and "commit".
        picture: the SVG's name beside it.
        examples: the PNG's name beside it.
    """
    used, rows, classes = record["settings"], record["rows"], record["classes"]
    last = used["candidates"]
    count = f"{used['seeds']} seed" + ("s" if used["seeds"] > 1 else "")
    lines = [
        "# Label-guided search",
        "",
        "The classes whose names, as `An image of {label}`, are nearest to the prompt are found by the text encoder;",
        "images of k such classes are drawn, uniformly, and the one nearest to the prompt is taken (Du, Yin and Gu,",
        f"*CLIP-guided Zero-Shot Text-to-Image Generation*, algorithm 1). k = {classes}, all classes, is unguided.",
        "",
        f"{record['models']['generator']['name']} with {record['models']['embedder']['name']},"
        f" {len(record['prompts'])} prompts, {last} images for each, {count}. A score is the mean over the prompts of",
        "the best cosine so far; ± is the standard deviation over the seeds. The search ranks by the same score, so",
        "that it rises by itself: what the images show is the judge's matter.",
        "",
        f"![Best score against the number of images and against k]({picture})",
        "",
        f"## Best of {last} images, by k",
        "",
        *_best_table(record),
        "",
        "## Images needed to pass a score",
        "",
        *_needed_table(record),
        "",
        "## Best score by number of images",
        "",
        *_table(
            ["images", *(name_of(row["k"], classes) for row in rows)],
            [
                [str(number), *(_cell(dict(_curve(row))[number], 4) for row in rows)]
                for number in map(int, used["steps"])
            ],
        ),
    ]
    if "judge" in rows[0]:
        lines += ["", "## Judge accuracy by number of images", "", *_judge_table(record)]
    lines += ["", "## By seed", "", *_seed_table(record)]
    shown = f"The best of {last} for some prompts, by k"
    lines += ["", f"![{shown}]({examples})", "", f"{shown}.", ""]
    lines += [f"Made by `{record['command']}`, commit {record['commit'] or 'unknown'}.", ""]
    return "\n".join(lines)


def name_of(k: int, classes: int) -> str:
    """Returns how a k is called."""
    return f"k = {k}" + (" (all)" if k == classes else "")


def _best_table(record: Mapping[str, Any]) -> list[str]:
    rows = record["rows"]
    body = [["best score", *(_cell(row["best"], 4) for row in rows)]]
    if "judge" in rows[0]:
        body.append(["judge accuracy", *(_cell(_last(row["judge"]), 3) for row in rows)])
    if "frechet" in rows[0]:
        body.append(["Fréchet distance, all images", *(_cell(row["frechet"], 3) for row in rows)])
    table = _table(["", *(name_of(row["k"], record["classes"]) for row in rows)], body)
    if "frechet" in rows[0]:
        table += [
            "",
            "The Fréchet distance is that of the embedder's features, in units of the real pictures' variance.",
        ]
    return table


def _needed_table(record: Mapping[str, Any]) -> list[str]:
    more = f"> {record['settings']['candidates']}"
    body = []
    for threshold in record["thresholds"]:
        cells = []
        for row in record["rows"]:
            needed = threshold["needed"][row["k"]]
            cells.append(more if needed["mean"] is None else _cell(needed, 2))
        body.append([f"{threshold['name']}, {threshold['score']:.4f}", *cells])
    table = _table(["score to pass", *(name_of(row["k"], record["classes"]) for row in record["rows"])], body)
    if record["real_score"] is not None:
        table += ["", "Real pictures are renders of what each prompt names, scored with that prompt."]
    return table


def _judge_table(record: Mapping[str, Any]) -> list[str]:
    rows = record["rows"]
    numbers = list(rows[0]["judge"])
    body = [[str(number), *(_cell(row["judge"][number], 3) for row in rows)] for number in numbers]
    return _table(["images", *(name_of(row["k"], record["classes"]) for row in rows)], body)


def _seed_table(record: Mapping[str, Any]) -> list[str]:
    rows, used = record["rows"], record["settings"]
    body = []
    for measure, name in {"best": "best score", "frechet": "Fréchet distance"}.items():
        if measure not in rows[0]:
            continue
        for index in range(used["seeds"]):
            values = (row[measure]["seeds"][index] for row in rows)
            body.append([f"{name}, seed {used['seed'] + index}", *(f"{value:.6f}" for value in values)])
        for part in ("mean", "std"):
            values = (row[measure][part] for row in rows)
            body.append(
                [
                    f"{name}, {part}",
                    *(
                        "-" if value is None else f"{value:.3g}" if part == "std" else f"{value:.6f}"
                        for value in values
                    ),
                ]
            )
    return _table(["", *(name_of(row["k"], record["classes"]) for row in rows)], body)


def _table(head: Sequence[str], body: Sequence[Sequence[str]]) -> list[str]:
    rows = [head, ["---"] * len(head), *body]
    return [f"| {' | '.join(row)} |" for row in rows]


def _cell(value: Mapping[str, Any], digits: int) -> str:
    if value["mean"] is None:
        return "-"
    deviation = "" if not value["std"] else f" ± {value['std']:.{digits}f}"
    return f"{value['mean']:.{digits}f}{deviation}"


def _curve(row: Row) -> list[tuple[int, Mapping[str, Any]]]:
    return [(int(number), one) for number, one in row["curve"].items()]


def _last(by_number: Mapping[Any, Any]) -> Mapping[str, Any]:
    return by_number[max(by_number)]
