"""Compares ways to images of prompts, score against time: `python -m demo.refine_table --work DIR --out FILE`.

The prior alone, the prior refined, FuseDream from random latents, one latent optimised by plain CLIP, and random
search, on the demo's avatars, all prompts of a way in one batch. FILE.md, FILE.json and FILE.png are the result. What
is done is not done again, and a way that was interrupted goes on, by the same command.
Label-guided search needs a generator of classes and has no row: the avatars' has none.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from demo.make import ROOT

MARKS = {
    "refined": (25, 50, 75, 100, 250),
    "same": (25, 50, 100),
    "direct": (100, 1000),
    "fusedream": (100, 250, 500, 1000),
}
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
    from clip2latent.text2image import TextToImage
    from demo.refine_ways import NotDone, Setting, check_work

    torch.set_num_threads(1)
    prompts = [prompt for prompt in read_prompts(options.prompts) if prompt.attributes][: options.count]
    if not prompts:
        raise ValueError(f"prompts: {options.prompts} names no attributes that a judge could look for")
    texts = [prompt.text for prompt in prompts]
    smoke = options.preset == "smoke"
    pipeline = TextToImage.from_pretrained("demo", "cpu")
    used = {"prompts": texts, "views": options.views, "lr": options.lr, "seed": options.seed, "preset": options.preset}
    used["sha256"] = {name: model["sha256"] for name, model in pipeline.identities().items()}
    check_work(options.work, used)
    targets, rows, entries = pipeline.embed_text(texts), [], []
    setting = Setting(pipeline, texts, targets, options.views, options.seed, options.work, not options.report)
    with contextlib.suppress(NotDone):
        for found in ways(setting, options.lr, smoke):
            rows += found
            entries += score(setting, prompts, found)
            write_report(options.out, setting, rows, entries, used)
    print(f"{options.out}.md, {options.out}.json, {options.out}.png" if rows else "nothing is done yet")


def ways(setting: Any, lr: float, smoke: bool) -> Iterator[list[tuple[str, str, Any]]]:
    """Yields each way's rows, (key, name, Found).

    Args:
        setting: a `refine_ways.Setting`.
        lr: learning rate of all but FuseDream.
        smoke: few steps and images, for tests.
    """
    from clip2latent.refine import Refining
    from demo.refine_ways import CHECK, Found, from_bank, from_prior, optimised

    marks = {key: (CHECK,) for key in MARKS} if smoke else MARKS
    random = 32 if smoke else RANDOM

    def refined(key: str, name: str, basis: Any, cost: Found, rate: float = lr) -> list[tuple[str, str, Any]]:
        refining = Refining(marks[key][-1], rate, patience=None, check=CHECK, seed=setting.seed)
        found = optimised(setting, key, basis, refining, marks[key], plain=key == "direct")
        return [
            (
                key,
                f"{name} + {one.steps} steps",
                one._replace(seconds=one.seconds + cost.seconds, images=one.images + cost.images),
            )
            for one in found
        ]

    prior, seconds = from_prior(setting, CANDIDATES, BASIS)
    cost = Found(0, CANDIDATES, seconds, prior[:, 0])
    yield [("prior", f"prior, best of {CANDIDATES}", cost)]
    yield refined("refined", "prior", prior, cost)
    bank, seconds = from_bank(setting, random, BASIS)
    cost = Found(0, random, seconds, bank[:, 0])
    yield refined("same", f"best {BASIS} of {random} random", bank, cost)
    yield refined("fusedream", f"FuseDream: best {BASIS} of {random} random", bank, cost, 5e-3)
    drawn = random + marks["fusedream"][-1]
    searched, seconds = from_bank(setting, drawn, 1)
    yield [("random", f"random search, best of {drawn}", Found(0, drawn, seconds, searched[:, 0]))]
    yield refined("direct", f"plain CLIP, one w, best of {random} random", bank[:, :1], cost)


def score(setting: Any, prompts: Sequence[Any], rows: Sequence[Any]) -> list[dict[str, Any]]:
    """Returns the numbers of rows (key, name, Found), plain types."""
    from clip2latent.judge import load_judge
    from demo.refine_report import scored

    judge = load_judge("demo")
    return [{"key": key, "name": name} | scored(setting, found, prompts, judge, UNSEEN) for key, name, found in rows]


def write_report(
    out: Path, setting: Any, rows: Sequence[Any], entries: Sequence[dict[str, Any]], used: dict[str, Any]
) -> None:
    """Writes the table, its record, and a picture of the first prompts.

    Args:
        out: the result's name.
        setting: a `refine_ways.Setting`.
        rows: (key, name, Found).
        entries: their numbers.
        used: what they were made with, plain types.
    """
    import torch

    from clip2latent.images import grid
    from clip2latent.outputs import provenance, write_json
    from demo.refine_report import markdown

    record = {"settings": used, "unseen_views": UNSEEN, "rows": list(entries), **provenance()}
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
    parser.add_argument("--lr", type=float, default=0.05, help="learning rate, but for FuseDream's own, 0.005")
    parser.add_argument("--preset", choices=("full", "smoke"), default="full", help="smoke: few steps, for tests")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--report", action="store_true", help="write what there is, and do nothing more")
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
