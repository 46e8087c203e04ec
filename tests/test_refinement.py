"""Refined images of prompts: better held-out scores, ranked, and the same whoever else is refined beside them."""

import pytest
import torch
from tiny_checkpoint import write_tiny_checkpoint

from clip2latent.edit import mean_latent
from clip2latent.objectives import augclip_objective
from clip2latent.refine import HELD_OUT, Refining, entropy
from clip2latent.refinement import Plan, make_task, refine_samples, run_task, task_of
from clip2latent.text2image import TextToImage

PROMPTS = ["a hat", "night"]


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory):
    return TextToImage.from_pretrained(write_tiny_checkpoint(tmp_path_factory.mktemp("tiny") / "tiny"))


@pytest.fixture(scope="module")
def samples(pipeline):
    return pipeline.generate(PROMPTS, num=6, candidates=8)


def quick(**changes):
    options = {name: changes.pop(name) for name in ("num", "basis", "views", "space", "pull_to") if name in changes}
    return Plan(
        **{"num": 2, "basis": 3, "views": 4, **options}, refining=Refining(**{"steps": 20, "lr": 0.05, **changes})
    )


def test_a_prompt_s_candidates_are_its_bases(pipeline, samples):
    task = task_of(pipeline, samples, quick())
    assert task.basis.shape == (4, 3, 3, 4) and task.targets.equal(samples.drawn.conditions.targets)
    assert task.basis[1].equal(samples.latents[0, [1, 3, 5]]) and task.basis[2].equal(samples.latents[1, [0, 2, 4]])
    again = make_task(pipeline, PROMPTS, samples.latents.unbind(), quick())
    assert again.basis.equal(task.basis) and again.targets.equal(task.targets)


def test_refined_images_score_higher_and_are_ranked(pipeline, samples):
    outcome = run_task(pipeline, task_of(pipeline, samples, quick()), quick())
    refined = outcome.samples
    assert refined.latents.shape == (2, 2, 3, 4) and refined.images.shape == (2, 2, 3, 8, 8)
    assert (refined.scores.diff(dim=1) <= 0).all() and (refined.scores > outcome.before + 0.01).all()
    assert {tuple(sorted(row)) for row in refined.candidates.tolist()} == {(0, 1)}
    assert refined.prompts == PROMPTS
    torch.testing.assert_close(pipeline.draw(refined.latents.flatten(0, 1)).view(refined.images.shape), refined.images)


def test_scores_are_augclip_over_the_held_out_views(pipeline, samples):
    outcome = run_task(pipeline, task_of(pipeline, samples, quick(seed=3)), quick(seed=3))
    rng = torch.Generator().manual_seed(entropy(3, HELD_OUT))
    targets = samples.drawn.conditions.targets.repeat_interleave(2, dim=0)
    held_out = augclip_objective(pipeline.embedder, targets, views=4, rng=rng, fixed=True)
    torch.testing.assert_close(1 - held_out(outcome.samples.images.flatten(0, 1)), outcome.samples.scores.flatten())
    embeddings = pipeline.embedder.embed_images(outcome.samples.images.flatten(0, 1))
    torch.testing.assert_close((embeddings * targets).sum(-1), outcome.clip.flatten())


def test_a_prompt_is_refined_alike_in_other_company(pipeline, samples):
    both = run_task(pipeline, task_of(pipeline, samples, quick(noise=0.01)), quick(noise=0.01)).refined
    alone = make_task(pipeline, PROMPTS[:1], samples.latents[:1], quick(noise=0.01))
    alone = run_task(pipeline, alone, quick(noise=0.01)).refined
    torch.testing.assert_close(both.latents[:2], alone.latents, rtol=1e-4, atol=1e-5)


def test_latents_of_w_stay_in_w_and_w_plus_frees_them(pipeline, samples):
    plan = quick(num=1)
    inside = refine_samples(pipeline, samples, plan)
    assert inside.latents.eq(inside.latents[:, :, :1]).all()
    freed = refine_samples(pipeline, samples, quick(num=1, space="w+"))
    assert not freed.latents.allclose(freed.latents[:, :, :1], atol=1e-3)
    assert (freed.scores > inside.scores - 0.02).all()


def test_pull_keeps_latents_near(pipeline, samples):
    start = samples.latents[:, :1]

    def far(plan, anchor):
        return (refine_samples(pipeline, samples, plan).latents - anchor).square().mean()

    assert far(quick(num=1, pull=3.0), start) < 0.5 * far(quick(num=1), start)
    mean = mean_latent(pipeline.space)
    assert far(quick(num=1, pull=3.0, pull_to="mean"), mean) < 0.9 * far(quick(num=1), mean)


def test_samples_read_from_elsewhere_are_embedded_anew(pipeline, samples):
    import dataclasses

    unknown = dataclasses.replace(samples, drawn=None)
    assert refine_samples(pipeline, unknown, quick()).latents.equal(refine_samples(pipeline, samples, quick()).latents)


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: Plan(num=0), "num=0"),
        (lambda: Plan(views=0), "views=0"),
        (lambda: Plan(space="z"), "space='z'"),
        (lambda: Plan(pull_to="w"), "pull_to='w'"),
    ],
)
def test_what_does_not_fit_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_fewer_candidates_than_images_are_refused(pipeline, samples):
    with pytest.raises(ValueError, match="num=7: expected at most 6"):
        refine_samples(pipeline, samples, Plan(num=7))
