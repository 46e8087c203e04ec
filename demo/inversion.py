"""Measures inversion: `python -m demo.inversion --work DIR` inverts held-out renders, and the judge reads the results.

Renders of the avatars by the demo's prior, or with --world objects those of one object by the generator of classes.
OUT.md and OUT.json (DIR/inversion) are the result; ways that are done already are not done again.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from clip2latent.cli_invert import RECORD, invert
from clip2latent.outputs import provenance, write_json

WORLDS: dict[str, dict[str, Any]] = {
    "avatars": {"judge": "demo-judge", "options": {"checkpoint": "demo"}, "spaces": ("w", "w+")},
    "objects": {"judge": "demo-class-judge", "options": {"generator": "demo-objects"}, "spaces": ("w",)},
}


def run(world: str, num: int, steps: Sequence[int], work: Path, out: Path, options: dict[str, Any]) -> dict[str, Any]:
    """Inverts renders in each space and with each number of steps, and returns and writes the table.

    Args:
        world: avatars or objects.
        num: renders, from the seed that nothing was trained on.
        steps: numbers of steps; 0 is the start alone.
        work: folder of the renders and of what the command invert wrote.
        out: the files' name, without ending.
        options: further arguments of the command.

    Raises:
        ValueError: for a work folder of other renders or options.
    """
    import importlib

    import torch

    from clip2latent.images import read_picture, to_pil
    from clip2latent.judge import load_judge
    from demo.data import UNKNOWN, labels, render, visible
    from demo.judge import HELD_OUT

    torch.set_num_threads(1)
    setting, about = {"world": world, "num": num, **options}, WORLDS[world]
    module = importlib.import_module("demo.avatars" if world == "avatars" else "demo.single_objects")
    _check_work(work, setting)
    batch, judge = render(module, HELD_OUT, range(num)), load_judge(about["judge"])
    wanted = labels(judge.attributes, [visible(module, row) for row in batch.attributes])
    files = [work / f"render-{index:03d}.png" for index in range(num)]
    for file, picture in zip(files, to_pil(batch.images), strict=True):
        picture.save(file)

    def read(images: torch.Tensor) -> dict[str, float]:
        found = judge.classify(images)
        shares = {name: found[name] == index for name, index in wanted.items()}
        scores = {name: float(hit[wanted[name] != UNKNOWN].float().mean()) for name, hit in shares.items()}
        return scores | {"mean": sum(scores.values()) / len(scores)}

    record = {**setting, "rows": [{"way": "the renders themselves", "accuracy": read(batch.images)}]}
    for count in steps:
        for space in about["spaces"][: 1 if count == 0 else None]:
            folder = work / f"{space}-{count}"
            if not (folder / "results.json").is_file():
                arguments = {**about["options"], **options, "steps": count, "space": space}
                invert([str(file) for file in files], out=str(folder), **arguments)
            told = json.loads((folder / RECORD).read_text(encoding="utf-8"))["pictures"]
            made = json.loads((folder / "results.json").read_text(encoding="utf-8"))["images"]
            images = torch.cat([read_picture(folder / entry["file"]) for entry in made])
            means = {name: sum(row["after"][name] for row in told) / num for name in told[0]["after"]}
            name = "start" if count == 0 else f"{space}, {count} steps"
            record["rows"].append({"way": name, "distances": means, "accuracy": read(images)})
            write_json(out.with_suffix(".json"), record | provenance())
            out.with_suffix(".md").write_text(table(record["rows"]), encoding="utf-8")
    return record


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Returns the rows as a table in Markdown."""
    names = list(rows[0]["accuracy"])
    head = ["", "pixels", "perceptual", "clip", *names]
    lines = [head, ["---"] * len(head)]
    for row in rows:
        distances = [f"{value:.3f}" for value in row.get("distances", {}).values()] or ["0"] * 3
        lines.append([row["way"], *distances, *(f"{row['accuracy'][name]:.2f}" for name in names[:-1])])
        lines[-1].append(f"{row['accuracy']['mean']:.3f}")
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def _check_work(work: Path, setting: dict[str, Any]) -> None:
    work.mkdir(parents=True, exist_ok=True)
    path = work / "setting.json"
    if path.is_file() and json.loads(path.read_text(encoding="utf-8")) != setting:
        raise ValueError(f"work: {work} holds results of another setting ({path}): name another folder")
    write_json(path, setting)


def main() -> None:
    """Reads the command line, inverts, and prints the table."""
    parser = argparse.ArgumentParser(description="Measure inversion on the demo's renders.")
    parser.add_argument("--work", type=Path, required=True, help="folder of renders and results")
    parser.add_argument("--out", type=Path, help="the table's name without ending (default: WORK/inversion)")
    parser.add_argument("--world", choices=WORLDS, default="avatars")
    parser.add_argument("--num", type=int, default=32, help="renders")
    parser.add_argument("--steps", type=int, nargs="+", default=[0, 100])
    parser.add_argument("--option", nargs="*", default=[], help="of the command invert, as lr=0.05 clip_weight=0")
    args = parser.parse_args()
    pairs = (word.partition("=") for word in args.option)
    options = {name: json.loads(value) for name, _, value in pairs}
    record = run(args.world, args.num, args.steps, args.work, args.out or args.work / "inversion", options)
    print(table(record["rows"]))


if __name__ == "__main__":
    main()
