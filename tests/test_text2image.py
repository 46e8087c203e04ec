"""TextToImage: an image depends on (seed, prompt, candidate) alone, and ranking stays within a prompt."""

import pytest
import torch
from tiny_checkpoint import write_tiny_checkpoint
from tiny_models import TinyEmbedder, TinyGenerator

from clip2latent.bridge import Bridge
from clip2latent.chunking import ChunkHalved
from clip2latent.mixtures import read_mixtures
from clip2latent.ranking import rank_by
from clip2latent.spec import ModelSpec
from clip2latent.text2image import Sampling, TextToImage

PROMPTS = ["a red hat", "a dog", "night"]


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory):
    return TextToImage.from_pretrained(write_tiny_checkpoint(tmp_path_factory.mktemp("prior") / "tiny"))


def test_shapes_ranges_and_order(pipeline):
    samples = pipeline.generate(PROMPTS, num=4, candidates=6)
    assert samples.latents.shape == (3, 4, 3, 4) and samples.images.shape == (3, 4, 3, 8, 8)
    assert samples.images.abs().max() <= 1
    assert (samples.scores.diff(dim=1) <= 0).all()
    assert samples.best(2).images.shape == (3, 2, 3, 8, 8) and samples.best().scores.equal(samples.scores[:, :1])
    assert [len(row) for row in samples.to_pil()] == [4, 4, 4]


@pytest.mark.parametrize("sampler", ["dpmpp", "sde-dpmpp", "ddim", "ddpm"])
def test_an_image_does_not_depend_on_chunk_number_or_neighbours(pipeline, sampler):
    options = {"sampler": sampler, "steps": 5, "seed": 7}
    whole = pipeline.generate(PROMPTS, num=5, candidates=5, **options)
    parts = pipeline.generate(PROMPTS, num=5, candidates=5, chunk=2, **options)
    fewer = pipeline.generate(PROMPTS[:2], num=3, candidates=3, **options)
    expected = _by_candidate(whole)
    torch.testing.assert_close(_by_candidate(parts), expected, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(_by_candidate(fewer), expected[:2, :3], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("options", [{}, {"negative": "x", "guidance": 3.0, "sampler": "ddpm", "steps": 5}])
def test_in_batches_of_equal_size_an_image_keeps_its_bits_among_other_prompts(pipeline, options):
    mixed = ["a red hat | night::0.5", *PROMPTS[1:]]
    whole = pipeline.generate(mixed, num=4, candidates=4, chunk=4, **options)
    alone = pipeline.generate(mixed[:1], num=4, candidates=4, **options)
    assert whole.images[:1].equal(alone.images) and whole.scores[:1].equal(alone.scores)
    fewer = pipeline.generate(mixed, num=2, candidates=4, chunk=4, **options)
    assert whole.best(2).images.equal(fewer.images) and whole.best(2).drawn.batches.equal(fewer.drawn.batches)


def test_no_more_than_a_chunk_is_ever_drawn_embedded_or_ranked_at_once(pipeline):
    sizes = []

    class Counting(TinyEmbedder):
        def embed_images(self, images):
            sizes.append(len(images))
            return super().embed_images(images)

    class CountingGenerator(TinyGenerator):
        def synthesize(self, latents):
            sizes.append(len(latents))
            return super().synthesize(latents)

    parts = (pipeline.prior, pipeline.space, pipeline.schedule, CountingGenerator(), Counting())
    samples = TextToImage(*parts).generate(
        PROMPTS * 4, num=1, candidates=7, chunk=10, ranking=rank_by(Counting(seed=2))
    )
    assert max(sizes) == 10 and samples.images.shape == (12, 1, 3, 8, 8)


def test_a_chunk_that_does_not_fit_is_halved_and_the_noise_stays(pipeline):
    class Small(TinyGenerator):
        def synthesize(self, latents):
            if len(latents) > 4:
                raise torch.cuda.OutOfMemoryError("CUDA out of memory.")
            return super().synthesize(latents)

    parts = (pipeline.prior, pipeline.space, pipeline.schedule, Small(), pipeline.embedder)
    options = {"num": 3, "candidates": 6, "sampler": "ddpm", "steps": 5}
    expected = pipeline.generate(PROMPTS, **options, chunk=4, guidance=1.0)
    with pytest.warns(ChunkHalved, match="halved to 4"):
        halved = TextToImage(*parts).generate(PROMPTS, **options, chunk=8, guidance=1.0)
    assert halved.images.equal(expected.images) and halved.drawn.batches.equal(expected.drawn.batches)


def test_another_embedder_ranks_within_each_prompt(pipeline):
    prompts, judge = ["a red hat", "a dog | night::0.5"], TinyEmbedder(seed=7)
    everything = pipeline.generate(prompts, num=6, candidates=6)
    ranked = pipeline.generate(prompts, num=6, candidates=6, ranking=rank_by(judge))
    torch.testing.assert_close(_by_candidate(ranked), _by_candidate(everything))
    for index, objective in enumerate(rank_by(judge)(read_mixtures(prompts))):
        scores = 1 - objective(everything.images[index])
        torch.testing.assert_close(ranked.scores[index], scores.sort(descending=True).values)


def test_a_negative_prompt_takes_the_place_of_the_null_branch(pipeline):
    seen = []
    handle = pipeline.prior.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[2:]))
    pipeline.generate(["a dog"], num=1, candidates=2, guidance=3.0, steps=1, negative="night")
    handle.remove()
    expected = pipeline.embed_text(["a dog", "night"]).repeat_interleave(2, dim=0)
    assert seen[0][0].equal(expected) and (len(seen[0]) == 1 or seen[0][1] is None)


def test_every_stage_is_told_of_every_candidate(pipeline):
    told = []
    pipeline.generate(PROMPTS, num=1, candidates=3, chunk=5, stages=lambda stage, done: told.append((stage, done)))
    stages = ("prior", "drawing", "scoring")
    assert told == [(stage, 5) for stage in stages] + [(stage, 4) for stage in stages]


def test_the_same_seed_gives_equal_bits_and_another_other_images(pipeline):
    one, two = (pipeline.generate(PROMPTS, num=2, seed=3) for _ in range(2))
    assert one.images.equal(two.images) and one.latents.equal(two.latents)
    assert not pipeline.generate(PROMPTS, num=2, seed=4).images.equal(one.images)


def test_ranking_stays_within_each_prompt(pipeline):
    text = pipeline.embed_text(PROMPTS)
    everything = list(pipeline.stream(text, 6, Sampling(seed=1, chunk=4)))
    prompt = torch.cat([part.prompt for part in everything])
    scores = (torch.cat([part.embeddings for part in everything]) * text[prompt]).sum(-1)
    samples = pipeline.generate(PROMPTS, num=2, candidates=6, seed=1)
    for index in range(len(PROMPTS)):
        torch.testing.assert_close(samples.scores[index], scores[prompt == index].sort(descending=True).values[:2])


def test_scores_are_those_of_the_returned_images_and_latents_redraw_them(pipeline):
    samples = pipeline.generate(PROMPTS, num=2)
    text = pipeline.embed_text(PROMPTS)
    for index in range(len(PROMPTS)):
        embeddings = pipeline.embedder.embed_images(samples.images[index])
        torch.testing.assert_close(embeddings @ text[index], samples.scores[index], rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(pipeline.draw(samples.latents[index]), samples.images[index], rtol=1e-3, atol=1e-4)


def test_truncation_0_is_the_mean_latent_and_the_default_guidance_the_recommended_one(pipeline):
    mean = pipeline.generate(PROMPTS[:1], num=1, truncation=0.0).latents
    torch.testing.assert_close(mean, torch.full_like(mean, 0.5))
    given, default = (pipeline.generate(PROMPTS, num=1, guidance=scale).images for scale in (2.0, None))
    assert given.equal(default) and not pipeline.generate(PROMPTS, num=1, guidance=1.0).images.equal(given)


def test_progress_counts_every_candidate(pipeline):
    done = []
    pipeline.generate(PROMPTS, num=1, candidates=5, chunk=4, progress=done.append)
    assert done == [4, 4, 4, 3]


@pytest.mark.parametrize(
    "wrong, message",
    [
        ({"prompts": []}, "no prompt"),
        ({"prompts": ["a", " "]}, "prompt 2 of 2 is empty"),
        ({"prompts": "a dog"}, "expected a list"),
        ({"num": 0}, "num=0"),
        ({"num": 3, "candidates": 2}, "candidates=2"),
        ({"steps": 0}, "steps=0"),
        ({"steps": -4}, "steps=-4"),
        ({"steps": 51}, "at most 50"),
        ({"guidance": -1.0}, "guidance=-1"),
        ({"guidance": float("nan")}, "guidance=nan"),
        ({"truncation": float("inf")}, "truncation=inf"),
        ({"sampler": "euler"}, "dpmpp, ddim, ddpm"),
        ({"seed": -1}, "seed=-1"),
        ({"chunk": 0}, "chunk=0"),
        ({"negative": ""}, "prompt 1 of 1 is empty"),
        ({"negative": ["a", "b"]}, "expected 1 prompt or 3"),
        ({"negative": "a", "guidance": 1.0}, "no effect at guidance 1"),
        ({"template": "a photo"}, "template='a photo'"),
        ({"prompts": ["a |"]}, "empty part"),
    ],
)
def test_wrong_arguments_are_named(pipeline, wrong, message):
    with pytest.raises(ValueError, match=message):
        pipeline.generate(**{"prompts": PROMPTS, **wrong})


def test_the_prior_is_asked_with_texts_centred_by_their_own_mean(pipeline):
    text_mean, seen = torch.tensor([0.3, -0.2, 0.1, 0.0, 0.4]), []
    parts = (pipeline.prior, pipeline.space, pipeline.schedule, pipeline.generator, pipeline.embedder)
    centred = TextToImage(*parts, bridge=Bridge(torch.ones(5), text_mean))
    handle = pipeline.prior.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[2]))
    centred.generate(PROMPTS[:1], num=1, candidates=1, guidance=1.0, steps=1)
    handle.remove()
    expected = torch.nn.functional.normalize(centred.embed_text(PROMPTS[:1]) - text_mean, dim=-1)
    torch.testing.assert_close(seen[0][:1], expected)


def test_an_embedder_of_another_identity_is_refused(pipeline):
    class Known(type(pipeline.embedder)):
        identity = {"model": "another"}  # noqa: RUF012

    recorded = {"class_path": "tiny_models.TinyEmbedder", "identity": {"model": "one"}}
    parts = (pipeline.prior, pipeline.space, pipeline.schedule, pipeline.generator, Known())
    with pytest.raises(ValueError, match=r"another.*one"):
        TextToImage(*parts, config={"embedder": recorded})


def test_a_generator_of_another_shape_is_refused_naming_both_sides(pipeline):
    class Wide(TinyGenerator):
        latent_shape = (3, 9)

    with pytest.raises(ValueError, match=r"\(3, 4\).*Wide.*\(3, 9\)"):
        TextToImage(pipeline.prior, pipeline.space, pipeline.schedule, Wide(), pipeline.embedder)


def test_an_embedder_of_another_width_is_refused_naming_both_sides(pipeline):
    class Wide(type(pipeline.embedder)):
        dim = 6

    with pytest.raises(ValueError, match=r"width 5.*Wide.*6"):
        TextToImage(pipeline.prior, pipeline.space, pipeline.schedule, pipeline.generator, Wide())


def test_other_weights_than_the_priors_are_refused_before_the_first_sample(tmp_path):
    spec = ModelSpec.of("tiny_models.TinyGenerator", {"seed": 1}, TinyGenerator(seed=0)).to_dict()
    with pytest.raises(ValueError, match="sha256"):
        TextToImage.from_pretrained(write_tiny_checkpoint(tmp_path / "tiny", generator=spec))


def test_the_demo_draws_what_the_prompt_says():
    pipeline = TextToImage.from_pretrained("demo")
    prompts = ["a man with a red hat", "a woman at night"]
    samples = pipeline.generate(prompts, num=2)
    swapped = pipeline.generate(prompts[::-1], num=2)
    text = pipeline.embed_text(prompts)
    across = torch.einsum("pe,qne->pqn", text, _embeddings(pipeline, samples)).mean(-1)
    assert (across.diagonal() > across.flip(1).diagonal() + 0.1).all()
    assert samples.scores.min() > 0.3 and swapped.scores.min() > 0.3


def _embeddings(pipeline, samples):
    return torch.stack([pipeline.embedder.embed_images(images) for images in samples.images])


def _by_candidate(samples):
    """Images [P, N, 3, R, R] in the order they were drawn, whatever their rank."""
    rows = zip(samples.images, samples.candidates, strict=True)
    return torch.stack([images[candidates.argsort()] for images, candidates in rows])
