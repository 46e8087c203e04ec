"""What the refinement table compares: on the demo's avatars, which have a prior, and on its objects, without one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from torch import Tensor

from clip2latent.refine import Refining
from clip2latent.refinement import RECOMMENDED
from demo.refine_ways import CHECK, Found, Setting, from_bank, from_labels, from_prior, optimised

Rows = list[tuple[str, str, Found]]
"""Of each row, the way's key, the row's name, and what was found."""
BASIS, PAPER, PLAIN = 5, 5e-3, 0.05
"""Members of a basis, and the learning rates of FuseDream and of plain CLIP, which stay as they are."""


class Numbers(NamedTuple):
    """How much each way of a world does: the steps that rows are of, and the images that are drawn at random."""

    marks: Mapping[str, Sequence[int]]
    random: int
    candidates: int


AVATARS = Numbers(
    {
        "held": (25, 50, 100),
        "refined": (25, 50, 75, 100, 250),
        "same": (25, 50, 100),
        "direct": (100, 1000),
        "fusedream": (100, 250, 500, 1000),
    },
    1000,
    16,
)
OBJECTS = Numbers(
    {"refined": (50, 100), "same": (100,), "direct": (100,), "guided": (100,), "fusedream": (100, 250)},
    1000,
    100,
)


def avatars(setting: Setting, lr: float, decay: str, smoke: bool) -> Iterator[Rows]:
    """Yields the rows of each way on the avatars.

    Args:
        setting: models and prompts.
        lr: learning rate of all but FuseDream and plain CLIP.
        decay: of that rate, see `clip2latent.refine.DECAYS`.
        smoke: few steps and images, for tests.
    """
    numbers = _few(AVATARS) if smoke else AVATARS
    prior, seconds = from_prior(setting, numbers.candidates, BASIS)
    cost = Found(0, numbers.candidates, seconds, prior[:, 0])
    yield [("prior", f"prior, best of {numbers.candidates}", cost)]
    yield _each(setting, numbers, "held", f"prior, pull {RECOMMENDED.pull:g}", prior, cost, lr, decay)
    yield _each(setting, numbers, "refined", "prior", prior, cost, lr, decay)
    yield from _from_random(setting, numbers, lr, decay)
    bank, cost = _random(setting, numbers)
    start = f"plain CLIP, one w, best of {numbers.random} random"
    yield _one(setting, numbers, "direct", start, bank[:, :1], cost, PLAIN)


def objects(setting: Setting, lr: float, decay: str, smoke: bool) -> Iterator[Rows]:
    """Yields the rows of each way on the objects, whose generator has classes; the arguments are those of `avatars`."""
    numbers = _few(OBJECTS) if smoke else OBJECTS
    drawn = numbers.candidates
    for k in (1, 5):
        found, seconds = from_labels(setting, drawn, BASIS, k)
        cost = Found(0, drawn, seconds, found[:, 0])
        yield [("labels", f"label-guided search, {k} class{'es' if k > 1 else ''}, best of {drawn}", cost)]
    start = f"best {BASIS} of {drawn} label-guided, {k} classes"
    yield _each(setting, numbers, "refined", start, found, cost, lr, decay)
    yield _one(setting, numbers, "guided", f"FuseDream: {start}", found, cost, PAPER)
    start = f"plain CLIP, one latent, best of {drawn} label-guided"
    yield _one(setting, numbers, "direct", start, found[:, :1], cost, PLAIN)
    yield from _from_random(setting, numbers, lr, decay)


class World(NamedTuple):
    """A demo's generator, with what prompts it draws and who reads its images.

    Attributes:
        prompts: the file's name in configs/prompts.
        stride: every which of its prompts is taken.
        count: prompts taken.
        judge: its name.
        ways: yields the rows.
        about: what the table says of it.
        start: what its refined rows start from.
    """

    prompts: str
    stride: int
    count: int
    judge: str
    ways: Callable[[Setting, float, str, bool], Iterator[Rows]]
    about: str
    start: str


WORLDS = {
    "avatars": World("demo.jsonl", 1, 12, "demo", avatars, "The demo's avatars", "The prior"),
    "objects": World(
        "demo-objects.jsonl",
        10,
        6,
        "demo-class-judge",
        objects,
        "The demo's objects, without a prior",
        "Label-guided search",
    ),
}


def _few(numbers: Numbers) -> Numbers:
    return Numbers(dict.fromkeys(numbers.marks, (CHECK,)), 32, 16)


def _random(setting: Setting, numbers: Numbers) -> tuple[Tensor, Found]:
    """The best of the random latents [P, M, L, D], and their cost."""
    bank, seconds = from_bank(setting, numbers.random, BASIS)
    return bank, Found(0, numbers.random, seconds, bank[:, 0])


def _from_random(setting: Setting, numbers: Numbers, lr: float, decay: str) -> Iterator[Rows]:
    """Rows of mixtures of random latents, of FuseDream's, and of a search among as many images."""
    bank, cost = _random(setting, numbers)
    start = f"best {BASIS} of {numbers.random} random"
    yield _each(setting, numbers, "same", start, bank, cost, lr, decay)
    yield _one(setting, numbers, "fusedream", f"FuseDream: {start}", bank, cost, PAPER)
    yield [_searched(setting, numbers.random + numbers.marks["fusedream"][-1])]


def _searched(setting: Setting, drawn: int) -> tuple[str, str, Found]:
    found, seconds = from_bank(setting, drawn, 1)
    return "random", f"random search, best of {drawn}", Found(0, drawn, seconds, found[:, 0])


def _one(setting: Setting, numbers: Numbers, key: str, name: str, basis: Tensor, cost: Found, rate: float) -> Rows:
    """Rows of one run at a constant rate, looked at on its way."""
    marks = numbers.marks[key]
    refining = Refining(marks[-1], rate, patience=None, check=CHECK, seed=setting.seed)
    return _rows(key, name, optimised(setting, key, basis, refining, marks, plain=key == "direct"), cost)


def _each(
    setting: Setting, numbers: Numbers, key: str, name: str, basis: Tensor, cost: Found, rate: float, decay: str
) -> Rows:
    """Rows of a run each, as a rate that decays depends on the steps there are."""
    rows, pull = [], RECOMMENDED.pull if key == "held" else 0.0
    for steps in numbers.marks[key]:
        how = {"steps": steps, "lr": rate, "decay": decay, "pull": pull, "patience": None, "seed": setting.seed}
        refining = replace(RECOMMENDED, check=CHECK, **how)
        rows += _rows(key, name, optimised(setting, f"{key}-{steps}", basis, refining, [steps]), cost)
    return rows


def _rows(key: str, name: str, found: Sequence[Found], cost: Found) -> Rows:
    """Names what was found, and adds what the start had cost."""
    return [
        (
            key,
            f"{name} + {one.steps} steps",
            one._replace(seconds=one.seconds + cost.seconds, images=one.images + cost.images),
        )
        for one in found
    ]
