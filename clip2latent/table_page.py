"""The page of a table of ways to images: scores, seconds and what they were measured by."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from clip2latent.comparison_page import COLUMNS, scored_cells
from clip2latent.html_page import Page, Table, number

Record = Mapping[str, Any]
SECONDS, AUGCLIP = "s per image", "AugCLIP"


def table_page(record: Record) -> Page:
    """Returns the page of what table wrote to metrics.json."""
    ways, options, bank = record["ways"], record["options"], record["bank"]
    found = [scored_cells(row) for row in ways]
    for cells, row in zip(found, ways, strict=True):
        cells["augclip"] = number(row["augclip"], row["augclip_stderr"])
        cells["seconds"] = "-" if row["seconds"] is None else f"{row['seconds']:.3g}"
    names = {"seconds": SECONDS, **{key: name for key, name in COLUMNS.items() if key != "pictures"}}
    names = {key: name for key, name in names.items() if any(cells.get(key, "-") != "-" for cells in found)}
    order = ["seconds", "clip_score", "augclip"]
    names = {key: {**names, "augclip": AUGCLIP}[key] for key in [*order, *(key for key in names if key not in order)]}
    rows = [[row["name"], *(cells.get(key, "-") for key in names)] for cells, row in zip(found, ways, strict=True)]
    note = (
        "± is one standard error over the prompts; for R-precision, inception score and kernel distance the deviation"
        f" between repeats, splits and subsets. AugCLIP: mean cosine over {record['views']} random views of the image"
        " that nothing was optimised or chosen by."
    )
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
    if any(len(row["inception_score"]) > 1 for row in ways):
        lead.append("The inception score is the mean of those of the judge's classifications.")
    versions = ", ".join(f"{name} {version}" for name, version in record["versions"].items())
    return Page(
        "Ways to an image",
        [*lead, f"Commit {record['commit'] or 'unknown'}; {versions}."],
        [Table("", ["", *names.values()], rows, note)],
    )


def _seconds(record: Record) -> str:
    cpu = record["device"] == "cpu"
    whose = f"the processor's, of {record['threads']} thread(s)" if cpu else f"the wall's, on {record['device']}"
    at_once = record["together"]
    return f"Seconds are {whose}; priors draw a prompt at a time, optimisers work on {at_once} at once."
