"""Prompts drawn for a visitor, with the files that the command generate writes."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from clip2latent.outputs import slug
from clip2latent.results import save_samples
from clip2latent.sampling import Sampling, count_candidates
from clip2latent.text2image import TextToImage
from clip2latent.web.outcome import Outcome, Progress, Watch, pack, read_shots
from clip2latent.web.requests import PICTURE, Draw

CHUNK = 64
"""Images drawn at once, as by the commands: bits depend on it."""


def draw(pipeline: TextToImage, request: Draw, watch: Watch) -> Outcome:
    """Draws a request's prompts.

    Raises:
        ValueError: for what the model cannot do.
        Stopped: where the visitor stopped the work.
    """
    options = request.options
    sampling = Sampling(options.guidance, options.steps, "dpmpp", options.truncation, options.seed, CHUNK)
    candidates = count_candidates(options.num, options.candidates)
    total = max(1, len(request.prompts)) * candidates
    done = 0

    def tell(number: int) -> None:
        nonlocal done
        done += number
        watch.check()
        watch.tell(Progress("drawing", done, total))

    drawing = asdict(sampling) | {"num": options.num, "candidates": candidates}
    drawing |= {"template": "{}", "negative": options.negative or None}
    if options.guidance is None:
        drawing["guidance"] = pipeline.recommended_guidance
    started = time.monotonic()
    with _prompts(request) as (prompts, shown):
        samples = pipeline.generate(prompts, **drawing, progress=tell)
    seconds = time.monotonic() - started
    samples = replace(samples, prompts=list(shown))
    written = {"checkpoint": request.model, **drawing, "rank": None}
    del written["chunk"]  # changes nothing
    with results_folder() as folder:
        save_samples(samples, folder, written, pipeline.identities())
        shots = read_shots(folder, lambda entry: "", headed=len(shown) > 1)
        best = f"the best {options.num} of {candidates}" + (" of each prompt" if len(shown) > 1 else "")
        note = f"{best}, {seconds:.1f} s, seed {options.seed}{unknown_words(pipeline, request.prompts)}"
        return Outcome(shots, note, None, pack(folder), slug(shown[0]))


def unknown_words(pipeline: Any, prompts: Sequence[str]) -> str:
    """Returns a sentence on the words that the model's embedder says it never saw; "" where there are none."""
    find = getattr(pipeline.embedder, "unknown_words", None)
    found = dict.fromkeys(word for prompt in prompts for word in find(prompt)) if find else {}
    return f". The model never saw {', '.join(repr(word[:40]) for word in found)}" if found else ""


@contextmanager
def results_folder() -> Iterator[Path]:
    """Gives the name of a folder to write results into; it is gone when the block ends."""
    with tempfile.TemporaryDirectory(prefix="clip2latent-") as place:
        yield Path(place) / "results"


@contextmanager
def _prompts(request: Draw) -> Iterator[tuple[list[str], list[str]]]:
    """Gives the prompts as the pipeline reads them, and as they are shown.

    The picture stands in a file of our own, of a name that the visitor has no part in.
    """
    if request.picture is None:
        yield list(request.prompts), list(request.prompts)
        return
    with tempfile.TemporaryDirectory(prefix="clip2latent-") as place:
        path = Path(place) / f"{PICTURE}.png"
        path.write_bytes(request.picture.png)
        weight = f"::{request.picture.weight:g}"
        if not request.prompts:
            yield [str(path)], [PICTURE]
            return
        yield (
            [f"{path}{weight} | {prompt}" for prompt in request.prompts],
            [f"{PICTURE}{weight} | {prompt}" for prompt in request.prompts],
        )
