"""Ways to an image of a prompt: at random, searched for, drawn by a prior, optimised; all with one signature.

They are the rows of tables 1 of clip2latent (arXiv:2210.02347) and of FuseDream (arXiv:2112.01573).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from clip2latent.bank import Bank
from clip2latent.basis import groups_of
from clip2latent.objectives import augclip_objective, clip_objective
from clip2latent.priorless import Priorless
from clip2latent.refine import HELD_OUT, Refining, entropy, refine
from clip2latent.refinement import LR
from clip2latent.sampling import check_at_least
from clip2latent.text2image import TextToImage

RESPACED = 25
"""Steps of DDPM in place of the training's thousand: a fortieth of its time, as the paper's respacing."""
RANDOM, PRIOR = 11, 12
"""Streams of random numbers, see `refine.entropy`."""


@dataclass(frozen=True)
class Effort:
    """How much the ways do for an image.

    Attributes:
        candidates: the prior's images of a prompt, of which CLIP chooses.
        random: random latents of which a search keeps the best, and which optimisers begin from the best of.
        retrieval: the same of the retrieval among many.
        basis: candidates that a latent optimised by AugCLIP is mixed of.
        views: of an image at each step of AugCLIP, and as many held out to choose by.
        steps: of the prior's sampler.
        guidance: of the prior; None for what it recommends.
        optimising: steps of the optimiser.
        lr: its learning rate, in standard deviations of the latents.
        seed: of everything.
        chunk: images drawn at once.
    """

    candidates: int = 16
    random: int = 1000
    retrieval: int = 30000
    basis: int = 5
    views: int = 16
    steps: int = 8
    guidance: float | None = None
    optimising: int = 100
    lr: float = LR
    seed: int = 0
    chunk: int = 64

    def __post_init__(self) -> None:
        for name in ("candidates", "random", "retrieval", "basis", "views", "steps", "optimising", "chunk"):
            check_at_least(1, **{name: getattr(self, name)})
        check_at_least(0, seed=self.seed, lr=self.lr, guidance=self.guidance or 0)
        if self.basis > min(self.random, self.candidates):
            raise ValueError(
                f"basis={self.basis}: expected at most random={self.random} and candidates={self.candidates}"
            )


class Setting(NamedTuple):
    """What all ways work with.

    Attributes:
        models: a prior with its models, or a generator and an embedder.
        prompts: P texts.
        targets: their embeddings [P, E], on the CPU.
        bank: random latents and their images' embeddings, one bank for all prompts.
        effort: how much to do.
    """

    models: TextToImage | Priorless
    prompts: Sequence[str]
    targets: Tensor
    bank: Bank
    effort: Effort


class Way(NamedTuple):
    """A row of a table.

    Attributes:
        name: effort -> what to call it.
        make: (setting, b prompts' indices) -> latents [b, L, D] on the CPU. A prompt's depends on the setting and its
            index; those optimised together on each other through rounding only.
        prior: whether it takes one.
        bank: effort -> rows of the bank that it reads; 0 for none.
        together: the prompts it takes at once: 1, "many" where that costs nothing, or as many as the user says.
    """

    name: Callable[[Effort], str]
    make: Callable[[Setting, Sequence[int]], Tensor]
    prior: bool = False
    bank: Callable[[Effort], int] = lambda effort: 0
    together: str = "one"


def at_random(setting: Setting, rows: Sequence[int]) -> Tensor:
    """Draws a latent of the generator's own distribution for each prompt."""
    rngs = [torch.Generator().manual_seed(entropy(setting.effort.seed, RANDOM, row)) for row in rows]
    return torch.cat([setting.models.generator.sample_latents(1, rng) for rng in rngs]).cpu()


def searched(setting: Setting, rows: Sequence[int]) -> Tensor:
    """Returns the best of some random latents, by CLIP score."""
    return _picked(setting, rows, setting.effort.random, 1)[:, 0]


def retrieved(setting: Setting, rows: Sequence[int]) -> Tensor:
    """Returns the best of many random latents, by CLIP score."""
    return _picked(setting, rows, setting.effort.retrieval, 1)[:, 0]


def by_prior(setting: Setting, rows: Sequence[int]) -> Tensor:
    """Returns the prior's best candidate, by few steps of the default sampler."""
    return _drawn(setting, rows, 1, setting.effort.steps, "dpmpp")[:, 0]


def by_prior_respaced(setting: Setting, rows: Sequence[int]) -> Tensor:
    """Returns the prior's best candidate, by DDPM over a part of its timesteps (Nichol and Dhariwal 2021)."""
    return _drawn(setting, rows, 1, min(RESPACED, setting.models.schedule.timesteps), "ddpm")[:, 0]


def by_prior_in_full(setting: Setting, rows: Sequence[int]) -> Tensor:
    """Returns the prior's best candidate, by DDPM over all timesteps of its training."""
    return _drawn(setting, rows, 1, setting.models.schedule.timesteps, "ddpm")[:, 0]


def by_clip(setting: Setting, rows: Sequence[int]) -> Tensor:
    """Optimises the best of some random latents by the plain CLIP score, which chooses, too."""
    basis = _picked(setting, rows, setting.effort.random, 1)
    objective = clip_objective(setting.models.embedder, _targets(setting, rows))
    return _optimised(setting, basis, objective, objective, None)


def by_augclip(setting: Setting, rows: Sequence[int]) -> Tensor:
    """Optimises a mixture of the best of some random latents by AugCLIP: FuseDream."""
    return _by_augclip(setting, rows, _picked(setting, rows, setting.effort.random, setting.effort.basis))


def by_prior_refined(setting: Setting, rows: Sequence[int]) -> Tensor:
    """Optimises a mixture of the prior's best candidates by AugCLIP."""
    return _by_augclip(setting, rows, _drawn(setting, rows, setting.effort.basis, setting.effort.steps, "dpmpp"))


def _random(effort: Effort) -> int:
    return effort.random


WAYS: dict[str, Way] = {
    "random": Way(lambda e: "random latent", at_random, together="many"),
    "search": Way(lambda e: f"random search, best of {e.random}", searched, bank=_random, together="many"),
    "retrieval": Way(
        lambda e: f"retrieval, best of {e.retrieval}", retrieved, bank=lambda e: e.retrieval, together="many"
    ),
    "prior-full": Way(lambda e: f"prior in full, best of {e.candidates}", by_prior_in_full, prior=True),
    "prior-respaced": Way(
        lambda e: f"prior respaced to {RESPACED} steps, best of {e.candidates}", by_prior_respaced, prior=True
    ),
    "prior": Way(lambda e: f"prior in {e.steps} steps, best of {e.candidates}", by_prior, prior=True),
    "clip": Way(
        lambda e: f"one latent by CLIP, best of {e.random} + {e.optimising} steps",
        by_clip,
        bank=_random,
        together="some",
    ),
    "augclip": Way(
        lambda e: f"FuseDream (AugCLIP), best {e.basis} of {e.random} + {e.optimising} steps",
        by_augclip,
        bank=_random,
        together="some",
    ),
    "refined": Way(
        lambda e: f"prior, best {e.basis} of {e.candidates} + {e.optimising} steps of AugCLIP",
        by_prior_refined,
        prior=True,
        together="some",
    ),
}


def _picked(setting: Setting, rows: Sequence[int], num: int, keep: int) -> Tensor:
    """[b, keep, L, D], best first"""
    return setting.bank.pick(setting.targets[list(rows)], num, keep).latents


def _drawn(setting: Setting, rows: Sequence[int], keep: int, steps: int, sampler: str) -> Tensor:
    """[b, keep, L, D], best first; a prompt is drawn by itself, from a seed of its own that all samplers share"""
    effort, found = setting.effort, []
    for row in rows:
        numbers = {"num": keep, "candidates": effort.candidates, "seed": entropy(effort.seed, PRIOR, row)}
        how = {"guidance": effort.guidance, "steps": steps, "sampler": sampler, "chunk": effort.chunk}
        found.append(setting.models.generate([setting.prompts[row]], **numbers, **how).latents)
    return torch.cat(found).cpu()


def _by_augclip(setting: Setting, rows: Sequence[int], basis: Tensor) -> Tensor:
    embedder, targets, views = setting.models.embedder, _targets(setting, rows), setting.effort.views
    rng, held = torch.Generator(), torch.Generator().manual_seed(entropy(setting.effort.seed, HELD_OUT))
    objective = augclip_objective(embedder, targets, views=views, rng=rng)
    held_out = augclip_objective(embedder, targets, views=views, rng=held, fixed=True)
    return _optimised(setting, basis, objective, held_out, rng)


def _optimised(
    setting: Setting,
    basis: Tensor,
    objective: Callable[[Tensor], Tensor],
    held_out: Callable[[Tensor], Tensor],
    rng: torch.Generator | None,
) -> Tensor:
    """Returns the best latents [b, L, D] that came of bases [b, M, L, D]."""
    models, space, effort = setting.models, setting.models.space, setting.effort
    refining = Refining(effort.optimising, effort.lr, patience=None, seed=effort.seed, chunk=effort.chunk)
    unit = space.expand(torch.where(space.std > 0, space.std, torch.ones_like(space.std))[None])[0]
    basis = basis.to(models.device)
    groups = groups_of(basis, space.groups)
    refined = refine(models.generator, objective, basis, refining, held_out, groups=groups, unit=unit, rng=rng)
    if refined.interrupted:
        raise KeyboardInterrupt
    return refined.latents.cpu()


def _targets(setting: Setting, rows: Sequence[int]) -> Tensor:
    return setting.targets[list(rows)].to(setting.models.device)
