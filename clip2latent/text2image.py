"""TextToImage: prompts -> conditions -> prior -> latents -> images, ranked within each prompt."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from clip2latent.bridge import Bridge
from clip2latent.checkpoint import load_prior
from clip2latent.chunking import in_chunks
from clip2latent.conditions import Conditions, make_conditions
from clip2latent.diffusion import Schedule, normal, row_generator
from clip2latent.fit import check_fit
from clip2latent.interfaces import Embedder, Generator
from clip2latent.latents import LatentSpace
from clip2latent.mixtures import BLANK, read_mixtures
from clip2latent.prompts import check_prompts
from clip2latent.ranking import Ranking, chunk_scores
from clip2latent.samples import Chunk, Drawn, Samples
from clip2latent.sampling import SAMPLERS, Sampling, check_at_least, count_candidates
from clip2latent.search import TopK
from clip2latent.spec import ModelSpec, weights_sha256
from clip2latent.token_sampler import TokenSampler

__all__ = ["SAMPLERS", "Chunk", "Samples", "Sampling", "TextToImage", "count_candidates"]


class TextToImage:
    """A prior with the generator and the embedder it was trained for.

    Attributes:
        config: the checkpoint's description of itself: models, dataset, recommended guidance.
        recommended_guidance: the guidance that `generate` takes when none is given.
        trained_for_guidance: False where the checkpoint says that no condition was dropped in its training.
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
        check_fit(prior, space, generator, embedder, self.config)
        self.prior, self.space, self.schedule = prior, space, schedule
        self._sample = TokenSampler(prior)
        self.generator, self.embedder = generator, embedder
        self.device = space.mean.device
        self.bridge = bridge or Bridge.plain(embedder.dim).to(self.device)
        training = self.config.get("training") or {}
        self.trained_for_guidance = training.get("condition_dropout") != 0
        self.recommended_guidance = float(self.config.get("guidance") or 1.0) if self.trained_for_guidance else 1.0

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
        *,
        negative: str | Sequence[str] | None = None,
        template: str = BLANK,
        ranking: Ranking | None = None,
        stages: Callable[[str, int], Any] | None = None,
        spacing: str | None = None,
        eta: float = 0.0,
        guidance_rescale: float = 0.0,
        guidance_interval: tuple[int, int] | None = None,
        guidance_limit: float | None = None,
    ) -> Samples:
        """Makes images of prompts: draws candidates and keeps each prompt's best, by CLIP score unless told otherwise.

        An image depends on the seed, its prompt, its prompt's position and its candidate number only, not on `num`,
        `candidates`, `chunk` or the other prompts. Memory is that of one chunk and of the images kept; where it runs
        out, the chunk is halved, with a warning.

        Args:
            prompts: P prompts: texts, picture files, and mixtures of both such as "photo.png | a smile::0.5" (see
                `read_mixtures`).
            num: images to keep for each prompt, N.
            candidates: images to choose from, for each prompt; None for 16, or `num` where that is more.
            guidance: and the following: see `Sampling`.
            steps: 1 to the T of training.
            sampler: "dpmpp", "sde-dpmpp", "ddim", "ddpm" or "clip2latent-skip".
            truncation: from 0 to the prior's own spread, 1.
            seed: any integer from 0.
            chunk: images made at once.
            progress: called with the number of candidates done since the last call.
            negative: a prompt, or one for each prompt, that guidance leads away from, in place of the null condition.
            template: has {} where each text goes.
            ranking: what candidates are compared by, see `ranking.rank_by`; None for the prior's own CLIP.
            stages: called with "prior", "drawing" or "scoring" and the number of candidates that passed it.
            spacing: and the following: see `Sampling`.
            eta: 0 to 1, for ddim.
            guidance_rescale: 0 to 1.
            guidance_interval: two timesteps.
            guidance_limit: standard deviations.

        Raises:
            ValueError: for no prompt, an empty one, numbers out of range, guidance that the prior cannot have, pictures
                that cannot be read, and too little memory for one image.
            FileNotFoundError: for a picture that is not there.
        """
        candidates = count_candidates(num, candidates)
        held_back = (guidance_rescale, guidance_interval, guidance_limit)
        sampling = Sampling(guidance, steps, sampler, truncation, seed, chunk, spacing, eta, *held_back)
        sampling = self._settled(sampling, negative is not None)
        conditions = self.condition(prompts, negative, template)
        objectives = None if ranking is None else ranking(read_mixtures(prompts, template))
        stages = stages or (lambda stage, done: None)

        @torch.no_grad()
        def scored(start: int, stop: int) -> tuple[Chunk, Tensor]:
            part = self.batch(start, stop, conditions, candidates, sampling, stages)
            scores = chunk_scores(part, conditions.targets, objectives, self.device)
            stages("scoring", stop - start)
            return part, scores

        best = [TopK(num) for _ in prompts]
        for part, scores in in_chunks(len(prompts) * candidates, chunk, scored):
            first = int(part.prompt[0] * candidates + part.candidate[0])
            batch = torch.tensor([first, len(scores)]).expand(len(scores), 2)
            for index in part.prompt.unique().tolist():
                own = part.prompt == index
                kept = (part.latents, part.images, part.candidate, batch)
                best[index].update(scores[own], *(tensor[own] for tensor in kept))
            if progress is not None:
                progress(len(scores))
            del part, kept  # or they would stay beside the next chunk
        latents, images, numbers, batches = (
            torch.stack(items) for items in zip(*(kept.items for kept in best), strict=True)
        )
        scores = torch.stack([kept.scores for kept in best])
        drawn = Drawn(sampling, conditions, candidates, batches)
        return Samples(list(prompts), latents, images, scores, numbers, drawn)

    @torch.no_grad()
    def embed_text(self, prompts: Sequence[str]) -> Tensor:
        """Embeds P texts into [P, E], on the CPU; each alone, so that no text's bits depend on the others."""
        return torch.cat([self.embedder.embed_text([prompt]).cpu() for prompt in check_prompts(prompts)])

    @torch.no_grad()
    def condition(
        self, prompts: Sequence[str], negative: str | Sequence[str] | None = None, template: str = BLANK
    ) -> Conditions:
        """Returns what P prompts, and negative ones, ask the prior for; arguments and errors as for `generate`."""
        negatives = [negative] if isinstance(negative, str) else negative
        return make_conditions(
            self.embedder,
            self.bridge,
            read_mixtures(prompts, template),
            None if negatives is None else read_mixtures(negatives),
            self.device,
        )

    def stream(self, text: Tensor, candidates: int, sampling: Sampling) -> Iterator[Chunk]:
        """Returns an iterator over all candidates of all prompts, unranked, in chunks on the CPU.

        Args:
            text: embeddings [P, E] of the prompts.
            candidates: images for each prompt.
            sampling: how to draw them.
        """
        check_at_least(1, candidates=candidates)
        sampling = self._settled(sampling)
        with torch.no_grad():
            conditions = Conditions(self.bridge.texts(text.to(self.device)).cpu(), None, text)

        def drawn(start: int, stop: int) -> Chunk:
            return self.batch(start, stop, conditions, candidates, sampling)

        return in_chunks(len(text) * candidates, sampling.chunk, drawn)

    @torch.no_grad()
    def batch(
        self,
        start: int,
        stop: int,
        conditions: Conditions,
        candidates: int,
        sampling: Sampling,
        stages: Callable[[str, int], Any] = lambda stage, done: None,
    ) -> Chunk:
        """Draws candidates together: the same arguments give the same bits.

        Args:
            start: the first row; candidate n of prompt p is row p * N + n.
            stop: the row after the last one.
            conditions: of P prompts.
            candidates: N.
            sampling: how to draw them; its guidance is a number.
            stages: told "prior" and "drawing" with the number of rows.
        """
        rows = torch.arange(start, stop)
        rng = [row_generator(sampling.seed, *divmod(row, candidates)) for row in range(start, stop)]
        prompt, candidate = rows // candidates, rows % candidates
        table = sampling.table(self.schedule)
        noise = normal((len(rows), *self.space.mean.shape), rng, self.device)  # [B, K, D]
        condition = conditions.positive[prompt].to(self.device)  # [B, E]
        negative = None if conditions.negative is None else conditions.negative[prompt].to(self.device)
        tokens = self._sample(noise, condition, table, rng, sampling.guidance, negative, **sampling.guidance_options())
        latents = self.generator.project(self.space.decode(tokens, sampling.truncation))  # [B, L, D]
        stages("prior", len(rows))
        images = self.draw(latents)
        stages("drawing", len(rows))
        embeddings = self.embedder.embed_images(images)
        return Chunk(prompt, candidate, latents.cpu(), images.cpu(), embeddings.cpu())

    @torch.no_grad()
    def draw(self, latents: Tensor) -> Tensor:
        """Maps latents [B, L, D] to images [B, 3, R, R] in [-1, 1], clamped: what is scored is what a file holds."""
        return self.generator.synthesize(latents.to(self.device)).clamp(-1, 1)

    def identities(self) -> dict[str, Any]:
        """Returns which models draw: what the checkpoint says of generator and embedder, and hashes of the prior."""
        named = {part: self.config.get(part) for part in ("generator", "embedder")}
        parts = {"prior": self.prior, "space": self.space, "bridge": self.bridge}
        return named | {name: {"sha256": weights_sha256(part)} for name, part in parts.items()}

    def _settled(self, sampling: Sampling, negative: bool = False) -> Sampling:
        """Returns a sampling with its guidance settled; ValueError for what this prior cannot do, before it draws."""
        sampling.table(self.schedule)
        guidance = self.recommended_guidance if sampling.guidance is None else float(sampling.guidance)
        if negative and guidance == 1:
            raise ValueError("a negative prompt has no effect at guidance 1: give a guidance above it, such as 2")
        if guidance != 1 and not negative and not self.trained_for_guidance:
            raise ValueError(
                f"guidance={guidance:g}: this prior was trained without condition dropout and has no null branch to"
                " guide from: give guidance 1, or a negative prompt"
            )
        return replace(sampling, guidance=guidance)
