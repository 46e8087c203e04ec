"""Trains the judge of classes: `python -m demo.class_judge --work DIR --out clip2latent/assets/demo-class-judge`.

The avatars' judge in all but what it reads: the one object's class, its colour and its ground.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from demo import single_objects
from demo.judge import PRESETS, train


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description="Train the judge of the objects.")
    parser.add_argument("--preset", choices=sorted(PRESETS), default="cpu")
    parser.add_argument("--work", type=Path, required=True, help="folder of the resumable state and the log")
    parser.add_argument("--out", type=Path, required=True, help="folder of the trained judge")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    train(single_objects, PRESETS[args.preset], args.work, args.out, args.seed, args.device)


if __name__ == "__main__":
    main()
