"""Measures the demo's class-conditional generator: `python -m demo.class_scores --generator DIR --judge DIR`.

The share of each class's samples that the judge recognises, and the comparison with renders that the avatars have.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from clip2latent.fidelity import fidelity
from clip2latent.generators import load_generator
from clip2latent.interfaces import ClassConditional
from clip2latent.judge import AttributeJudge, load_judge
from demo import single_objects
from demo.judge import HELD_OUT


@torch.no_grad()
def class_scores(generator: ClassConditional, judge: AttributeJudge, per_class: int, seed: int = 0) -> dict[str, Any]:
    """Compares samples, `per_class` of each class, with as many renders.

    Returns:
        "recognised" (the share of samples of its class, by class), their mean "recognised_mean" and least
        "recognised_least", and what `clip2latent.fidelity.fidelity` returns.

    Raises:
        ValueError: the generator and the judge do not name the same classes in the same order.
    """
    names = list(judge.attributes["class"])
    if list(generator.class_names) != names:
        raise ValueError(f"judge: expected one of classes {list(generator.class_names)}, got {names}")
    classes = torch.arange(len(names)).repeat(per_class)
    latents = generator.sample_latents(len(classes), torch.Generator().manual_seed(seed), classes)
    hits: list[Tensor] = []

    def images() -> Iterator[Tensor]:
        for rows, asked in zip(latents.split(250), classes.split(250), strict=True):
            chunk = generator.synthesize(rows)
            hits.append((judge.classify(chunk)["class"] == asked).float())
            yield chunk

    compared = fidelity(images(), judge, single_objects, len(classes), (HELD_OUT, seed))
    shares = torch.cat(hits).view(per_class, -1).mean(dim=0).tolist()
    summary = {"recognised_mean": sum(shares) / len(shares), "recognised_least": min(shares)}
    return {"recognised": dict(zip(names, shares, strict=True))} | summary | compared


def main() -> None:
    """Reads the command line and prints the scores as JSON."""
    parser = argparse.ArgumentParser(description="Measure the demo's class-conditional generator.")
    parser.add_argument("--generator", required=True, help="folder, or name of an embedded generator")
    parser.add_argument("--judge", required=True, help="folder of the judge of classes")
    parser.add_argument("--per_class", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    scores = class_scores(load_generator(args.generator), load_judge(args.judge), args.per_class, args.seed)
    print(json.dumps(scores, indent=1))


if __name__ == "__main__":
    main()
