"""What an evaluation's record says, for people."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def gaps_closed(rows: Sequence[dict[str, Any]]) -> dict[str, float | None]:
    """Returns the share of the way from random latents to retrieval that the prior goes, in each measure.

    None stands where a row or a measure is missing, or where retrieval is no better than chance.
    """
    by_key = {row["key"]: row for row in rows}
    closed: dict[str, float | None] = {}
    for measure in ("clip_score", "judge_accuracy"):
        low, prior, high = (by_key.get(key, {}).get(measure) for key in ("random", "prior", "retrieval"))
        known = None not in (low, prior, high) and high > low
        closed[measure] = (prior - low) / (high - low) if known else None
    return closed


def markdown(record: dict[str, Any]) -> str:
    """Returns a record's table for people."""
    held = {"holdout_score": "hold-out CLIP score"} if "holdout_score" in record["rows"][0] else {}
    measures = {"clip_score": "CLIP score", **held, "judge_accuracy": "judge accuracy", "diversity": "diversity"}
    lines = [f"| | {' | '.join(measures.values())} |", f"|---|{'---|' * len(measures)}"]
    for row in record["rows"]:
        cells = [_cell(row, measure) for measure in measures]
        lines.append(f"| {row['row']} | {' | '.join(cells)} |")
    closed = {name: share for name, share in record["gap_closed"].items() if share is not None}
    if closed:
        shares = ", ".join(f"{share:.0%} in {name.replace('_', ' ')}" for name, share in closed.items())
        lines += ["", f"Of the way from random latents to retrieval the prior goes {shares}."]
    if record["generator"]:
        made, floor = record["generator"], record["generator"]["real_against_real"]
        lines += [
            "",
            f"The generator's {made['images']} images against renders (renders against renders): normalised Frechet"
            f" distance {made['normalised_frechet']:.3f} ({floor['normalised_frechet']:.3f}), attribute histograms'"
            f" total variation {made['mean_total_variation']:.3f} ({floor['mean_total_variation']:.3f}).",
        ]
    return "\n".join(lines)


def _cell(row: dict[str, Any], measure: str) -> str:
    value, error = row[measure], row[f"{measure}_stderr"]
    if value is None:
        return "-"
    return f"{value:.3f}" + (f" ± {error:.3f}" if error is not None else "")
