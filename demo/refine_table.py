"""Compares ways to images of prompts, score against time: `python -m demo.refine_table --work DIR --out FILE`.

The prior alone, the prior refined, FuseDream from random latents, one latent optimised by plain CLIP, and random
search, on the demo's avatars, all prompts of a way in one batch. FILE.md, FILE.json and FILE.png are the result. What
is done is not done again, and a way that was interrupted goes on, by the same command.
Label-guided search needs a generator of classes and has no row: the avatars' has none.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from demo.make import ROOT

MARKS = {"refined": (25, 50, 100, 250), "same": (25, 50, 100), "fusedream": (100, 250, 500, 1000)}
DIRECT = (100, 1000)
CANDIDATES, BASIS, RANDOM = 16, 5, 1000
UNSEEN = 64
"""Views that images are scored by, seen by no way."""


def run(options: argparse.Namespace) -> None:
    """Makes what is missing and writes the result.

    Raises:
        ValueError: for prompts without attributes, and for a work folder of other settings.
    """
    import torch

    from clip2latent.prompts import read_prompts
    from clip2latent.refine import Refining
    from clip2latent.text2image import TextToImage
    from demo.refine_ways import CHECK, Found, Setting, check_work, from_bank, from_prior, optimised

    torch.set_num_threads(1)
    prompts = [prompt for prompt in read_prompts(options.prompts) if prompt.attributes][: options.count]
    if not prompts:
        raise ValueError(f"prompts: {options.prompts} names no attributes that a judge could look for")
    texts = [prompt.text for prompt in prompts]
    smoke = options.preset == "smoke"
    marks = {key: (CHECK,) for key in MARKS} if smoke else MARKS
    direct, random = ((CHECK,), 32) if smoke else (DIRECT, RANDOM)
    used = {"prompts": texts, "views": options.views, "lr": options.lr, "seed": options.seed, "preset": options.preset}
    check_work(options.work, used)
    pipeline = TextToImage.from_pretrained("demo", "cpu")
    setting = Setting(pipeline, texts, pipeline.embed_text(texts), options.views, options.seed, options.work)
    rows: list[tuple[str, str, Found]] = []

    def refining(steps: int, lr: float) -> Refining:
        return Refining(steps, lr, patience=None, check=CHECK, seed=options.seed)

    def add(key: str, name: str, found: Sequence[Found], seconds: float, images: int) -> None:
        for one in found:
            whole = one._replace(seconds=one.seconds + seconds, images=one.images + images)
            rows.append((key, name.format(steps=one.steps), whole))

    def report() -> None:
        write_report(options.out, setting, prompts, rows, used)

    prior, seconds = from_prior(setting, CANDIDATES, BASIS)
    add("prior", f"prior, best of {CANDIDATES}", [Found(0, 0, 0.0, prior[:, 0])], seconds, CANDIDATES)
    found = optimised(setting, "refined", prior, refining(marks["refined"][-1], options.lr), marks["refined"])
    add("refined", "prior + {steps} steps", found, seconds, CANDIDATES)
    report()
    bank, seconds = from_bank(setting, random, BASIS)
    found = optimised(setting, "same", bank, refining(marks["same"][-1], options.lr), marks["same"])
    add("same", f"best {BASIS} of {random} random + {{steps}} steps", found, seconds, random)
    report()
    found = optimised(setting, "direct", bank[:, :1], refining(direct[-1], options.lr), direct, plain=True)
    add("direct", f"plain CLIP, one w, best of {random} random + {{steps}} steps", found, seconds, random)
    report()
    found = optimised(setting, "fusedream", bank, refining(marks["fusedream"][-1], 5e-3), marks["fusedream"])
    add("fusedream", f"FuseDream: best {BASIS} of {random} random + {{steps}} steps", found, seconds, random)
    drawn = random + marks["fusedream"][-1]
    searched, seconds = from_bank(setting, drawn, 1)
    add("random", f"random search, best of {drawn}", [Found(0, 0, 0.0, searched[:, 0])], seconds, drawn)
    report()
    print(f"{options.out}.md, {options.out}.json, {options.out}.png")


def write_report(out: Path, setting: Any, prompts: Sequence[Any], rows: Sequence[Any], used: dict[str, Any]) -> None:
    """Scores the rows (key, name, Found) and writes the table, its record, and a picture of the first prompts."""
    import torch

    from clip2latent.images import grid
    from clip2latent.judge import load_judge
    from clip2latent.outputs import provenance, write_json
    from demo.refine_report import markdown, scored

    judge = load_judge("demo")
    entries = [{"key": key, "name": name} | scored(setting, found, prompts, judge, UNSEEN) for key, name, found in rows]
    record = {"settings": used, "unseen_views": UNSEEN, "rows": entries, **provenance()}
    out.parent.mkdir(parents=True, exist_ok=True)
    write_json(out.with_name(f"{out.name}.json"), record)
    out.with_name(f"{out.name}.md").write_text(markdown(record), encoding="utf-8")
    last = {key: (name, found) for key, name, found in rows}.values()
    latents = torch.stack([found.latents for _, found in last], dim=1)[:8]
    images = setting.pipeline.draw(latents.flatten(0, 1)).unflatten(0, latents.shape[:2])
    sheet = grid(images, setting.prompts[:8], headings=[name for name, _ in last])
    sheet.save(out.with_name(f"{out.name}.png"))


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder of what is done")
    parser.add_argument("--out", type=Path, required=True, help="the result: this name with .md, .json and .png")
    parser.add_argument("--prompts", type=Path, default=ROOT / "configs/prompts/demo.jsonl", help="with attributes")
    parser.add_argument("--count", type=int, default=12, help="prompts taken of the file")
    parser.add_argument("--views", type=int, default=8, help="of an image at each step")
    parser.add_argument("--lr", type=float, default=0.02, help="learning rate, but for FuseDream's own, 0.005")
    parser.add_argument("--preset", choices=("full", "smoke"), default="full", help="smoke: few steps, for tests")
    parser.add_argument("--seed", type=int, default=0)
    try:
        run(parser.parse_args(arguments))
    except KeyboardInterrupt:
        print("interrupted: the same command goes on from here", file=sys.stderr)
        return 130
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
