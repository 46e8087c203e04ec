"""What the refinement table found: its rows' scores, and the table in Markdown."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from clip2latent.judge import AttributeJudge
from clip2latent.metrics import judge_accuracy
from clip2latent.objectives import augclip_objective
from clip2latent.prompts import Prompt
from demo.refine_ways import Found, Setting
from demo.refine_worlds import PAPER, PLAIN, WORLDS

STREAM = 2**40
"""The unseen views' seed lies so far from the ways'."""


@torch.no_grad()
def scored(
    setting: Setting, found: Found, prompts: Sequence[Prompt], judge: AttributeJudge, views: int
) -> dict[str, Any]:
    """Returns a row's numbers, plain types: means over the prompts and their standard errors.

    Args:
        setting: models and prompts.
        found: a latent of each prompt, and what it cost.
        prompts: with attributes.
        judge: reads them off images.
        views: on which AugCLIP is taken, unseen by any way.
    """
    embedder, num = setting.pipeline.embedder, len(prompts)
    images = setting.pipeline.draw(found.latents)
    rng = torch.Generator().manual_seed(STREAM + setting.seed)
    augclip = 1 - augclip_objective(embedder, setting.targets, views=views, rng=rng, fixed=True)(images)
    clip = (embedder.embed_images(images) * setting.targets).sum(-1)
    seen = {name: values[:, None] for name, values in judge.classify(images).items()}
    accuracy = judge_accuracy(seen, [prompt.attributes for prompt in prompts], judge.attributes)
    by_prompt = {"clip": clip, "augclip": augclip, "judge": torch.tensor(accuracy.by_prompt)}
    numbers: dict[str, Any] = {"steps": found.steps, "images": found.images}
    numbers["seconds_per_prompt"] = round(found.seconds / num, 3)
    numbers["deviation"] = round(float(setting.pipeline.space.encode(found.latents).square().mean().sqrt()), 3)
    for name, values in by_prompt.items():
        numbers |= {name: round(float(values.mean()), 4), f"{name}_stderr": _error(values)}
    return numbers | {"by_prompt": {name: [round(x, 4) for x in v.tolist()] for name, v in by_prompt.items()}}


def markdown(record: Mapping[str, Any]) -> str:
    """Returns the table; `record` is refine_table's."""
    used, rows = record["settings"], record["rows"]
    world = WORLDS[used["world"]]
    lines = [
        f"# Refinement: score against time{'' if used['world'] == 'avatars' else ', on objects'}",
        "",
        f"{world.about}, {len(used['prompts'])} prompts, one image of each, seed {used['seed']}, {used['views']}"
        " views at each step; one thread of a CPU.",
        f"CLIP is the cosine of the image as it is, AugCLIP its mean over {record['unseen_views']} views that nothing"
        " was optimised or chosen by;",
        "judge is the share of the prompts' attributes that a classifier sees, mean over the prompts. ± is the standard"
        " error.",
        "Seconds are the processor's, for each prompt of the batch; random latents are drawn and embedded once for all"
        " of them.",
        "Deviation is the root mean square of the standardised latents; far above 1, the data's, images are no longer"
        " the generator's own.",
        "",
        "| way | images | s per prompt | AugCLIP | CLIP | judge | deviation |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        cells = [f"{row[name]:.3f} ± {row[f'{name}_stderr'] or 0:.3f}" for name in ("augclip", "clip", "judge")]
        first = f"{row['name']} | {row['images']} | {row['seconds_per_prompt']:.1f}"
        lines.append(f"| {first} | {' | '.join(cells)} | {row['deviation']:.2f} |")
    lines += ["", *_verdict(rows, world.start), ""]
    falls = ", falling along a cosine to 0 over a row's steps" if used["decay"] == "cosine" else ""
    lines += [f"Learning rate {used['lr']:g} standard deviations of the latents a step{falls}."]
    lines += [f"FuseDream's, {PAPER:g}, and plain CLIP's, {PLAIN:g}, stay as they are.", ""]
    if used["world"] == "avatars":
        lines += ["Rate, decay, pull and the lead of one candidate in the mixture were chosen on prompts of"]
        lines += ["configs/prompts/demo-validation.jsonl, none of which is in this table. Label-guided search needs a"]
        lines += ["generator of classes: [the table of the objects](refinement-objects.md) has it.", ""]
    words = "" if used["world"] == "avatars" else f" --world {used['world']}"
    lines += [f"Made by `python -m demo.refine_table{words}`, commit {record['commit'] or 'unknown'}.", ""]
    return "\n".join(lines)


def _verdict(rows: Sequence[Mapping[str, Any]], start: str) -> list[str]:
    """Says how long a start takes, refined, to the score of the longest FuseDream run."""
    goals = [row for row in rows if row["key"] == "fusedream"]
    if not goals:
        return ["FuseDream is not done yet."]
    goal = max(goals, key=lambda row: row["steps"])
    lines = []
    for key, how in (("refined", "with"), ("held", "with a pull and")):
        own = [row for row in rows if row["key"] == key]
        passed = [row for row in own if row["augclip"] >= goal["augclip"]]
        if passed:
            first = min(passed, key=lambda row: row["steps"])
            share = first["seconds_per_prompt"] / goal["seconds_per_prompt"]
            lines.append(
                f"{start} {how} {first['steps']} steps passes the AugCLIP of FuseDream's {goal['steps']} steps"
                f" in {100 * share:.2g} % of its time."
            )
        elif own:
            lines.append(f"{start} {how} at most {own[-1]['steps']} steps stays below FuseDream's {goal['steps']}.")
    return lines


def _error(values: Tensor) -> float | None:
    return round(float(values.std() / math.sqrt(len(values))), 4) if len(values) > 1 else None
