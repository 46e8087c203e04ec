"""TextToImage: prompts -> embeddings -> prior -> latents -> images, ranked by CLIP within each prompt."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from clip2latent.bridge import Bridge
from clip2latent.checkpoint import load_prior
from clip2latent.diffusion import Schedule, Steps, guided, normal, row_generators, sample
from clip2latent.interfaces import Embedder, Generator
from clip2latent.latents import LatentSpace
from clip2latent.metrics import clip_score
from clip2latent.prompts import check_prompts
from clip2latent.samples import Chunk, Samples
from clip2latent.sampling import SAMPLERS, Sampling, check_at_least, count_candidates
from clip2latent.search import TopK
from clip2latent.spec import ModelSpec

__all__ = ["SAMPLERS", "Chunk", "Samples", "Sampling", "TextToImage", "count_candidates"]


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
        check_at_least(1, candidates=candidates)
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
