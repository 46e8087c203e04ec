"""Robustness studies of FuseDream on the demo: `python -m demo.studies [STUDY ...] --work DIR --out NAME`.

attack: pictures of another class, perturbed within a budget, to score high by CLIP and by AugCLIP.
start: an optimisation that starts from an image of another class, by CLIP and by AugCLIP.
ablation: FuseDream without one of its parts, and with CMA-ES in place of Adam (needs the package `cma`).

NAME.md and NAME.json hold all that is done, NAME-STUDY.svg its plots. What is done is not done again; the same command
goes on after an interruption.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from clip2latent.assets import configs_folder

if TYPE_CHECKING:
    from demo.study_cells import Scale

STUDIES = ("attack", "start", "ablation")
SMOKE = {"pictures": 2, "starts": 2, "prompts": 2, "searched": (10, 12), "steps": 2, "views": 2, "seeds": 1}


def run(options: argparse.Namespace) -> None:
    """Makes what is missing of the studies asked for, and writes what there is of all.

    Raises:
        ValueError: for prompts without attributes, and a work folder of other settings.
    """
    from clip2latent.outputs import provenance, write_json
    from clip2latent.prompts import read_prompts
    from demo.refine_ways import check_work
    from demo.study_cells import Scale, made
    from demo.study_report import markdown, plot, rows_of

    for name, value in SMOKE.items() if options.preset == "smoke" else ():
        setattr(options, name, value)
    prompts = [prompt for prompt in read_prompts(options.file) if prompt.attributes]
    if not 1 <= options.prompts <= len(prompts):
        raise ValueError(
            f"prompts={options.prompts}: expected 1 to the {len(prompts)} with attributes of {options.file}"
        )
    chosen = tuple(prompts[index * len(prompts) // options.prompts] for index in range(options.prompts))
    numbers = {name: value for name, value in vars(options).items() if name in Scale._fields}
    lists = {"prompts": chosen, "searched": tuple(options.searched), "budgets": tuple(options.budgets)}
    scale = Scale(**numbers | lists)
    check_work(options.work, scale.settings())
    if not options.report:
        make(options, scale)
    found = {}
    for name in STUDIES:
        if records := made(options.work / name):
            found[name] = rows_of(records, over_seeds=name == "ablation")
    options.out.parent.mkdir(parents=True, exist_ok=True)
    record = {"settings": scale.settings(), "studies": found, **provenance()}
    write_json(options.out.with_name(f"{options.out.name}.json"), record)
    options.out.with_name(f"{options.out.name}.md").write_text(markdown(record, options.out.name), encoding="utf-8")
    for name, rows in found.items():
        options.out.with_name(f"{options.out.name}-{name}.svg").write_text(
            plot(name, rows, scale.settings()), encoding="utf-8"
        )
    print(f"{options.out}.md holds {', '.join(found) or 'nothing yet'}")


def make(options: argparse.Namespace, scale: Scale) -> None:
    """Makes what is missing of the studies asked for."""
    import torch

    from clip2latent.embedders import load_embedder
    from clip2latent.generators import load_generator
    from clip2latent.judge import load_judge
    from demo.study_cells import Models, make_missing

    torch.set_num_threads(1)
    judge = load_judge("demo-class-judge")
    models = Models(load_generator("demo-objects"), load_embedder("demo"), judge, options.work / "banks")
    for name in options.studies:
        make_missing(importlib.import_module(f"demo.study_{name}").cells(models, scale), options.work / name)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("studies", nargs="*", metavar="STUDY", help=f"of {', '.join(STUDIES)}; none for all")
    parser.add_argument("--work", type=Path, required=True, help="folder of what is done")
    parser.add_argument("--out", type=Path, required=True, help="the result: this name with .md, .json, -STUDY.svg")
    parser.add_argument("--pictures", type=int, default=32, help="that are attacked")
    parser.add_argument("--budgets", type=int, nargs="+", default=[1, 2, 4, 8, 16], help="of the attack, of 255")
    parser.add_argument("--starts", type=int, default=16, help="images that an optimisation starts from")
    parser.add_argument("--prompts", type=int, default=20, help="of the ablation, evenly spaced in the file")
    parser.add_argument("--file", type=Path, default=configs_folder() / "prompts/demo-objects.jsonl", help="of prompts")
    parser.add_argument("--searched", type=int, nargs="+", default=[200, 20, 1000], help="M: usual number, then others")
    parser.add_argument("--steps", type=int, default=60, help="of an optimiser")
    parser.add_argument("--views", type=int, default=8, help="of an image at each step")
    parser.add_argument("--lr", type=float, default=0.02, help="learning rate, in deviations of the latents")
    parser.add_argument("--seeds", type=int, default=1, help="how often everything is done")
    parser.add_argument("--seed", type=int, default=0, help="the first")
    parser.add_argument("--preset", choices=("full", "smoke"), default="full", help="smoke: a minute, for tests")
    parser.add_argument("--report", action="store_true", help="write what there is, and do nothing more")
    options = parser.parse_args(arguments)
    unknown = sorted(set(options.studies) - set(STUDIES))
    if unknown:
        parser.error(f"unknown study {', '.join(unknown)}: expected some of {', '.join(STUDIES)}")
    options.studies = options.studies or list(STUDIES)
    try:
        run(options)
    except KeyboardInterrupt:
        print("interrupted: the same command goes on from here", file=sys.stderr)
        return 130
    except (ModuleNotFoundError, ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
