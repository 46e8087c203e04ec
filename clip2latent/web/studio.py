"""The studio: one model in memory, and what is done with it for a request."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from clip2latent.bank import Banks
from clip2latent.checkpoint import load_prior
from clip2latent.directions import Direction, built_in_directions, load_direction
from clip2latent.embedders import load_embedder
from clip2latent.generators import load_generator
from clip2latent.spec import ModelSpec
from clip2latent.text2image import TextToImage
from clip2latent.web import drawing, editing, optimising
from clip2latent.web.outcome import Outcome, Progress, Watch
from clip2latent.web.requests import Compose, Draw, Edit, Mix, Refine, Request

EMBEDDER = "demo"
"""The CLIP that compositions are compared by."""


@dataclass(frozen=True)
class Offer:
    """What a server offers; a request names nothing else.

    Attributes:
        checkpoints: as for `TextToImage.from_pretrained`.
        generators: for compositions, as for `load_generator`.
        directions: those that each checkpoint's generator can be edited along, by name.
    """

    checkpoints: tuple[str, ...]
    generators: tuple[str, ...]
    directions: Mapping[str, Mapping[str, Direction]]


def make_offer(checkpoints: Sequence[str], generators: Sequence[str] = (), files: Sequence[str] = ()) -> Offer:
    """Reads what the checkpoints say of themselves, so that a wrong name is an error when the server starts.

    Args:
        checkpoints: at least one.
        generators: for compositions.
        files: directions, beside the demo's own.

    Raises:
        ValueError: for checkpoints and directions that cannot be read, and for directions of no checkpoint's generator.
        FileNotFoundError: where there is none.
    """
    found = {name: load_direction(name) for name in built_in_directions()}
    for file in files:
        direction = load_direction(file)
        found[str(direction.description["name"])[:40]] = direction
    directions = {}
    for checkpoint in dict.fromkeys(checkpoints):
        config = load_prior(checkpoint).config
        width = config["prior"]["latent_dim"] if isinstance(config.get("prior"), dict) else None
        directions[checkpoint] = {
            name: direction
            for name, direction in found.items()
            if direction.is_of(config.get("generator")) and width in (None, direction.vector.shape[1])
        }
    for generator in dict.fromkeys(generators):
        load_generator(generator)
    unused = set(found) - set(built_in_directions()) - {name for each in directions.values() for name in each}
    if unused:
        raise ValueError(f"direction {', '.join(sorted(unused))}: expected one of a generator of these checkpoints")
    return Offer(tuple(directions), tuple(dict.fromkeys(generators)), directions)


class Studio:
    """Does what requests ask for, with one model in memory; for one thread."""

    def __init__(self, offer: Offer, device: str | torch.device | None = None) -> None:
        """Takes what is offered; nothing is loaded yet.

        Args:
            offer: from `make_offer`.
            device: where to run; None takes CUDA where there is one.
        """
        self.offer = offer
        self.device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        self.held: tuple[tuple[str, str], Any] | None = None
        self.starts = editing.Starts()

    def run(self, request: Request, watch: Watch | None = None) -> Outcome:
        """Does what a request asks for.

        Args:
            request: its model is one of the offer.
            watch: told how far the work is, and asked whether to go on.

        Raises:
            ValueError: for a model or a direction that is not offered, and what the model cannot do.
            Stopped: where the visitor stopped the work before there was anything to show.
        """
        watch = watch or Watch()
        if isinstance(request, Compose):
            return optimising.compose(self._banks(request.generator, watch), request, watch)
        pipeline = self._pipeline(request.model, watch)
        if isinstance(request, Draw):
            return drawing.draw(pipeline, request, watch)
        if isinstance(request, Refine):
            return optimising.refine(pipeline, request, watch)
        if isinstance(request, Edit):
            known = self.offer.directions[request.model]
            return editing.edit(pipeline, request, known, self.starts, watch)
        if isinstance(request, Mix):
            return editing.mix(pipeline, request, self.starts, watch)
        raise TypeError(f"no request: {type(request).__name__}")

    def _pipeline(self, name: str, watch: Watch) -> TextToImage:
        if name not in self.offer.checkpoints:
            raise ValueError(f"model={str(name)[:80]!r}: expected one of {', '.join(self.offer.checkpoints)}")
        return self._hold(("checkpoint", name), watch, lambda: TextToImage.from_pretrained(name, self.device))

    def _banks(self, name: str, watch: Watch) -> optimising.Behind:
        if name not in self.offer.generators:
            expected = ", ".join(self.offer.generators) or "none, as this server composes nothing"
            raise ValueError(f"generator={str(name)[:80]!r}: expected one of {expected}")

        def load() -> optimising.Behind:
            generator = load_generator(name).to(self.device).eval().requires_grad_(False)
            embedder = load_embedder(EMBEDDER).to(self.device).eval().requires_grad_(False)
            path = "clip2latent.generators.load_generator"
            models = {
                "generator": ModelSpec.of(path, {"source": name}, generator).to_dict(),
                "embedder": ModelSpec.of(EMBEDDER, {}, embedder).to_dict(),
            }
            # Kept nowhere: a bank belongs to a seed, and visitors choose seeds.
            return optimising.Behind(Banks(generator, embedder, None, self.device), models)

        return self._hold(("generator", name), watch, load)

    def _hold(self, key: tuple[str, str], watch: Watch, load: Any) -> Any:
        """Returns a model, which takes the place of the one in memory where that is another."""
        watch.check()
        if self.held is None or self.held[0] != key:
            self.held = None  # freed before the next one is loaded
            self.starts.clear()
            if self.device != "cpu" and torch.cuda.is_available():
                torch.cuda.empty_cache()
            watch.tell(Progress(f"loading {key[1]}", 0, 0))
            self.held = key, load()
        return self.held[1]
