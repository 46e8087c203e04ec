"""Compares the demo's prior at several noise scales: `python -m demo.noise_sweep --work DIR --out FILE`.

Noise makes an image's embedding pass for a text's (training.pseudo_text); the study is that of Pinkney and Li 2022,
figure 5, with a judge beside the CLIP score and with centring (bridge.Bridge) beside noise. FILE.md, FILE.json and
FILE.svg are the result. A prior that is trained is not trained again, one that was interrupted goes on, and further
scales may be added by the same command. Two processes may share a work folder as long as their scales differ.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from clip2latent.assets import configs_folder
from demo.make import PRIOR_BUDGETS
from demo.noise_runs import Interrupted, Settings, Way, score, train_way, write

ALPHAS = CENTRED = (0.0, 0.25, 0.5, 0.75, 1.0, 1.25)


def ways(alphas: Sequence[float], centred: Sequence[float]) -> list[Way]:
    """Returns the plain ways, then the centred ones, each by rising noise scale.

    Raises:
        ValueError: for a scale below 0, or none at all.
    """
    found = [Way(alpha, False) for alpha in sorted(set(alphas))] + [Way(alpha, True) for alpha in sorted(set(centred))]
    if not found or min(way.alpha for way in found) < 0:
        raise ValueError(f"alphas and centred: expected noise scales from 0, got {list(alphas)} and {list(centred)}")
    return found


def make_pairs(folder: Path, count: int, rows: int, seed: int) -> None:
    """Makes the demo's pairs, where they are not there yet."""
    from datagen.__main__ import main as datagen

    options = ["--config", str(configs_folder() / "datagen/demo.yaml"), "--out", str(folder)]
    if not (folder / "dataset.json").exists() and datagen(
        [*options, f"--count={count}", f"--rows_per_shard={rows}", f"--seed={seed}"]
    ):
        raise Interrupted("the pairs were not made")


def run(options: argparse.Namespace) -> None:
    """Makes what is missing and writes the result.

    Raises:
        ValueError: for options that do not fit, and for a work folder of other settings.
        Interrupted: a training ended early; the same command goes on.
    """
    chosen = ways(options.alphas, options.centred)
    smoke = options.preset == "smoke"
    count, rows, training = PRIOR_BUDGETS[options.preset]
    training = [*training, *(["--validation.images_per_prompt=1", "--validation.steps=1"] if smoke else [])]
    if options.steps:  # validated, and so saved, at the last step too
        interval = options.steps // 4 if options.steps % 4 == 0 else options.steps
        training += [f"--trainer.max_steps={options.steps}", f"--trainer.val_check_interval={interval}"]
    data = options.data or options.work / "pairs"
    if options.data is None:
        make_pairs(data, count, rows, options.seed)
    if not (data / "dataset.json").is_file():
        raise ValueError(f"data: {data} holds no finished dataset; without --data the demo's pairs are made")
    settings = Settings(
        data.resolve(),
        (*training, *options.options),
        configs_folder() / "prompts/demo-validation.jsonl",
        options.prompts,
        4 if smoke else None,
        options.num or (1 if smoke else 8),
        tuple(sorted(set(options.guidance))),
        options.seed,
        options.checkpoint,
    )
    scored = []
    for number, way in enumerate(chosen, 1):
        print(f"{way.name}: {number} of {len(chosen)}", flush=True)
        scored.append(score(way, train_way(way, settings, options.work), settings))
    from clip2latent.outputs import provenance
    from demo.noise_report import markdown, svg

    dataset = json.loads((data / "dataset.json").read_text())
    used = {"pairs": dataset["count"], "num": settings.num, "seed": options.seed, "training": list(settings.training)}
    used |= {"checkpoint": settings.checkpoint}
    used |= {"prompts": len(settings.prompts.read_text().splitlines()[: settings.limit]), "preset": options.preset}
    record = {"settings": used, "rows": [row for found in scored for row in found["rows"]]}
    models = {name: model for name, model in scored[0]["models"].items() if name != "prior"}
    record |= {"references": scored[0]["references"], "models": models, **provenance()}
    shown = [scale for scale in (options.plot or settings.guidances) if scale in settings.guidances]
    out = options.out
    write(out.with_name(f"{out.name}.svg"), svg(record["rows"], shown))
    write(out.with_name(f"{out.name}.md"), markdown(record, f"{out.name}.svg"))
    write(out.with_name(f"{out.name}.json"), json.dumps(record, indent=1) + "\n")
    print(f"{out}.md, {out}.json, {out}.svg")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder of pairs, checkpoints and scores")
    parser.add_argument("--out", type=Path, required=True, help="the result: this name with .md, .json and .svg")
    parser.add_argument("--data", type=Path, help="folder that datagen wrote (default: the demo's pairs are made)")
    parser.add_argument("--preset", choices=tuple(PRIOR_BUDGETS), default="cpu", help="pairs and steps, as demo.make's")
    parser.add_argument("--alphas", type=float, nargs="*", default=ALPHAS, help="noise scales")
    parser.add_argument("--centred", type=float, nargs="*", default=CENTRED, help="noise scales with centring before")
    parser.add_argument("--steps", type=int, help="training steps (default: the preset's)")
    parser.add_argument("--guidance", type=float, nargs="+", default=(1.0, 1.5, 2.0, 3.0), help="scales to compare")
    parser.add_argument("--plot", type=float, nargs="+", default=(1.0, 2.0), help="those of them to plot")
    parser.add_argument("--prompts", type=Path, default=configs_folder() / "prompts/demo.jsonl", help="to compare on")
    parser.add_argument("--num", type=int, help="images for each prompt (default: 8)")
    parser.add_argument(
        "--checkpoint",
        choices=("last", "best"),
        default="last",
        help="last: all after the same steps; best: each as the training's validation chose it, whatever its step",
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("options", nargs="*", help='further options of train.py fit, after "--"')
    try:
        run(parser.parse_args(arguments))
    except (Interrupted, KeyboardInterrupt) as error:
        print(f"stopped: {error or 'interrupted'}; the same command goes on from here", file=sys.stderr)
        return 1
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
