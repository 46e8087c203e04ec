"""The objects world with one object a picture: what a generator of classes is trained on and measured against.

Pictures of two objects have no single class, so they are left out; all else is drawn as in `demo.objects`.
Every picture and caption is a pure function of (seed, index).
"""

import numpy as np

from demo import objects
from demo.objects import WORDS, caption, draw, parse
from demo.pen import Example

__all__ = ["ATTRIBUTES", "WORDS", "caption", "draw", "example", "parse", "sample_attributes", "visible"]

ATTRIBUTES: dict[str, tuple[str, ...]] = {name: objects.ATTRIBUTES[name] for name in ("class", "color", "ground")}


def example(seed: int, index: int) -> Example:
    """Returns the picture, attributes and caption number `index` of the stream `seed`."""
    rng = np.random.default_rng((seed, index))
    attributes = sample_attributes(rng)
    return Example(draw(attributes, rng), attributes, caption(attributes, rng))


def sample_attributes(rng: np.random.Generator) -> dict[str, str]:
    """Returns one value per attribute of `demo.objects`, "none" for those of a second object."""
    return objects.sample_attributes(rng) | {"second_class": "none", "second_color": "none"}


def visible(attributes: dict[str, str]) -> dict[str, str]:
    """Returns the attributes of the one object; all of them can be seen."""
    return {name: attributes[name] for name in ATTRIBUTES}
