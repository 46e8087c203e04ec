"""What guidance's options do on the demo: `python -m demo.guidance_options`, which prints docs/guidance.md's table.

All rows draw the same prompts from the same noise with the embedded prior.
"""

from __future__ import annotations

import argparse
import itertools
from pathlib import Path
from typing import Any

from clip2latent import TextToImage
from clip2latent.assets import configs_folder
from clip2latent.judge import load_judge
from clip2latent.paired import MEASURES, estimate, measures
from clip2latent.progress import progress_bar
from clip2latent.prompts import read_prompts
from clip2latent.sampling import Sampling
from clip2latent.sweep_drawing import draw

INTERVAL = {"guidance_interval": (300, 970)}
RESCALE = {"guidance_rescale": 0.7}
LIMIT = {"guidance_limit": 1.0}
OPTIONS: tuple[dict[str, Any], ...] = (
    {},
    RESCALE,
    {"guidance_rescale": 1.0},
    INTERVAL,
    {"guidance_interval": (0, 900)},
    LIMIT,
    {"guidance_limit": 0.5},
    LIMIT | RESCALE,
    INTERVAL | RESCALE | {"guidance_limit": 2.0},
)
WAYS = ((1.5, 8), (3.0, 8), (5.0, 8), (5.0, 50), (10.0, 8))


def described(options: dict[str, Any]) -> str:
    """Returns options as the table names them, such as "rescale 0.7 and limit 1"."""
    values = {name: "..".join(map(str, it)) if isinstance(it, tuple) else f"{it:g}" for name, it in options.items()}
    return " and ".join(f"{name.removeprefix('guidance_')} {value}" for name, value in values.items()) or "none"


def main() -> None:
    """Draws, measures and prints one row after the other."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--num", type=int, default=8, help="images of each prompt")
    parser.add_argument("--prompts", type=Path, default=configs_folder() / "prompts/demo.jsonl")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    pipeline, judge, prompts = TextToImage.from_pretrained("demo"), load_judge("demo"), read_prompts(options.prompts)
    text = pipeline.embed_text([prompt.text for prompt in prompts])
    print("| guidance | steps | options | " + " | ".join(name.replace("_", " ") for name in MEASURES) + " |")
    print("|---" * (3 + len(MEASURES)) + "|")
    for (guidance, steps), own in itertools.product(WAYS, OPTIONS):
        sampling = Sampling(guidance, steps, seed=options.seed, **own)
        name = f"{guidance:g}, {steps} steps, {described(own)}"
        made = measures(draw(pipeline, prompts, sampling, options.num, judge, progress_bar, name).found, text)
        numbers = [estimate(made.get(name)) for name in MEASURES]
        cells = [f"{it.value:.3f} ± {it.stderr:.3f}" for it in numbers]
        print(f"| {guidance:g} | {steps} | {described(own)} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
