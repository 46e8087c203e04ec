"""The pages of evaluate, sweep, table and score: from the record in metrics.json and its pictures to HTML."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from clip2latent import sweep_report
from clip2latent.html_page import Page, Table, html, number
from clip2latent.plot import Panel, Point, svg
from clip2latent.table_page import table_page

Record = Mapping[str, Any]
MEASURES = {"clip_score": "CLIP score", "judge_accuracy": "judge accuracy", "diversity": "diversity"}


def report_html(record: Record, pictures: Mapping[str, bytes]) -> str:
    """Returns a page of what evaluate, sweep, table or score wrote to metrics.json.

    Args:
        record: metrics.json.
        pictures: title -> PNG file.

    Raises:
        ValueError: for a record of another kind.
    """
    return html(page_of(record), pictures, record)


def page_of(record: Record) -> Page:
    """Returns what a page says of a record; ValueError where it is of none of the four kinds."""
    kinds = {"grid": sweep_page, "plan": evaluation_page, "ways": table_page, "measuring": score_page}
    for key, make in kinds.items():
        if key in record:
            return make(record)
    raise ValueError("this metrics.json was written by none of evaluate, sweep, table and score")


def evaluation_page(record: Record) -> Page:
    """Returns the page of an evaluation."""
    rows, sampling, options = record["rows"], record["sampling"], record.get("options", {})
    held = {"holdout_score": "hold-out CLIP score"} if "holdout_score" in rows[0] else {}
    measures = {**MEASURES, **held}
    cells = [
        [row["row"], str(row["images_per_prompt"]), *(number(row[m], row[f"{m}_stderr"]) for m in measures)]
        + [number(found["mean"], found["deviation"]) if found else "-" for found in _retrievals(row)]
        for row in rows
    ]
    precision = [f"R-precision{among}" for among, _ in zip(("", ", hold-out"), _retrievals(rows[0]), strict=False)]
    columns = ["", "images of a prompt", *measures.values(), *precision]
    note = "± is one standard error over the prompts. R-precision: among the other prompts, at most 99."
    tables = [Table("", columns, cells, note)]
    made = record["generator"]
    if made:
        floor = made["real_against_real"]
        kinds = {"normalised_frechet": "normalised Frechet distance", "mean_total_variation": "total variation"}
        tables.append(
            Table(
                f"The generator's {made['images']} images against renders",
                ["", "generator", "other renders"],
                [[name, number(made[key]), number(floor[key])] for key, name in kinds.items()],
            )
        )
    guided = []
    for row in rows:
        if row["key"] == "prior" or (row["key"].startswith("prior_") and row["key"] != "prior_best"):
            scale = sampling["guidance"] if row["key"] == "prior" else float(row["key"].removeprefix("prior_"))
            guided.append((scale, row))
    return Page(
        "Evaluation",
        [
            f"Checkpoint {options.get('checkpoint', 'unknown')}, {len(record['prompts'])} prompts, {sampling['steps']}"
            f" steps of {sampling['sampler']}, truncation {sampling['truncation']:g}, seed {sampling['seed']}.",
            _versions(record),
        ],
        tables,
        _curves("guidance", {"prior": sorted(guided, key=lambda pair: pair[0])}),
    )


def sweep_page(record: Record) -> Page:
    """Returns the page of a sweep."""
    rows = record["rows"]
    cells = [
        [row["name"], str(row["images_per_prompt"])]
        + [number(row[measure], row[f"{measure}_stderr"]) for measure in MEASURES]
        + [number(row["versus_reference"]["clip_score"]["difference"]), f"{1000 * row['seconds_per_image']:.1f}"]
        for row in rows
    ]
    columns = ["way", "images of a prompt", *MEASURES.values(), f"CLIP score minus {record['reference']}'s", "ms"]
    note = (
        "A way is sampler-steps-guidance, with -t and the truncation, and -best and the number of candidates of which"
        " CLIP chooses, where these are not 1. ± is one standard error over the prompts; ms: of an image. Bars in the"
        f" plots: the standard error of the difference from {record['reference']}."
    )
    tables = [Table("", columns, cells, note)]
    if record["left_out"]:
        tables.append(Table("Left out", ["way", "why"], [[out["name"], out["why"]] for out in record["left_out"]]))
    return Page(
        "Sweep of ways to sample",
        [
            f"Checkpoint {record['options']['checkpoint']}, {len(record['prompts'])} prompts, seed {record['seed']}, on"
            f" {record['device']}.",
            _versions(record),
        ],
        tables,
        sweep_report.curves(rows),
    )


def score_page(record: Record) -> Page:
    """Returns the page of a folder's scores."""
    images, options, reference, how = record["images"], record["options"], record["reference"], record["measuring"]
    rows = []
    for clip in record["clip"]:
        found = clip["r_precision"]
        precision = number(found["mean"], found["deviation"]) if found else "-"
        largest = max(clip["best_of"], key=int)
        cells = [
            number(clip["clip_score"], clip["clip_score_stderr"]),
            f"{clip['best_of'][largest]:.3f} (of {largest})",
        ]
        rows.append([clip["embedder"], *cells, number(clip["diversity"], clip["diversity_stderr"]), precision])
    distractors = next((clip["r_precision"]["distractors"] for clip in record["clip"] if clip["r_precision"]), 0)
    columns = ["CLIP", "CLIP score", "best", "diversity", f"R-precision among {distractors} others"]
    note = "± is one standard error over the captions; for R-precision the deviation between its repeats."
    tables = [Table("Pictures and captions", columns, rows, note)]
    if record["judge_accuracy"]:
        judged = record["judge_accuracy"]
        by_attribute = [[name, number(share)] for name, share in judged["by_attribute"].items()]
        tables.append(Table("Judge accuracy", ["attribute", "share"], [["all", number(judged["mean"])], *by_attribute]))
    if record["inception_score"]:
        cells = [
            [name, number(found["mean"], found["deviation"]), str(found["parts"])]
            for name, found in record["inception_score"].items()
        ]
        note = "± is the deviation between the splits. Comparable only by the same classifier and number of pictures."
        tables.append(Table("Inception score", ["by the classes of", "score", "splits"], cells, note))
    if reference:
        tables.append(_reference(reference, images["used"], how, record["models"]["features"]["source"]))
    damaged = [*images["damaged"], *(reference["damaged"] if reference else [])]
    if damaged:
        cells = [[broken["file"], broken["why"]] for broken in damaged]
        tables.append(Table("Pictures that could not be read", ["file", "why"], cells))
    used = f"{images['used']} of {images['count']} pictures" if images["damaged"] else f"{images['count']} pictures"
    lead = f"Pictures of {options['images']}: {used} of {images['different_captions']} captions, seed {how['seed']}."
    lines = {
        clip["embedder"]: [Point(float(size), score) for size, score in clip["best_of"].items()]
        for clip in record["clip"]
        if len(clip["best_of"]) > 1
    }
    title = "CLIP score of the best"
    curves = [svg(title, [Panel(title, "of so many pictures of a caption", lines, True)])] if lines else []
    return Page("Scores of a folder of pictures", [lead, _versions(record)], tables, curves)


def _reference(found: Record, used: int, how: Record, features: str) -> Table:
    kernel = found["kernel_distance"]
    rows = [
        ["Frechet distance (FID where the features are Inception's)", number(found["frechet_distance"])],
        ["the same over the reference's variance", number(found["normalised_frechet"])],
        [
            f"kernel distance (KID) x 1000, {kernel['parts']} subsets of {kernel['size']}",
            number(1000 * kernel["mean"], 1000 * kernel["deviation"]),
        ],
        *([f"{name}, k = {how['neighbours']}", number(found[name])] for name in ("precision", "recall")),
        *([f"{name}, k = {how['neighbours']}", number(found[name])] for name in ("density", "coverage")),
    ]
    note = f"Features: {features}, {found['features']} numbers a picture, of its middle square."
    if min(used, found["used"]) <= found["features"]:
        note += " There are fewer pictures than that: the Frechet distance is biased upwards."
    return Table(f"Against {found['used']} reference pictures", ["", features], rows, note)


def _retrievals(row: Record) -> list[Record | None]:
    return [row[name] for name in ("r_precision", "holdout_r_precision") if name in row]


def _curves(axis: str, lines: Mapping[str, Sequence[tuple[float, Record]]]) -> list[str]:
    """CLIP score, judge accuracy and diversity against a number."""
    panels = []
    for measure, name in MEASURES.items():
        points = {
            title: [
                Point(x, row[measure], row[f"{measure}_stderr"] or 0.0) for x, row in line if row[measure] is not None
            ]
            for title, line in lines.items()
        }
        if any(len(line) > 1 for line in points.values()):
            panels.append(Panel(name, axis, {title: line for title, line in points.items() if line}))
    return [svg(f"Measures against {axis}", panels)] if panels else []


def _versions(record: Record) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in record.get("versions", {}).items())
    return f"Commit {record.get('commit') or 'unknown'}; {versions}."
