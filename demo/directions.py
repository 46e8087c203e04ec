"""Remakes the demo's edit directions from prompts; the judge checks them: `python -m demo.directions --out DIR`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from clip2latent.direction_search import METHODS, find_direction
from clip2latent.directions import BUILT_IN, Direction, save_direction
from clip2latent.edit import move, parse_layers
from clip2latent.judge import AttributeJudge, load_judge
from clip2latent.metrics import accepted_values
from clip2latent.redraw import redraw
from clip2latent.sampling import Sampling
from clip2latent.text2image import TextToImage

# Men and women, young and old alike, so that neither is part of a direction.
PEOPLE = ("young man", "young woman", "old man", "old woman")
MOODS = ("smiling man", "smiling woman", "sad man", "sad woman")
AGES = ("young", "old", "smiling", "sad")


class Recipe(NamedTuple):
    """A direction: how people are drawn with and without it, and the attribute's value that the judge should then see.

    Attributes:
        positive: forms with it, {} for a person.
        negative: forms without it, all that it could be instead.
        attribute: the judge's.
        value: of the attribute.
        layers: those it is for, see `parse_layers`: chosen for what the judge says.
        scale: of what was found, so that strength 1 does what the name says.
        people: who is drawn.
    """

    positive: Sequence[str]
    negative: Sequence[str]
    attribute: str
    value: str
    layers: str = "0-"
    scale: float = 1.0
    people: Sequence[str] = PEOPLE


RECIPES = {
    "beard": Recipe(
        ("{} with a beard", "bearded {}"),
        ("{} without a beard", "{} with a moustache"),
        "beard",
        "beard",
        layers="0-3",
        scale=0.8,
    ),
    "dark-skin": Recipe(
        ("dark skinned {}", "{} with dark skin"),
        ("pale {}", "tanned {}", "brown skinned {}"),
        "skin",
        "dark",
    ),
    "glasses": Recipe(
        ("{} with glasses", "{} with spectacles"),
        ("{} without glasses", "{} with sunglasses"),
        "glasses",
        "glasses",
        layers="0-3",
        scale=1.3,
    ),
    "long-hair": Recipe(
        ("{} with long hair", "long haired {}"),
        ("{} with short hair", "{} with curly hair", "{} with spiky hair", "bald {}"),
        "hair_style",
        "long",
        layers="0-3",
    ),
    "night": Recipe(
        ("{} at night", "{} under the stars"),
        ("{} on a white background", "{} on a green background", "{} on a beach", "{} in a city"),
        "background",
        "night",
        scale=1.3,
    ),
    "old": Recipe(
        ("old {}", "elderly {}"),
        ("young {}", "middle aged {}"),
        "age",
        "old",
        layers="0-3",
        scale=1.3,
        people=MOODS,
    ),
    "smile": Recipe(
        ("smiling {}", "happy {}", "laughing {}"),
        ("calm {}", "sad {}", "angry {}", "surprised {}"),
        "expression",
        "smiling",
        layers="0-3",
        scale=1.5,
    ),
    "sunglasses": Recipe(
        ("{} with sunglasses", "{} with dark glasses"),
        ("{} without glasses", "{} with glasses"),
        "glasses",
        "sunglasses",
        layers="0-3",
        scale=1.4,
    ),
    "top-hat": Recipe(
        ("{} with a top hat",),
        ("{} without a hat", "{} with a cap", "{} with a beanie", "{} with a cowboy hat", "{} with a crown"),
        "hat",
        "top hat",
        layers="0-3",
        scale=1.5,
    ),
    "woman": Recipe(
        ("{} woman", "{} lady"),
        ("{} man", "{} guy"),
        "gender",
        "woman",
        layers="0-3",
        scale=0.8,
        people=AGES,
    ),
}


class Agreement(NamedTuple):
    """What the judge sees of a step of strength 1.

    Attributes:
        changed: of the images that were without the value, the share that have it after the step.
        kept: the share of readings of the other attributes that the step leaves as they were.
    """

    changed: float
    kept: float


def prompts_of(recipe: Recipe) -> tuple[list[str], list[str]]:
    """Returns the prompts with and without, form by form."""
    positive, negative = ([form.format(person) for form in side for person in recipe.people] for side in recipe[:2])
    return [_with_article(text) for text in positive], [_with_article(text) for text in negative]


def made(pipeline: TextToImage, name: str, method: str, num: int) -> Direction:
    """Finds a recipe's direction, for its layers and of its length, among samples as varied as the data's."""
    recipe = RECIPES[name]
    found = find_direction(pipeline, *prompts_of(recipe), name, method, num, Sampling(guidance=1.0))
    num_layers = pipeline.generator.latent_shape[0]
    nothing = torch.zeros(num_layers, found.vector.shape[1])
    vector = move(nothing, [(found.vector, recipe.scale)], parse_layers(recipe.layers, num_layers))
    return Direction(vector, {**found.description, "layers": recipe.layers, "scale": recipe.scale})


def agreement(
    pipeline: TextToImage, judge: AttributeJudge, vector: Tensor, recipe: Recipe, latents: Tensor, strength: float = 1.0
) -> Agreement:
    """Lets the judge read images before and after a step along a direction.

    Args:
        pipeline: draws them.
        judge: knows the recipe's attribute.
        vector: the direction, [1, D] or [L, D].
        recipe: what it should do.
        latents: where the steps start [B, L, D].
        strength: of the step.
    """
    wanted = accepted_values(recipe.attribute, recipe.value, judge.attributes)
    before = judge.classify(redraw(pipeline, latents).images)
    after = judge.classify(redraw(pipeline, move(latents, [(vector, strength)])).images)
    without = ~torch.isin(before[recipe.attribute], wanted)
    # The colour of a hat that is not there is anybody's guess.
    others = [name for name in judge.attributes if name not in (recipe.attribute, "hat_color")]
    changed = torch.isin(after[recipe.attribute], wanted)[without].double().mean()
    kept = torch.stack([(before[name] == after[name])[without].double().mean() for name in others]).mean()
    return Agreement(round(float(changed), 3), round(float(kept), 3))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=BUILT_IN, help="folder to write to")
    parser.add_argument("--checkpoint", default="demo", help="the demo's prior")
    parser.add_argument("--judge", default="demo", help="the judge of its attributes")
    parser.add_argument("--names", nargs="*", default=list(RECIPES), help="some of the directions only")
    parser.add_argument("--method", default="mean", choices=list(METHODS), help="how they are found")
    parser.add_argument("--num", type=int, default=24, help="samples of each prompt")
    parser.add_argument("--images", type=int, default=100, help="random images that the judge reads")
    arguments = parser.parse_args()
    pipeline, judge = TextToImage.from_pretrained(arguments.checkpoint), load_judge(arguments.judge)
    latents = pipeline.generator.sample_latents(arguments.images, torch.Generator().manual_seed(0)).cpu()
    for name in arguments.names:
        recipe = RECIPES[name]
        found = made(pipeline, name, arguments.method, arguments.num)
        seen = agreement(pipeline, judge, found.vector, recipe, latents)
        checked = {"attribute": recipe.attribute, "value": recipe.value, "images": len(latents), **seen._asdict()}
        save_direction(
            replace(found, description={**found.description, "judge": checked}),
            arguments.out / f"{name}.safetensors",
            True,
        )
        print(name, found.description["separation"], seen, flush=True)


def _with_article(text: str) -> str:
    return f"{'an' if text[0] in 'aeiou' else 'a'} {text}"


if __name__ == "__main__":
    main()
