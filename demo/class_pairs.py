"""Pictures of one object in pairs of one class: numbers 2k and 2k + 1 are of class k, round and round.

A discriminator that sees both pictures of a pair at once tells a generator whose samples of a class are all alike.
"""

import numpy as np

from demo import single_objects
from demo.pen import Example
from demo.single_objects import ATTRIBUTES, caption, draw, visible

__all__ = ["ATTRIBUTES", "example", "visible"]


def example(seed: int, index: int) -> Example:
    """Returns the picture, attributes and caption number `index` of the stream `seed`."""
    rng = np.random.default_rng((seed, index))
    classes = ATTRIBUTES["class"]
    attributes = single_objects.sample_attributes(rng) | {"class": classes[index // 2 % len(classes)]}
    return Example(draw(attributes, rng), attributes, caption(attributes, rng))
