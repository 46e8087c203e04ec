"""Compares ways to images of prompts, score against time: `python -m demo.refine_table --work DIR --out FILE`.

The prior alone, the prior refined, FuseDream from random latents, one latent optimised by plain CLIP, and random
search, on the demo's avatars, all prompts of a way in one batch. With --world objects label-guided search stands in the
prior's place, as that generator has classes, and no prior. FILE.md, FILE.json and FILE.png are the result. What is done
is not done again, and a way that was interrupted goes on, by the same command.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from clip2latent.assets import configs_folder

UNSEEN = 64
"""Views that images are scored by, seen by no way."""


def run(options: argparse.Namespace) -> None:
    """Makes what is missing and writes the result.

    Raises:
        ValueError: for prompts without attributes, and for a work folder of other settings.
    """
    import torch

    from clip2latent.prompts import read_prompts
    from demo.refine_ways import NotDone, Setting, check_work
    from demo.refine_worlds import WORLDS

    torch.set_num_threads(1)
    world = WORLDS[options.world]
    file = options.prompts or configs_folder() / "prompts" / world.prompts
    named = [prompt for prompt in read_prompts(file) if prompt.attributes]
    prompts = named[:: world.stride][: options.count or world.count]
    if not prompts:
        raise ValueError(f"prompts: {file} names no attributes that a judge could look for")
    texts = [prompt.text for prompt in prompts]
    pipeline = load(options.world)
    used = {"world": options.world, "prompts": texts, "views": options.views, "lr": options.lr, "decay": options.decay}
    used |= {"seed": options.seed, "preset": options.preset}
    used["sha256"] = {name: model["sha256"] for name, model in pipeline.identities().items()}
    check_work(options.work, used)
    with torch.no_grad():
        targets = pipeline.embedder.embed_text(texts)
    rows, entries = [], []
    setting = Setting(pipeline, texts, targets, options.views, options.seed, options.work, not options.report)
    with contextlib.suppress(NotDone):
        for found in world.ways(setting, options.lr, options.decay, options.preset == "smoke"):
            rows += found
            entries += score(setting, prompts, found, world.judge)
            write_report(options.out, setting, rows, entries, used)
    print(f"{options.out}.md, {options.out}.json, {options.out}.png" if rows else "nothing is done yet")


def load(world: str) -> Any:
    """Returns a world's models: the embedded prior's, or a generator of classes without one."""
    if world == "avatars":
        from clip2latent.text2image import TextToImage

        return TextToImage.from_pretrained("demo", "cpu")
    from clip2latent.embedders import load_embedder
    from clip2latent.generators import load_generator
    from clip2latent.priorless import Priorless, sampled_space
    from clip2latent.spec import ModelSpec

    models = {"generator": load_generator("demo-objects").eval().requires_grad_(False), "embedder": load_embedder()}
    config = {name: ModelSpec.of(f"demo {name}", {}, model).to_dict() for name, model in models.items()}
    return Priorless(**models, space=sampled_space(models["generator"]), device="cpu", config=config)


def score(setting: Any, prompts: Sequence[Any], rows: Sequence[Any], judge: str) -> list[dict[str, Any]]:
    """Returns the numbers of rows (key, name, Found), plain types; `judge` is the name of who reads the images."""
    from clip2latent.judge import load_judge
    from demo.refine_report import scored

    reads = load_judge(judge)
    return [{"key": key, "name": name} | scored(setting, found, prompts, reads, UNSEEN) for key, name, found in rows]


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
    sheet.quantize(256).save(out.with_name(f"{out.name}.png"), optimize=True)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder of what is done")
    parser.add_argument("--out", type=Path, required=True, help="the result: this name with .md, .json and .png")
    parser.add_argument("--world", choices=("avatars", "objects"), default="avatars")
    parser.add_argument("--prompts", type=Path, help="a file of prompts with attributes (default: the world's own)")
    parser.add_argument("--count", type=int, help="prompts taken of the file (default: 12, of objects 6)")
    parser.add_argument("--views", type=int, default=8, help="of an image at each step")
    parser.add_argument("--lr", type=float, default=0.2, help="learning rate of refinements, but for FuseDream's")
    parser.add_argument("--decay", choices=("constant", "cosine"), default="cosine", help="of that rate over the steps")
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
