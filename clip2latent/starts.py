"""What edits start from: prompts to draw and results to read, as one list of latents."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from clip2latent.mixtures import Mixture, read_mixtures
from clip2latent.prompts import check_prompts
from clip2latent.sampling import Sampling, count_candidates
from clip2latent.saved import Saved, is_saved, read_saved
from clip2latent.text2image import TextToImage


@dataclass(frozen=True)
class Drawing:
    """How the prompts among the sources are drawn: arguments of `TextToImage.generate`.

    Attributes:
        num: latents of each prompt, the best; of results, so many of each of their prompts.
        candidates: to choose from; None for 16, or `num` where that is more.
        guidance: None for what the checkpoint recommends.
        steps: sampling steps.
        seed: any integer from 0.
        chunk: images made at once.
    """

    num: int = 1
    candidates: int | None = None
    guidance: float | None = None
    steps: int = 8
    seed: int = 0
    chunk: int = 64

    def __post_init__(self) -> None:
        count_candidates(self.num, self.candidates)
        self.sampling()

    def sampling(self) -> Sampling:
        """Returns the same as a `Sampling`; ValueError for numbers out of range."""
        return Sampling(guidance=self.guidance, steps=self.steps, seed=self.seed, chunk=self.chunk)


class Source(NamedTuple):
    """What a text names: a prompt's mixture, or what is saved; the other is None."""

    text: str
    saved: Saved | None
    mixture: Mixture | None

    @property
    def is_plain(self) -> bool:
        """Whether it is a prompt of one text, without pictures and weights."""
        return self.mixture is not None and len(self.mixture.parts) == 1 and bool(self.mixture.texts)


class Starts(NamedTuple):
    """B latents [B, L, D] and their labels."""

    labels: list[str]
    latents: Tensor


def read_sources(sources: Sequence[str]) -> list[Source]:
    """Reads results and checks prompts, before any model is loaded.

    Args:
        sources: prompts, folders of results and files of latents, in any mixture.

    Raises:
        ValueError: for an empty prompt or a malformed mixture, and for results that cannot be read.
        FileNotFoundError: for results and pictures that are not there.
    """
    texts = check_prompts(sources)
    return [
        Source(text, read_saved(text), None) if is_saved(text) else Source(text, None, read_mixtures([text])[0])
        for text in texts
    ]


def checkpoint_of(sources: Sequence[Source]) -> str:
    """Returns the checkpoint that results among the sources were made with, "demo" where none says.

    Raises:
        ValueError: where they were made with several.
    """
    named = dict.fromkeys(source.saved.checkpoint for source in sources if source.saved and source.saved.checkpoint)
    if len(named) > 1:
        raise ValueError(f"the results are of several checkpoints, {', '.join(named)}: name one by --checkpoint")
    return next(iter(named), "demo")


def gather(pipeline: TextToImage, sources: Sequence[Source], drawing: Drawing) -> Starts:
    """Returns the best latents of each prompt of each source, in the sources' order.

    Args:
        pipeline: draws the prompts.
        sources: from `read_sources`.
        drawing: how, and how many of each prompt; fewer where results hold fewer.

    Raises:
        ValueError: for latents of another generator.
    """
    for source in sources:
        _check_generator(pipeline, source)
    prompts = [source.text for source in sources if source.saved is None]
    drawn = iter(pipeline.generate(prompts, **asdict(drawing)).latents if prompts else [])
    labels: list[str] = []
    latents: list[Tensor] = []
    for text, saved, _ in sources:
        rows = [(text, next(drawn))] if saved is None else zip(saved.labels, saved.latents, strict=True)
        for label, row in rows:
            kept = row[: drawing.num]
            labels += [label] * len(kept)
            latents.append(kept)
    return Starts(labels, torch.cat(latents))


def described(
    command: str, pipeline: TextToImage, sources: Sequence[str], checkpoint: str, drawing: Drawing
) -> dict[str, Any]:
    """Returns the options of an edit as results record them: plain types."""
    options = {"command": command, "sources": list(sources), "checkpoint": checkpoint, **asdict(drawing)}
    if drawing.guidance is None:
        options["guidance"] = pipeline.recommended_guidance
    del options["chunk"]
    return options


def _check_generator(pipeline: TextToImage, source: Source) -> None:
    text, saved = source.text, source.saved
    if saved is None:
        return
    wanted = tuple(pipeline.generator.latent_shape)
    if tuple(saved.latents.shape[-2:]) != wanted:
        raise ValueError(
            f"{text} holds latents {tuple(saved.latents.shape[-2:])} (L, D), but the generator takes {wanted}:"
            " name the checkpoint they were made with by --checkpoint"
        )
    hashes = [(spec or {}).get("sha256") for spec in (saved.generator, pipeline.config.get("generator"))]
    if all(hashes) and hashes[0] != hashes[1]:
        raise ValueError(
            f"{text} holds latents of another generator (sha256 {hashes[0][:12]}, here {hashes[1][:12]}):"
            " name the checkpoint they were made with by --checkpoint"
        )
