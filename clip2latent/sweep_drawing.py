"""A sweep's cell: images of prompts drawn in one way, with the seconds they took, and the file that keeps them."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import safetensors
import safetensors.torch
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from clip2latent.chunking import in_chunks
from clip2latent.evaluate import Bar
from clip2latent.evaluate_rows import PICTURED
from clip2latent.fidelity import Judge
from clip2latent.images import from_uint8, grid, to_uint8
from clip2latent.metrics import accepted_values, clip_score
from clip2latent.outputs import whole_file
from clip2latent.paired import Found
from clip2latent.prompts import Prompt
from clip2latent.samples import Chunk
from clip2latent.sampling import Sampling
from clip2latent.text2image import TextToImage

PICTURES, SIDE = "pictures", 128


class Drawn(NamedTuple):
    """What is known of a cell's images, and the seconds that the prior, and that everything, took for each of them.

    Everything is the prior, the generator and the embedder; not the judge, and not what is loaded before.

    Attributes:
        found: measures' features.
        prior_seconds: of an image.
        seconds: of an image.
        pictures: the first image of the first prompts, small, uint8 [p, R, R, 3]; None where they were not kept.
    """

    found: Found
    prior_seconds: float
    seconds: float
    pictures: Tensor | None = None

    def first(self, num: int) -> Drawn:
        """Returns the first `num` images of each prompt."""
        return self._replace(found=self.found.first(num))

    def best(self, text: Tensor, candidates: int) -> Drawn:
        """Returns of each `candidates` images in a row of a prompt the one nearest to its text [P, E]."""
        if candidates == 1:
            return self
        found = self.found
        groups = clip_score(found.embeddings, text).unflatten(1, (-1, candidates))  # [P, N, candidates]
        at = groups.argmax(2) + candidates * torch.arange(groups.shape[1])
        rows = torch.arange(len(at))[:, None]
        kept = Found(found.embeddings[rows, at], found.tokens[rows, at], found.hits[rows, at], found.named)
        return Drawn(kept, candidates * self.prior_seconds, candidates * self.seconds)


@torch.no_grad()
def draw(
    pipeline: TextToImage,
    prompts: Sequence[Prompt],
    sampling: Sampling,
    num: int,
    judge: Judge | None = None,
    bar: Bar | None = None,
    name: str = "drawing",
) -> Drawn:
    """Draws `num` images of each prompt, candidates 0 to num - 1: a function of its arguments, but for the seconds.

    Args:
        pipeline: the prior with its generator and embedder.
        prompts: P prompts.
        sampling: how to draw; its guidance is a number.
        num: N, images of each prompt.
        judge: reads attributes off images; None for none.
        bar: makes a progress bar.
        name: of the bar.

    Raises:
        ValueError: for attributes that the judge does not know.
    """
    conditions = pipeline.condition([prompt.text for prompt in prompts])
    count = len(prompts) * num
    varying = (pipeline.space.std > 0).flatten().cpu()
    embeddings, tokens, hits, prior_seconds, seconds = [], [], [], 0.0, 0.0
    pictures: list[Tensor] = []

    def timed(start: int, stop: int) -> tuple[Chunk, dict[str, float]]:
        passed, began = {}, time.perf_counter()

        def stage(stage: str, done: int) -> None:
            if pipeline.device.type == "cuda":
                torch.cuda.synchronize(pipeline.device)
            passed[stage] = time.perf_counter() - began

        chunk = pipeline.batch(start, stop, conditions, num, sampling, stage)
        return chunk, passed | {"all": time.perf_counter() - began}

    with bar(name, count) if bar else contextlib.nullcontext() as progress:
        for chunk, passed in in_chunks(count, sampling.chunk, timed):
            embeddings.append(chunk.embeddings)
            tokens.append(pipeline.space.encode(chunk.latents.to(pipeline.device)).flatten(1).cpu()[:, varying])
            hits.append(_hits(chunk, prompts, judge, pipeline.device))
            pictures += _pictures(chunk)
            prior_seconds, seconds = prior_seconds + passed["prior"], seconds + passed["all"]
            if progress is not None:
                progress.update(len(chunk.prompt))
    parts = (torch.cat(part).unflatten(0, (len(prompts), num)) for part in (embeddings, tokens, hits))
    named = torch.tensor([0 if judge is None else len(prompt.attributes) for prompt in prompts])
    return Drawn(Found(*parts, named), prior_seconds / count, seconds / count, torch.stack(pictures))


def save_drawn(drawn: Drawn, path: Path) -> None:
    """Writes a cell as safetensors, whole or not at all."""
    seconds = {"prior_seconds": repr(drawn.prior_seconds), "seconds": repr(drawn.seconds)}
    tensors = {name: tensor.contiguous() for name, tensor in drawn.found._asdict().items()}
    tensors |= {} if drawn.pictures is None else {PICTURES: drawn.pictures}
    with whole_file(path) as partial:
        partial.write_bytes(safetensors.torch.save(tensors, seconds))


def load_drawn(path: Path, num: int) -> Drawn | None:
    """Reads the first `num` images of each prompt of a kept cell; None where there are not as many."""
    if not path.is_file():
        return None
    with safetensors.safe_open(path, "pt") as file:
        found = Found(*(file.get_tensor(name) for name in Found._fields))
        pictures = file.get_tensor(PICTURES) if PICTURES in file.keys() else None  # noqa: SIM118 - no mapping
        seconds: Mapping[str, str] = file.metadata()
    if found.hits.shape[1] < num:
        return None
    return Drawn(found.first(num), float(seconds["prior_seconds"]), float(seconds["seconds"]), pictures)


def sheet(pictures: Mapping[str, Tensor], prompts: Sequence[Prompt]) -> Image.Image:
    """Returns a grid of the first prompts, a column for each way; `pictures` are uint8 [p, R, R, 3] by its name."""
    shown = torch.stack(list(pictures.values()), dim=1)  # [p, ways, R, R, 3]
    images = from_uint8(shown.flatten(0, 1).numpy()).unflatten(0, shown.shape[:2])
    return grid(images, [prompt.text for prompt in prompts[: len(images)]], headings=list(pictures))


def _pictures(chunk: Chunk) -> list[Tensor]:
    """The first candidates of the first prompts, in their order, small."""
    shown = chunk.images[(chunk.candidate == 0) & (chunk.prompt < PICTURED)]
    small = functional.interpolate(shown, (SIDE, SIDE), mode="area") if shown.shape[-1] > SIDE else shown
    return list(torch.from_numpy(to_uint8(small)))


def _hits(chunk: Chunk, prompts: Sequence[Prompt], judge: Judge | None, device: torch.device) -> Tensor:
    """Counts the attributes of its prompt that the judge sees in each image [B]; 0 without a judge."""
    counts = torch.zeros(len(chunk.prompt), dtype=torch.int64)
    if judge is None:
        return counts
    seen = {name: values.cpu() for name, values in judge.classify(chunk.images.to(device)).items()}
    for index in chunk.prompt.unique().tolist():
        own = chunk.prompt == index
        for name, value in prompts[index].attributes.items():
            counts[own] += torch.isin(seen[name][own], accepted_values(name, value, judge.attributes))
    return counts
