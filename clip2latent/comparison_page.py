"""Several results beside each other on one page: what was made by whatever, measured by score, evaluate or table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from clip2latent.html_page import Page, Table, number

Record = Mapping[str, Any]
COLUMNS = {
    "pictures": "pictures",
    "clip_score": "CLIP score",
    "holdout_score": "hold-out CLIP score",
    "judge_accuracy": "judge accuracy",
    "diversity": "diversity",
    "r_precision": "R-precision",
    "holdout_r_precision": "R-precision, hold-out",
    "inception_score": "inception score",
    "frechet_distance": "Frechet distance",
    "kernel_distance": "kernel distance x 1000",
    "precision": "precision",
    "recall": "recall",
}


def comparison_page(records: Mapping[str, Record]) -> Page:
    """Returns a page with a row for each scored folder, and for each row of an evaluation or of a table of ways.

    Args:
        records: a name -> the record in metrics.json.

    Raises:
        ValueError: for a record of another command.
    """
    rows: list[tuple[str, Mapping[str, str]]] = []
    for name, record in records.items():
        if "measuring" in record:
            rows.append((name, scored_cells(record)))
        elif "plan" in record:
            rows += [(f"{name}: {row['row']}", _evaluated(row, len(record["prompts"]))) for row in record["rows"]]
        elif "ways" in record:
            rows += [(f"{name}: {row['name']}", scored_cells(row)) for row in record["ways"]]
        else:
            raise ValueError(f"{name}: only what score, evaluate and table wrote can be compared")
    shown = {key: name for key, name in COLUMNS.items() if any(cells.get(key, "-") != "-" for _, cells in rows)}
    table = Table(
        "",
        ["", *shown.values()],
        [[name, *(cells.get(key, "-") for key in shown)] for name, cells in rows],
        "± is one standard error over the captions; for R-precision, inception score and kernel distance the deviation"
        " between repeats, splits and subsets.",
    )
    return Page(
        "Comparison", _differences(records) or ["Captions, CLIPs, features and references are the same."], [table]
    )


def scored_cells(record: Record) -> dict[str, str]:
    """Returns the cells of what score found, by the keys of `COLUMNS`."""
    first, *others = record["clip"]
    cells = {
        "pictures": str(record["images"]["used"]),
        "clip_score": number(first["clip_score"], first["clip_score_stderr"]),
        "judge_accuracy": number((record["judge_accuracy"] or {}).get("mean")),
        "diversity": number(first["diversity"], first["diversity_stderr"]),
        "r_precision": _deviating(first["r_precision"]),
    }
    for other in others:
        cells["holdout_score"] = number(other["clip_score"], other["clip_score_stderr"])
        cells["holdout_r_precision"] = _deviating(other["r_precision"])
    cells["inception_score"] = _inception(record["inception_score"])
    reference = record["reference"]
    if reference:
        cells |= {key: number(reference[key]) for key in ("frechet_distance", "precision", "recall")}
        cells["kernel_distance"] = _deviating(reference["kernel_distance"], 1000)
    return cells


def _inception(found: Mapping[str, Record]) -> str:
    """The score by the classes; of a judge that knows no classes the mean of those of its attributes."""
    if not found:
        return "-"
    each = [found["class"]] if "class" in found else list(found.values())
    return _deviating({name: sum(one[name] for one in each) / len(each) for name in ("mean", "deviation", "parts")})


def _evaluated(row: Record, prompts: int) -> Mapping[str, str]:
    measures = [name for name in ("clip_score", "holdout_score", "judge_accuracy", "diversity") if name in row]
    cells = {name: number(row[name], row[f"{name}_stderr"]) for name in measures}
    cells |= {name: _deviating(row.get(name)) for name in ("r_precision", "holdout_r_precision")}
    return {"pictures": str(prompts * row["images_per_prompt"]), **cells}


def _deviating(found: Record | None, times: float = 1) -> str:
    """A number found several times; of one time no deviation is known."""
    if not found:
        return "-"
    return number(times * found["mean"], None if found.get("parts") == 1 else times * found["deviation"])


def _differences(records: Mapping[str, Record]) -> Sequence[str]:
    """Says in what the results differ besides what made them, so that their numbers do not compare."""
    inputs = {
        "captions": lambda record: record.get("images", record).get("texts_sha256"),
        "CLIP": lambda record: record["models"]["embedder"]["sha256"],
        "hold-out CLIP": lambda record: record["models"].get("holdout", {}).get("sha256"),
        "features": lambda record: (
            record["models"].get("features", {}).get("sha256") if record.get("reference") else None
        ),
        "reference pictures": lambda record: (record.get("reference") or {}).get("sha256"),
    }
    found = []
    for name, read in inputs.items():
        known = {value for value in map(read, records.values()) if value is not None}
        if len(known) > 1:
            found.append(f"Careful: the results do not have the same {name}.")
    return found
