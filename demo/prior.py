"""Trains the demo's prior and writes it as an asset: `python -m demo.prior --data DIR --work DIR --out DIR`.

The training is `python train.py fit --config configs/train/demo.yaml`, with any further options after "--"; it goes on
from the last checkpoint in the work folder. The last one is shipped: the learning rate ends there, and the best by the
CLIP score of a few prompts is of an earlier step and was seen to be worse on others.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path

from clip2latent.assets import configs_folder
from clip2latent.checkpoint import export_prior


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder that datagen wrote")
    parser.add_argument("--work", type=Path, required=True, help="folder of the run's checkpoints and logs")
    parser.add_argument("--out", type=Path, required=True, help="folder to write the prior to")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("options", nargs="*", help="further options of train.py fit")
    arguments = parser.parse_args()
    from clip2latent.cli_train import main as train

    options = ["fit", "--config", str(configs_folder() / "train/demo.yaml"), "--data.path", str(arguments.data)]
    options += [f"--seed_everything={arguments.seed}", f"--trainer.default_root_dir={arguments.work}"]
    options += [f"--validation.prompts={configs_folder() / 'prompts/demo-validation.jsonl'}", *arguments.options]
    if (arguments.work / "last.ckpt").exists():
        options.append("--ckpt_path=last")
    failed = train(options)
    if failed:
        return failed
    temporary = arguments.out.with_name(arguments.out.name + ".new")
    shutil.rmtree(temporary, ignore_errors=True)
    export_prior(arguments.work / "last.ckpt", temporary)
    shutil.rmtree(arguments.out, ignore_errors=True)
    temporary.rename(arguments.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
