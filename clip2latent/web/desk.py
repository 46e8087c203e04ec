"""The desk: takes what the page's fields hold, as it was sent, and answers with what the page shows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from clip2latent.web import markup
from clip2latent.web.limits import KEPT
from clip2latent.web.outcome import Stopped
from clip2latent.web.pictures import read_upload
from clip2latent.web.requests import Compose, Draw, Edit, Mix, Options, Refine, Request, read_lines
from clip2latent.web.worker import Worker


class View(NamedTuple):
    """What a tab shows, as HTML: its status, and its pictures; None leaves those that are there."""

    status: str
    pictures: str | None = None


class Desk:
    """Answers for a worker. Each method yields views until the request has ended; values come as they were sent."""

    def __init__(self, worker: Worker) -> None:
        """Takes the worker."""
        self.worker = worker

    def draw(
        self,
        owner: str,
        model: Any,
        prompt: Any,
        num: Any,
        candidates: Any,
        guidance: Any,
        steps: Any,
        seed: Any,
        truncation: Any,
        negative: Any,
        picture: Any,
        weight: Any,
    ) -> Iterator[View]:
        """Draws the lines of a text, and a picture."""

        def build() -> Draw:
            options = Options(num, candidates, guidance, steps, seed, truncation, negative)
            return Draw(model, read_lines(prompt), options, read_upload(picture, weight))

        return self._answer(build, owner)

    def refine(self, owner: str, model: Any, prompt: Any, num: Any, steps: Any, seed: Any) -> Iterator[View]:
        """Refines images of a prompt."""
        return self._answer(lambda: Refine(model, prompt, num, steps, seed), owner)

    def edit(
        self,
        owner: str,
        names: Sequence[str],
        model: Any,
        prompt: Any,
        num: Any,
        seed: Any,
        truncation: Any,
        *strengths: Any,
    ) -> Iterator[View]:
        """Edits images of a prompt along the named directions."""

        def build() -> Edit:
            if len(strengths) != len(names):
                raise ValueError(f"strengths={len(strengths)}: expected {len(names)}, one for each direction")
            return Edit(model, prompt, num, seed, tuple(zip(names, strengths, strict=True)), truncation)

        return self._answer(build, owner)

    def mix(self, owner: str, model: Any, prompt: Any, style: Any, layers: Any, num: Any, seed: Any) -> Iterator[View]:
        """Mixes layers of images of two prompts."""
        return self._answer(lambda: Mix(model, prompt, style, layers, num, seed), owner)

    def compose(
        self,
        owner: str,
        generator: Any,
        prompt: Any,
        foreground: Any,
        background: Any,
        scale: Any,
        places: Any,
        steps: Any,
        seed: Any,
    ) -> Iterator[View]:
        """Composes two images."""

        def build() -> Compose:
            if not isinstance(places, list) or len(places) > KEPT:
                raise ValueError("places: expected a list of places")
            return Compose(generator, prompt, foreground, background, scale, tuple(places), steps, seed)

        return self._answer(build, owner)

    def stop(self, owner: str) -> None:
        """Stops what its owner waits for."""
        if owner:
            self.worker.stop(owner)

    def _answer(self, build: Callable[[], Request], owner: str) -> Iterator[View]:
        try:
            job = self.worker.submit(build(), owner)
        except ValueError as error:
            yield View(markup.failure(str(error)))
            return
        try:
            for progress in job.follow():
                yield View(markup.working(progress), markup.gallery(progress.shots) if progress.shots else None)
            result = job.result()
            yield View(markup.remark(result.note), markup.outcome(result))
        except Stopped:
            yield View(markup.remark("stopped"))
        except (ValueError, RuntimeError) as error:
            yield View(markup.failure(str(error)))
        finally:
            if not job.ended:  # the visitor has left
                job.stop()
