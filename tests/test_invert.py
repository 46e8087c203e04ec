"""Inversion: what the generator drew is found again, distances fall, problems do not know of each other."""

import pytest
import torch
from tiny_models import TinyEmbedder, TinyGenerator

from clip2latent.invert import Inverting, Likeness, compare_by, fit_picture, invert, nearest
from clip2latent.perceptual import crop_distance
from clip2latent.refine import Refining
from clip2latent.refine_state import NOT_A_NUMBER, RUNNING

GENERATOR, EMBEDDER = TinyGenerator(), TinyEmbedder()
COMPARISON = compare_by(EMBEDDER, crop_distance(EMBEDDER))


def latents(num, seed=0, layers_alike=True):
    rng = torch.Generator().manual_seed(seed)
    return GENERATOR.sample_latents(num, rng) if layers_alike else torch.randn(num, 3, 4, generator=rng)


def quick(steps=100, lr=0.1, **options):
    return Inverting(**options, refining=Refining(steps=steps, lr=lr))


@pytest.mark.parametrize("space", [None, "w+"])
def test_a_picture_that_the_generator_drew_is_found_again(space):
    made = invert(
        GENERATOR, COMPARISON, GENERATOR.synthesize(latents(3)), latents(3, 1), quick(space=space), groups=(3,)
    )
    assert (made.after.pixels < 0.01).all() and (made.before.pixels > 0.05).all()
    assert (made.after.clip < 2e-3).all()
    assert torch.allclose(made.images, GENERATOR.synthesize(made.latents).clamp(-1, 1))


def test_layers_move_apart_in_w_plus_only():
    """A picture of three different layers is out of reach of w."""
    pictures, starts = GENERATOR.synthesize(latents(2, layers_alike=False)), latents(2, 1)
    alike = invert(GENERATOR, COMPARISON, pictures, starts, quick(), groups=(3,))
    apart = invert(GENERATOR, COMPARISON, pictures, starts, quick(space="w+"), groups=(3,))
    assert alike.latents.equal(alike.latents[:, :1].expand_as(alike.latents))
    assert (apart.after.pixels < 0.2 * alike.after.pixels).all()


@pytest.mark.parametrize("only", Likeness._fields)
def test_the_distance_that_is_weighed_falls(only):
    weights = {name: float(name == only) for name in Likeness._fields}
    pictures = GENERATOR.synthesize(latents(4))
    made = invert(GENERATOR, COMPARISON, pictures, latents(4, 1), quick(50, **weights))
    before, after = (getattr(likeness, only) for likeness in (made.before, made.after))
    assert (after < 0.3 * before).all()
    assert torch.allclose(quick(**weights).loss(made.after), after)


def test_pictures_are_seen_once_however_many_steps_there_are():
    class Counting(TinyEmbedder):
        seen = 0

        def embed_images(self, images):
            self.seen += torch.equal(images, pictures)
            return super().embed_images(images)

    pictures, embedder = GENERATOR.synthesize(latents(3)), Counting()
    invert(GENERATOR, compare_by(embedder, crop_distance(EMBEDDER)), pictures, latents(3, 1), quick(12))
    assert embedder.seen == 1


def test_a_loss_that_is_no_number_ends_its_picture_with_the_best_so_far():
    pictures, calls = GENERATOR.synthesize(latents(2)), []

    def breaking(pictures):
        compared = COMPARISON(pictures)

        def likeness(images):
            calls.append(len(images))
            found = compared(images)
            broken = torch.tensor([1.0, torch.nan if images.requires_grad and len(calls) > 15 else 1.0])
            return found._replace(pixels=found.pixels * broken)

        return likeness

    made = invert(GENERATOR, breaking, pictures, latents(2, 1), quick(40))
    assert made.stopped.tolist() == [RUNNING, NOT_A_NUMBER] and made.found[0] > 30 and 0 < made.found[1] < 20
    assert made.images.isfinite().all() and made.after.pixels[1] < made.before.pixels[1]


def test_a_picture_does_not_know_of_the_others():
    pictures, starts = GENERATOR.synthesize(latents(3)), latents(3, 1)
    both = invert(GENERATOR, COMPARISON, pictures, starts, quick(20))
    alone = invert(GENERATOR, COMPARISON, pictures[1:2], starts[1:2], quick(20))
    assert torch.allclose(both.latents[1:2], alone.latents, atol=1e-4)
    assert torch.allclose(both.start[1:2], GENERATOR.synthesize(starts[1:2]))


def test_an_interruption_keeps_the_best_so_far():
    def stop(state):
        if int(state.step) == 30:
            raise KeyboardInterrupt

    pictures = GENERATOR.synthesize(latents(2))
    made = invert(GENERATOR, COMPARISON, pictures, latents(2, 1), quick(), stop)
    assert made.interrupted and int(made.found.max()) <= 30
    assert (made.after.pixels < made.before.pixels).all()


def test_the_nearest_of_candidates_is_the_start():
    candidates = latents(9)
    for row in (0, 5):
        picture = GENERATOR.synthesize(candidates[row : row + 1])
        chosen = nearest(GENERATOR, COMPARISON, quick(), candidates, picture)
        assert chosen.equal(candidates[row])
    with pytest.raises(ValueError, match="not a number"):
        nearest(TinyGenerator(broken_after=-100), COMPARISON, quick(), candidates, picture)


def test_pictures_are_brought_to_the_generators_side():
    picture = torch.rand(1, 3, 40, 40) * 2 - 1
    fitted = fit_picture(picture, 8)
    assert fitted.shape == (1, 3, 8, 8) and fitted.abs().max() <= 1
    assert torch.allclose(fitted.mean(), picture.mean(), atol=0.02)
    assert fit_picture(fitted, 8) is fitted
    assert torch.allclose(fit_picture(torch.full((1, 3, 5, 5), 0.25), 8), torch.full((1, 3, 8, 8), 0.25), atol=1e-6)


def test_a_picture_without_difference_has_distance_zero():
    pictures = GENERATOR.synthesize(latents(2)).requires_grad_()
    likeness = COMPARISON(pictures.detach())(pictures)
    assert all(torch.allclose(distance, torch.zeros(2), atol=1e-6) for distance in likeness)
    gradient = torch.autograd.grad(quick().loss(COMPARISON(pictures.detach().flip(0))(pictures)).sum(), pictures)[0]
    assert gradient.abs().sum() > 0


def test_what_cannot_be_inverted_is_refused():
    starts = latents(2)
    with pytest.raises(ValueError, match="fit_picture"):
        invert(GENERATOR, COMPARISON, torch.zeros(2, 3, 16, 16), starts)
    with pytest.raises(ValueError, match="one for each start"):
        invert(GENERATOR, COMPARISON, torch.zeros(3, 3, 8, 8), starts)
    for wrong, message in (({"space": "z"}, "space"), ({"pixels": -1}, "weights"), ({"clip": float("nan")}, "weights")):
        with pytest.raises(ValueError, match=message):
            Inverting(**wrong)
    with pytest.raises(ValueError, match="above"):
        Inverting(0, 0, 0)
