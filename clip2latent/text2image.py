"""TextToImage: prompts -> embeddings -> prior -> latents -> images, ranked by CLIP within each prompt."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from PIL import Image
from torch import Tensor, nn

from clip2latent.bridge import Bridge
from clip2latent.checkpoint import load_prior
from clip2latent.diffusion import (
    Schedule,
    Steps,
    clip2latent_skip_steps,
    ddim_steps,
    ddpm_steps,
    dpmpp_steps,
    guided,
    normal,
    row_generators,
    sample,
)
from clip2latent.images import grid, to_pil
from clip2latent.interfaces import Embedder, Generator
from clip2latent.latents import LatentSpace
from clip2latent.metrics import clip_score
from clip2latent.prompts import check_prompts
from clip2latent.search import TopK
from clip2latent.spec import ModelSpec

SAMPLERS: dict[str, Callable[[Schedule, int], Steps]] = {
    "dpmpp": dpmpp_steps,
    "ddim": ddim_steps,
    "ddpm": ddpm_steps,
    "clip2latent-skip": clip2latent_skip_steps,
}


@dataclass(frozen=True)
class Samples:
    """Images of P prompts, best first within each prompt.

    Attributes:
        prompts: P texts.
        latents: [P, N, L, D].
        images: [P, N, 3, R, R] in [-1, 1].
        scores: CLIP scores [P, N], descending in each row.
        candidates: [P, N], the number of each image among its prompt's candidates, which with the seed remakes it.
    """

    prompts: list[str]
    latents: Tensor
    images: Tensor
    scores: Tensor
    candidates: Tensor

    def best(self, k: int = 1) -> Samples:
        """Returns the k best of each prompt."""
        if not 1 <= k <= self.scores.shape[1]:
            raise ValueError(f"k={k}: expected 1 to {self.scores.shape[1]}, the images kept for each prompt")
        tensors = {name: getattr(self, name)[:, :k] for name in ("latents", "images", "scores", "candidates")}
        return replace(self, **tensors)

    def to_pil(self) -> list[list[Image.Image]]:
        """Returns P lists of N pictures."""
        return [to_pil(images) for images in self.images]

    def grid(self) -> Image.Image:
        """Returns one picture: a row for each prompt, with its scores."""
        return grid(self.images, self.prompts, self.scores)


class Chunk(NamedTuple):
    """Candidates made together: of which prompt [B] and which of its candidates [B] each row is, and what it became."""

    prompt: Tensor
    candidate: Tensor
    latents: Tensor
    images: Tensor
    embeddings: Tensor


@dataclass(frozen=True)
class Sampling:
    """How candidates are drawn.

    Attributes:
        guidance: classifier-free guidance; 1 is none; None for what the checkpoint recommends.
        steps: sampling steps, 1 to the T of training.
        sampler: "dpmpp", "ddim" or "ddpm"; "clip2latent-skip" is the original's, to reproduce its results.
        truncation: 1 for the prior's own spread, towards 0 ever nearer to the mean latent.
        seed: any integer from 0.
        chunk: images made at once.
    """

    guidance: float | None = None
    steps: int = 8
    sampler: str = "dpmpp"
    truncation: float = 1.0
    seed: int = 0
    chunk: int = 64

    def __post_init__(self) -> None:
        _check_at_least(1, steps=self.steps, chunk=self.chunk)
        _check_at_least(0, seed=self.seed, truncation=self.truncation, guidance=self.guidance or 0)
        if self.sampler not in SAMPLERS:
            raise ValueError(f"sampler={self.sampler!r}: expected one of {', '.join(SAMPLERS)}")

    def table(self, schedule: Schedule) -> Steps:
        """Returns the sampler's table for a schedule; ValueError for more steps than it has."""
        if self.steps > schedule.timesteps:
            raise ValueError(f"steps={self.steps}: expected at most {schedule.timesteps}, the prior's timesteps")
        return SAMPLERS[self.sampler](schedule, self.steps)


class TextToImage:
    """A prior with the generator and the embedder it was trained for.

    Attributes:
        config: the checkpoint's description of itself: models, dataset, recommended guidance.
        recommended_guidance: the guidance that `generate` takes when none is given.
    """

    def __init__(
        self,
        prior: nn.Module,
        space: LatentSpace,
        schedule: Schedule,
        generator: Generator,
        embedder: Embedder,
        config: dict[str, Any] | None = None,
        bridge: Bridge | None = None,
    ) -> None:
        """Puts the parts together; all stay on the device they are on, which must be the same.

        Without a bridge the prior is conditioned on embeddings as they are.

        Raises:
            ValueError: where the generator or the embedder is not of the prior's shape.
        """
        self.config = dict(config or {})
        _check_fit(prior, space, generator, embedder, self.config)
        self.prior, self.space, self.schedule = prior, space, schedule
        self.generator, self.embedder = generator, embedder
        self.device = space.mean.device
        self.bridge = bridge or Bridge.plain(embedder.dim).to(self.device)
        self.recommended_guidance = float(self.config.get("guidance") or 1.0)

    @classmethod
    def from_pretrained(cls, source: str | Path = "demo", device: str | torch.device | None = None) -> TextToImage:
        """Loads a prior and the generator and the embedder that it names.

        Args:
            source: "demo", a training checkpoint (.ckpt), an exported folder, or another source of `load_prior`.
            device: where to run; None takes CUDA where there is one.

        Raises:
            ValueError: for an unreadable checkpoint, and for models that are not those the prior was trained with.
        """
        if device is None:
            device = "cuda" if torch.cuda.is_available() else "cpu"
        loaded = load_prior(source)
        generator = ModelSpec.from_dict(loaded.config["generator"]).build()
        embedder = ModelSpec.from_dict(loaded.config["embedder"]).build()
        prior, space, bridge = loaded.prior, loaded.space, loaded.bridge
        for module in (prior, space, bridge, generator, embedder):
            module.to(device).eval().requires_grad_(False)
        return cls(prior, space, loaded.schedule, generator, embedder, loaded.config, bridge)

    def generate(
        self,
        prompts: Sequence[str],
        num: int = 4,
        candidates: int | None = None,
        guidance: float | None = None,
        steps: int = 8,
        sampler: str = "dpmpp",
        truncation: float = 1.0,
        seed: int = 0,
        chunk: int = 64,
        progress: Callable[[int], Any] | None = None,
    ) -> Samples:
        """Makes images of prompts: draws candidates and keeps each prompt's best by CLIP score.

        An image depends on the seed, its prompt's position and its candidate number only, not on `num`, `candidates`,
        `chunk` or the other prompts. Memory is that of one chunk and of the images kept.

        Args:
            prompts: P texts.
            num: images to keep for each prompt, N.
            candidates: images to choose from, for each prompt; None for 16, or `num` where that is more.
            guidance: and the following: see `Sampling`.
            steps: 1 to the T of training.
            sampler: "dpmpp", "ddim", "ddpm" or "clip2latent-skip".
            truncation: from 0 to the prior's own spread, 1.
            seed: any integer from 0.
            chunk: images made at once.
            progress: called with the number of candidates done since the last call.

        Raises:
            ValueError: for no prompt, an empty one, and numbers out of range.
        """
        candidates = count_candidates(num, candidates)
        sampling = Sampling(guidance, steps, sampler, truncation, seed, chunk)
        prompts = check_prompts(prompts)
        text = self.embed_text(prompts)
        best = [TopK(num) for _ in prompts]
        for part in self.stream(text, candidates, sampling):
            scores = clip_score(part.embeddings[:, None], text[part.prompt])[:, 0]
            for index in part.prompt.unique().tolist():
                own = (part.prompt == index).nonzero()[:, 0]
                best[index].update(scores[own], part.latents[own], part.images[own], part.candidate[own])
            if progress is not None:
                progress(len(scores))
        latents, images, numbers = (torch.stack(items) for items in zip(*(kept.items for kept in best), strict=True))
        return Samples(prompts, latents, images, torch.stack([kept.scores for kept in best]), numbers)

    @torch.no_grad()
    def embed_text(self, prompts: Sequence[str]) -> Tensor:
        """Embeds P prompts into [P, E], on the CPU."""
        return self.embedder.embed_text(check_prompts(prompts)).cpu()

    def stream(self, text: Tensor, candidates: int, sampling: Sampling) -> Iterator[Chunk]:
        """Returns an iterator over all candidates of all prompts, unranked, in chunks on the CPU.

        Args:
            text: embeddings [P, E] of the prompts.
            candidates: images for each prompt.
            sampling: how to draw them.
        """
        _check_at_least(1, candidates=candidates)
        return self._chunks(text, candidates, sampling, sampling.table(self.schedule))

    def _chunks(self, text: Tensor, candidates: int, sampling: Sampling, table: Steps) -> Iterator[Chunk]:
        guidance = self.recommended_guidance if sampling.guidance is None else sampling.guidance
        rngs = row_generators(sampling.seed, len(text), candidates)
        for rows in torch.arange(len(rngs)).split(sampling.chunk):
            rng = [rngs[row] for row in rows.tolist()]
            prompt, candidate = rows // candidates, rows % candidates
            with torch.no_grad():
                noise = normal((len(rows), *self.space.mean.shape), rng, self.device)  # [B, K, D]
                condition = self.bridge.texts(text[prompt].to(self.device))
                denoise = guided(self.prior, condition, guidance)
                tokens = sample(denoise, noise, table, rng)
                latents = self.generator.project(self.space.decode(tokens, sampling.truncation))  # [B, L, D]
                images = self.draw(latents)
                embeddings = self.embedder.embed_images(images)
            yield Chunk(prompt, candidate, latents.cpu(), images.cpu(), embeddings.cpu())

    @torch.no_grad()
    def draw(self, latents: Tensor) -> Tensor:
        """Maps latents [B, L, D] to images [B, 3, R, R] in [-1, 1], clamped: what is scored is what a file holds."""
        return self.generator.synthesize(latents.to(self.device)).clamp(-1, 1)


def count_candidates(num: int, candidates: int | None = None) -> int:
    """Returns how many candidates to draw to keep `num`: those asked for, or 16, or `num` where that is more."""
    _check_at_least(1, num=num)
    candidates = max(16, num) if candidates is None else candidates
    if candidates < num:
        raise ValueError(f"candidates={candidates}: expected at least num={num}, the images to keep of them")
    return candidates


def _check_at_least(least: int, **values: float) -> None:
    for name, value in values.items():
        if not least <= value < float("inf"):
            raise ValueError(f"{name}={value}: expected a number from {least}")


def _check_fit(
    prior: nn.Module, space: LatentSpace, generator: Generator, embedder: Embedder, config: dict[str, Any]
) -> None:
    """Refuses a generator or embedder of another shape than the prior's, naming both sides."""
    names = {part: ModelSpec.from_dict(config[part]) for part in ("generator", "embedder") if part in config}
    wanted, found = (space.num_rows, space.width), tuple(generator.latent_shape)
    if wanted != found:
        raise ValueError(
            f"the prior makes latents {wanted} (L, D), but the generator {names.get('generator', type(generator))}"
            f" takes {found}: give the generator that the prior was trained for"
        )
    width = prior.config["embedding_dim"]
    if width != embedder.dim:
        raise ValueError(
            f"the prior reads embeddings of width {width}, but the embedder {names.get('embedder', type(embedder))}"
            f" makes {embedder.dim}: give the embedder that the prior was trained with"
        )
    if "embedder" in names:
        names["embedder"].check_identity(embedder)
