"""Composition on tiny models: laws of the search, of what it keeps, and of what it depends on."""

import itertools

import pytest
import torch
from tiny_models import TinyGenerator

from clip2latent.compose import compose
from clip2latent.composition import Composing, Part, draw_candidates, fuse
from clip2latent.composition_state import State
from clip2latent.paste import LOCATIONS, Placement

PLACES = [Placement(scale, place) for scale in (0.25, 0.5) for place in LOCATIONS]


class Canvas(TinyGenerator):
    """latents [B, 3, 4] -> images [B, 3, 8, 8] of three even colours, each of one row's first number."""

    def synthesize(self, latents):
        return torch.tanh(latents[:, :, 0])[:, :, None, None].expand(-1, -1, 8, 8)

    def project(self, latents):
        return latents.clamp(-2, 2)


TARGET = torch.zeros(3, 8, 8)
TARGET[0, 4:, :4] = 0.9  # a red square at the bottom left, half as wide as the picture


def missing(images):
    """The loss of a picture that should be the target."""
    return (images - TARGET).square().mean((1, 2, 3))


def contrast(fused, backgrounds):
    return (fused - backgrounds).square().mean((1, 2, 3))


def part(seed, members=3, generator=None):
    return Part(generator or Canvas(), torch.randn(members, 3, 4, generator=torch.Generator().manual_seed(seed)))


def composed(places=PLACES, objective=missing, parts=None, **options):
    options = {"steps": 64, "lr": 0.05, "tolerance": 0.0005, "check": 4} | options
    more = {name: options.pop(name) for name in ("held_out", "progress", "rng", "state") if name in options}
    return compose(*(parts or (part(0), part(1))), objective, contrast, places, Composing(**options), **more)


def test_the_search_finds_size_place_and_colours():
    made = composed(steps=128)
    best = made.candidates[0]
    assert best.placement == (0.5, "bottom-left") and best.steps == 128 and not made.interrupted and not made.broken
    fused = draw_candidates(part(0), part(1), made.candidates[:1]).images[0]
    assert (fused - TARGET).abs().max() < 0.15
    assert len({candidate.placement for candidate in made.candidates}) == len(PLACES)


def test_what_is_kept_is_what_was_measured():
    made = composed(steps=16)
    fused = draw_candidates(part(0), part(1), made.candidates, chunk=5)
    losses = torch.tensor([[each.best.primary, each.best.secondary] for each in made.candidates])
    torch.testing.assert_close(missing(fused.images), losses[:, 0])
    torch.testing.assert_close(contrast(fused.images, fused.backgrounds), losses[:, 1])
    assert fused.foregrounds.shape == fused.images.shape == (18, 3, 8, 8)


def test_halving_gives_the_last_one_what_it_gets_alone():
    """Whatever else is tried, however many at once: a candidate's views and steps are its own."""
    rng = torch.Generator()

    def noisy(images):
        return missing(images) + 0.1 * (images * torch.randn(8, generator=rng)).mean((1, 2, 3))

    options = {"objective": noisy, "held_out": missing, "rng": rng, "steps": 40}
    whole = composed(chunk=4, **options).candidates[0]
    alone = composed([whole.placement], **options).candidates[0]
    torch.testing.assert_close(whole.best.foreground, alone.best.foreground, rtol=1e-4, atol=1e-5)
    assert whole.best.primary == pytest.approx(alone.best.primary, abs=1e-6)
    again = composed(chunk=4, **options).candidates[0]
    assert again.best.foreground.equal(whole.best.foreground)
    other = composed([whole.placement], seed=1, **options).candidates[0]
    assert not other.best.foreground.equal(alone.best.foreground)


def test_all_gives_every_candidate_all_steps():
    assert {each.steps for each in composed(PLACES[:5], steps=6, search="all").candidates} == {6}
    assert sorted(each.steps for each in composed(PLACES[:5], steps=8).candidates) == [1, 1, 2, 4, 8]


def seam_of(way, **options):
    best = composed([Placement(0.5, "bottom-left")], way=way, steps=200, **options).candidates[0].best
    return best.primary, best.secondary


def test_each_way_puts_first_what_it_says():
    """The red square makes a seam: only who puts the seam first gives the square up."""
    prompt_first, seam_first = seam_of("bilevel"), seam_of("inverted")
    assert prompt_first[0] < 0.005 and prompt_first[1] > 0.05
    assert seam_first[1] < 1e-3 and seam_first[0] > 0.04
    some, more = seam_of("linear", weight=0.3), seam_of("linear", weight=3.0)
    assert prompt_first[0] < some[0] < more[0] < seam_first[0]
    assert prompt_first[1] > some[1] > more[1] > seam_first[1]


def test_the_second_loss_falls_where_the_first_leaves_it_free():
    """Only the left half is asked for; the right half of the background is free to match, and does."""

    def left(images):
        return images[..., :4].sub(0.5).square().mean((1, 2, 3))

    places = [Placement(0.5, "top-right")]
    options = {"objective": left, "steps": 150}
    kept = composed(places, **options).candidates[0].best
    first_only = composed(places, way="linear", weight=0.0, **options).candidates[0].best
    assert kept.primary < 2e-3 and kept.secondary < 0.01 < first_only.secondary


def test_the_best_held_out_look_is_kept_and_the_other_loss_breaks_near_ties():
    seen = iter([0.5, 0.3, 0.304, 0.2999, 0.4])
    seams = iter([1.0, 0.9, 0.5, 0.8, 0.1])

    def held_out(images):
        return torch.full((len(images),), next(seen))

    def seam(fused, backgrounds):
        value = torch.zeros(len(fused)) if torch.is_grad_enabled() else torch.full((len(fused),), next(seams))
        return value + 0 * contrast(fused, backgrounds)

    how = Composing(steps=4, check=1, tolerance=0.005)
    best = compose(part(0), part(1), missing, seam, PLACES[:1], how, held_out).candidates[0].best
    assert (best.step, round(best.primary, 3), best.secondary) == (2, 0.304, 0.5)


def test_an_interruption_keeps_the_best_so_far():
    def stop(report):
        if report.done >= 30:
            raise KeyboardInterrupt

    made = composed(progress=stop, steps=100)
    assert made.interrupted and len(made.candidates) == len(PLACES) and made.candidates[0].best.primary > 0
    start = composed(steps=0)
    assert made.candidates[0].best.primary <= min(each.best.primary for each in start.candidates)


def test_a_search_that_goes_on_ends_as_one_that_was_never_stopped():
    states = []

    def noisy(rng):
        return lambda images: missing(images) + 0.1 * (images * torch.randn(8, generator=rng)).mean((1, 2, 3))

    def go(**more):
        rng = torch.Generator()
        return composed(PLACES[:5], noisy(rng), held_out=missing, rng=rng, steps=16, chunk=2, **more)

    whole = go(progress=lambda report: states.append(report.state))
    for state in states[::7]:
        made = go(state=State.from_tensors(state.to_tensors()))
        for one, other in zip(made.candidates, whole.candidates, strict=True):
            assert one.placement == other.placement and one.steps == other.steps
            assert one.best.foreground.equal(other.best.foreground) and one.best[:3] == other.best[:3]


def test_states_that_are_damaged_or_of_another_search_are_refused():
    state = composed(PLACES[:2], steps=2).state
    with pytest.raises(ValueError, match="of 2 sizes and places, expected 3"):
        composed(PLACES[:3], steps=2, state=state)
    tensors = state.to_tensors()
    for change in (
        {"rows": torch.tensor([2])},
        {"best.step": torch.zeros(1)},
        {"best.primary": torch.tensor([torch.nan] * 2)},
    ):
        with pytest.raises(ValueError, match="belong together"):
            State.from_tensors(tensors | change)
    del tensors["moments.square"]
    with pytest.raises(ValueError, match=r"lacks moments\.square"):
        State.from_tensors(tensors)


def test_progress_counts_up_to_its_total():
    reports = []
    made = composed(progress=reports.append, steps=16, chunk=5)
    assert reports[-1].done == reports[-1].total and reports[-1].left == 1
    assert all(one.done < two.done for one, two in itertools.pairwise(reports))
    assert reports[-1].best.best.primary == made.candidates[0].best.primary


def test_a_candidate_whose_loss_is_not_a_number_drops_out_with_the_best_it_had():
    """Foregrounds at the top break once they are bright; the others go on."""

    def fragile(images):
        return missing(images) + torch.where(images[:, 2, 0, 0] < -0.2, torch.nan, 0.0)

    sad = [Part(Canvas(), torch.full((2, 3, 4), value)) for value in (0.0, -0.1)]
    places = [Placement(0.5, "top-left"), Placement(0.5, "bottom-right")]

    def darker(images):
        return fragile(images) + images[:, 2, 0, 0]

    made = composed(places, objective=darker, held_out=missing, parts=sad, search="all", steps=40)
    assert made.broken and len(made.candidates) == 2
    assert all(each.best.foreground.isfinite().all() for each in made.candidates)


def test_nothing_to_compare_is_an_error():
    with pytest.raises(ValueError, match="not numbers before the first step"):
        composed(objective=lambda images: missing(images) * torch.nan)


def test_latents_stay_valid_and_bases_alone():
    basis = part(0).basis.clone()
    made = composed(parts=(Part(Canvas(), basis), part(1)), steps=30, lr=1.0)
    assert basis.equal(part(0).basis)
    assert all(each.best.foreground.abs().max() <= 2 for each in made.candidates)


def test_both_images_may_come_of_generators_that_differ():
    class Small(Canvas):
        latent_shape, resolution = (1, 5), 4

        def synthesize(self, latents):
            return latents[:, 0, :3].tanh()[:, :, None, None].expand(-1, -1, 4, 4)

    small = Part(Small(), torch.randn(2, 1, 5, generator=torch.Generator().manual_seed(2)), torch.full((1, 5), 0.5))
    made = composed(PLACES[-4:], parts=(small, part(1)), steps=8, weights="each")
    best = made.candidates[0].best
    assert best.foreground.shape == (1, 5) and best.background.shape == (3, 4)
    fused = fuse(small.generator, Canvas(), best.foreground[None], best.background[None], [PLACES[-1]])
    assert fused.foregrounds.shape == (1, 3, 4, 4) and fused.images.shape == (1, 3, 8, 8)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"way": "both"}, "way='both': expected one of bilevel, linear, inverted"),
        ({"search": "some"}, "search='some'"),
        ({"weights": "own"}, "weights='own'"),
        ({"steps": -1}, "steps=-1"),
        ({"check": 0}, "check=0"),
        ({"parts": (Part(Canvas(), torch.zeros(2, 4)), part(1))}, r"foreground: expected a basis \[M, 3, 4\]"),
    ],
)
def test_what_makes_no_sense_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        composed(**options)
