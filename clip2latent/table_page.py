"""The page of a table of ways to images: scores, seconds and what they were measured by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from clip2latent.comparison_page import COLUMNS, scored_cells
from clip2latent.html_page import Page, Table, number

Record = Mapping[str, Any]
PROMPTWISE = (
    "seconds",
    "clip_score",
    "augclip",
    "holdout_score",
    "judge_accuracy",
    "r_precision",
    "holdout_r_precision",
)
OF_SETS = ("inception_score", "frechet_distance", "kernel_distance", "precision", "recall")


def table_page(record: Record) -> Page:
    """Returns the page of what table wrote to metrics.json."""
    ways, options, bank = record["ways"], record["options"], record["bank"]
    found = [scored_cells(row) for row in ways]
    for cells, row in zip(found, ways, strict=True):
        cells["augclip"] = number(row["augclip"], row["augclip_stderr"])
        cells["seconds"] = "-" if row["seconds"] is None else f"{row['seconds']:.3g}"
    titles = {"seconds": "s per image", "augclip": "AugCLIP", **COLUMNS}
    names = [row["name"] for row in ways]
    note = (
        "± is one standard error over the prompts; for R-precision the deviation between repeats. AugCLIP: mean cosine"
        f" over {record['views']} random views of the image that nothing was optimised or chosen by."
    )
    tables = [_table("", names, found, {key: titles[key] for key in PROMPTWISE}, note)]
    note = "± is the deviation between the parts of the images that the score is taken of, and between subsets."
    sets = _table("As sets", names, found, {key: titles[key] for key in OF_SETS}, note)
    tables += [sets] if len(sets.columns) > 1 else []
    models = options["generator"] or f"checkpoint {options['checkpoint']}"
    lead = [f"{len(record['prompts'])} prompts of {options['prompts']}, an image of each; {models}."]
    lead += [_seconds(record)]
    if bank:
        lead.append(
            f"{bank['rows']} random latents were drawn and embedded once for all prompts, in {bank['seconds']:.1f} s;"
            " the seconds of an image begin after that."
        )
    precision = next((clip["r_precision"] for row in ways for clip in row["clip"] if clip["r_precision"]), None)
    if precision:
        lead.append(
            f"R-precision is among {precision['distractors']} other prompts, {len(precision['repeats'])} times."
        )
    reference = ways[0]["reference"]
    if reference:
        lead.append(
            f"Frechet distance, kernel distance, precision and recall: to {reference['used']} real pictures, by"
            f" {reference['features']} features of {record['models']['features']['source']}."
            " They depend on the number of images: compare rows of one table."
        )
    if any(len(row["inception_score"]) > 1 and "class" not in row["inception_score"] for row in ways):
        lead.append("The inception score is the mean of those of the judge's classifications.")
    versions = ", ".join(f"{name} {version}" for name, version in record["versions"].items())
    return Page("Ways to an image", [*lead, f"Commit {record['commit'] or 'unknown'}; {versions}."], tables)


def _table(
    title: str, names: Sequence[str], found: Sequence[Mapping[str, str]], titles: Mapping[str, str], note: str
) -> Table:
    """Returns a table of the columns that any row has."""
    keys = [key for key in titles if any(cells.get(key, "-") != "-" for cells in found)]
    rows = [[name, *(cells.get(key, "-") for key in keys)] for name, cells in zip(names, found, strict=True)]
    return Table(title, ["", *(titles[key] for key in keys)], rows, note)


def _seconds(record: Record) -> str:
    cpu = record["device"] == "cpu"
    whose = f"the processor's, of {record['threads']} thread(s)" if cpu else f"the wall's, on {record['device']}"
    at_once = record["together"]
    return f"Seconds are {whose}; priors draw a prompt at a time, optimisers work on {at_once} at once."
