"""Refined images of prompts: a prompt's best candidates become bases, and what came of them is ranked again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from clip2latent.basis import groups_of, spread
from clip2latent.conditions import embed_targets
from clip2latent.edit import mean_latent
from clip2latent.metrics import clip_score
from clip2latent.mixtures import BLANK, read_mixtures
from clip2latent.objectives import augclip_objective
from clip2latent.priorless import Priorless
from clip2latent.refine import HELD_OUT, Refined, Refining, entropy, refine
from clip2latent.refine_state import State
from clip2latent.samples import Samples
from clip2latent.sampling import check_at_least
from clip2latent.text2image import TextToImage

RECOMMENDED = Refining(lr=0.2, decay="cosine", lead=0.7, pull=0.1)
"""For a hundred steps or so, chosen on prompts apart from docs/refinement.md's; the paper has a thousand of 0.005.

Without the pull the score is a little higher and the images leave the generator's domain.
"""
LR = 0.05
"""A constant rate for a hundred steps."""
PULLS = ("sample", "mean")
SPACES = (None, "w+")


@dataclass(frozen=True)
class Plan:
    """What is made of each prompt's candidates.

    Attributes:
        num: images of each prompt, N, each refined from candidates of its own.
        basis: candidates that each of them is mixed of, M; fewer where there are fewer.
        views: augmented views of an image that are compared with the prompt at each step; as many others, the same at
            all times, are held out to choose and rank by.
        space: "w+" frees a StyleGAN's layers of one another; None leaves latents in the space they are of.
        pull_to: where `Refining.pull` pulls to, "sample", the best candidate, or "mean", the data's.
        refining: how latents are refined, in standard deviations of the data.
    """

    num: int = 1
    basis: int = 5
    views: int = 16
    space: str | None = None
    pull_to: str = "sample"
    refining: Refining = RECOMMENDED

    def __post_init__(self) -> None:
        check_at_least(1, num=self.num, basis=self.basis, views=self.views)
        if self.space not in SPACES:
            raise ValueError(f"space={self.space!r}: expected w+, or none for the latents' own")
        if self.pull_to not in PULLS:
            raise ValueError(f"pull_to={self.pull_to!r}: expected one of {', '.join(PULLS)}")


class Task(NamedTuple):
    """What is refined.

    Attributes:
        prompts: P texts.
        targets: [P, E], what their images should be near.
        basis: [P * N, M, L, D], a prompt's bases one after the other.
    """

    prompts: list[str]
    targets: Tensor
    basis: Tensor


class Outcome(NamedTuple):
    """What came of a task, for P prompts and N images of each, best first.

    Attributes:
        samples: the images; their scores are AugCLIP over the held-out views, their candidates the bases' numbers.
        before: the same score [P, N] of the best candidate in each image's basis.
        clip: CLIP scores [P, N] of the images as they are, which an optimiser flatters more easily.
        found: the step [P, N] that each image was found at.
        stopped: [P, N], why its refinement was stopped, see `refine_state.REASONS`.
        refined: in the order of the task.
    """

    samples: Samples
    before: Tensor
    clip: Tensor
    found: Tensor
    stopped: Tensor
    refined: Refined


def make_task(
    pipeline: TextToImage | Priorless,
    prompts: Sequence[str],
    candidates: Sequence[Tensor],
    plan: Plan,
    template: str = BLANK,
) -> Task:
    """Deals each prompt's candidates out to its bases.

    Args:
        pipeline: its embedder says what images should be near.
        prompts: P prompts: texts, pictures and mixtures, as for `TextToImage.generate`.
        candidates: latents [N, L, D] of each prompt, best first.
        plan: how many bases, and how large.
        template: has {} where each text goes.

    Raises:
        ValueError: for prompts that cannot be read, and fewer candidates than images.
    """
    targets = embed_targets(pipeline.embedder, read_mixtures(prompts, template), pipeline.device)
    return Task(list(prompts), targets, spread(candidates, plan.num, plan.basis))


def task_of(pipeline: TextToImage, samples: Samples, plan: Plan) -> Task:
    """Returns the task of refining samples: their own conditions where these are known, else their prompts."""
    if samples.drawn is None:
        return make_task(pipeline, samples.prompts, samples.latents.unbind(), plan)
    bases = spread(samples.latents.unbind(), plan.num, plan.basis)
    return Task(list(samples.prompts), samples.drawn.conditions.targets, bases)


def refine_samples(
    pipeline: TextToImage, samples: Samples, plan: Plan | None = None, progress: Callable[[State], Any] | None = None
) -> Samples:
    """Returns samples refined: for each prompt the plan's number of images, mixed of its best ones and optimised.

    Args:
        pipeline: drew the samples.
        samples: with as many images of each prompt as `plan.num * plan.basis`, better than fewer.
        plan: how.
        progress: see `refine`.
    """
    plan = plan or Plan()
    return run_task(pipeline, task_of(pipeline, samples, plan), plan, progress).samples


def run_task(
    pipeline: TextToImage | Priorless,
    task: Task,
    plan: Plan,
    progress: Callable[[State], Any] | None = None,
    state: State | None = None,
) -> Outcome:
    """Refines all images of all prompts in one batch, and ranks each prompt's.

    Args:
        pipeline: its generator, its embedder, and the space in whose deviations it goes.
        task: from `make_task`.
        plan: how.
        progress: see `refine`.
        state: where to go on from.

    Raises:
        ValueError: for latents that do not fit the generator.
    """
    device, options, rows = pipeline.device, plan.refining, len(task.basis) // len(task.prompts)
    targets = task.targets.to(device).repeat_interleave(rows, dim=0)  # [P * N, E]
    rng, held = torch.Generator(), torch.Generator().manual_seed(entropy(options.seed, HELD_OUT))
    basis, space = task.basis.to(device), pipeline.space
    unit = space.expand(torch.where(space.std > 0, space.std, torch.ones_like(space.std))[None])[0]
    refined = refine(
        pipeline.generator,
        augclip_objective(pipeline.embedder, targets, views=plan.views, rng=rng),
        basis,
        options,
        augclip_objective(pipeline.embedder, targets, views=plan.views, rng=held, fixed=True),
        progress,
        groups=(1,) * basis.shape[2] if plan.space == "w+" else groups_of(basis, space.groups),
        unit=unit,
        anchor=mean_latent(space) if plan.pull_to == "mean" else None,
        rng=rng,
        state=None if state is None else State.from_tensors(state.to_tensors(), device),
    )
    return _ranked(pipeline, task, refined, options.chunk)


@torch.no_grad()
def _ranked(pipeline: TextToImage | Priorless, task: Task, refined: Refined, chunk: int) -> Outcome:
    prompts = len(task.prompts)
    images = torch.cat([pipeline.draw(part).cpu() for part in refined.latents.split(chunk)])
    found = torch.cat([pipeline.embedder.embed_images(part.to(pipeline.device)).cpu() for part in images.split(chunk)])

    def by_prompt(rows: Tensor) -> Tensor:
        return rows.cpu().unflatten(0, (prompts, -1))

    scores = by_prompt(1 - refined.losses)
    order = scores.sort(dim=1, descending=True, stable=True).indices

    def ranked(rows: Tensor) -> Tensor:
        return by_prompt(rows)[torch.arange(prompts)[:, None], order]

    state = refined.state
    latents, images = ranked(refined.latents), ranked(images)
    samples = Samples(task.prompts, latents, images, ranked(1 - refined.losses), order)
    clip = clip_score(ranked(found), task.targets.cpu())
    return Outcome(samples, ranked(1 - state.start), clip, ranked(state.found), ranked(state.stopped), refined)
