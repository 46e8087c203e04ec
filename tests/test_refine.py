"""Refinement: its laws on problems with known answers, and how it ends when something goes wrong."""

import itertools
import math

import pytest
import torch
from tiny_models import TinyEmbedder, TinyGenerator

from clip2latent.basis import Basis, mixed
from clip2latent.interfaces import Generator
from clip2latent.refine import Refining, refine
from clip2latent.refine_state import NOT_A_NUMBER, PLATEAU, RUNNING, State, adam

L, D = TinyGenerator.latent_shape
GENERATOR = TinyGenerator()
RNG = torch.Generator().manual_seed(0)
BASIS = torch.randn(3, 2, L, D, generator=RNG)
TARGETS = torch.tanh(torch.randn(3, L * D, generator=RNG) @ GENERATOR.weight.T).view(-1, 3, 8, 8)


class Identity:
    """A generator whose images are its latents: losses of latents can be written down."""

    latent_shape, resolution = (2, 6), 2

    def __init__(self, bound=1.0, groups=None):
        self.bound = bound
        if groups:
            self.groups = groups

    def sample_latents(self, num, rng):
        return torch.randn(num, *self.latent_shape, generator=rng)

    def synthesize(self, latents):
        return latents.reshape(-1, 3, 2, 2)

    def project(self, latents):
        return latents.clamp(-self.bound, self.bound)


def distance(targets):
    return lambda images: (images - targets).square().mean(dim=(1, 2, 3))


def run(objective=None, basis=BASIS, held_out=None, generator=GENERATOR, **options):
    named = {name: options.pop(name) for name in ("groups", "unit", "anchor", "rng", "state") if name in options}
    progress = options.pop("progress", None)
    return refine(generator, objective or distance(TARGETS), basis, Refining(**options), held_out, progress, **named)


def test_the_tiny_generator_of_these_tests_is_one():
    assert isinstance(Identity(), Generator)


@pytest.mark.parametrize("weights", ["shared", "each"])
def test_it_finds_a_known_minimum(weights):
    refined = run(steps=400, lr=0.05, weights=weights)
    assert refined.latents.shape == (3, L, D) and not refined.interrupted
    assert (refined.losses < 0.1 * refined.state.start).all()
    torch.testing.assert_close(distance(TARGETS)(GENERATOR.synthesize(refined.latents)), refined.losses)


def test_each_step_is_adam_s():
    basis = Basis(BASIS.clone(), torch.zeros(3, 2, 1, 1))
    leaves = [part.clone().requires_grad_() for part in basis]
    optimiser = torch.optim.Adam(leaves, lr=0.01)
    zeros = Basis(*(torch.zeros_like(part) for part in basis))
    none = torch.zeros(3, dtype=torch.int64)
    state = State(none[:1].sum(), basis, zeros, zeros, BASIS[:, 0], *[none] * 7)
    ones = Basis(torch.ones(()), torch.ones(()))
    for _ in range(5):
        optimiser.zero_grad()
        mixed(Basis(*leaves)).sin().sum().backward()
        state = adam(state, Basis(*(leaf.grad for leaf in leaves)), ones, 0.01)
        optimiser.step()
    for leaf, part in zip(leaves, state.basis, strict=True):
        torch.testing.assert_close(leaf.detach(), part, rtol=0, atol=1e-6)


def test_a_problem_s_result_is_its_own():
    together = run(steps=30, lr=0.02, noise=0.05)
    for row in range(3):
        alone = run(distance(TARGETS[row : row + 1]), BASIS[row : row + 1], steps=30, lr=0.02)
        without_noise = run(steps=30, lr=0.02)
        torch.testing.assert_close(alone.latents[0], without_noise.latents[row], rtol=1e-4, atol=1e-5)
    two = run(distance(TARGETS[:2]), BASIS[:2], steps=30, lr=0.02, noise=0.05)
    torch.testing.assert_close(two.latents, together.latents[:2], rtol=1e-4, atol=1e-5)


def test_chunks_of_images_change_nothing_but_rounding():
    torch.testing.assert_close(run(steps=20, chunk=1).latents, run(steps=20).latents, rtol=1e-5, atol=1e-6)


def test_the_best_is_kept_and_not_the_last():
    far = run(steps=60, lr=0.5, check=1)  # much too fast: the way goes up and down
    seen = []
    run(steps=60, lr=0.5, check=1, progress=lambda state: seen.append(state.losses))
    assert all((later <= earlier).all() for earlier, later in itertools.pairwise(seen))
    last = distance(TARGETS)(GENERATOR.synthesize(mixed(far.state.basis)))
    assert (far.losses <= last).all() and (far.losses < last).any()


def test_the_best_is_chosen_by_the_held_out_objective():
    opposite = run(held_out=lambda images: -distance(TARGETS)(images), steps=40, lr=0.05)
    members = -torch.stack([distance(TARGETS)(GENERATOR.synthesize(member)) for member in BASIS.unbind(1)])
    torch.testing.assert_close(opposite.losses, members.amin(0))  # what is optimised only makes it worse
    assert (opposite.state.found == 0).all()


def test_no_steps_give_the_best_of_the_basis_or_its_mean():
    refined = run(steps=0)
    kinds = torch.stack([distance(TARGETS)(GENERATOR.synthesize(x)) for x in (*BASIS.unbind(1), BASIS.mean(1))])
    torch.testing.assert_close(refined.losses, kinds.amin(0))
    torch.testing.assert_close(refined.state.start, kinds[:2].amin(0))


def test_latents_stay_valid():
    generator, wanted = Identity(bound=0.5), torch.full((1, 3, 2, 2), 0.9)
    basis = torch.zeros(1, 3, 2, 6) + torch.tensor([3.0, 0.1, -0.2]).view(1, 3, 1, 1)
    refined = run(distance(wanted), basis, generator=generator, steps=200, lr=0.05)
    assert (refined.state.basis.members.abs() <= 0.5).all()
    torch.testing.assert_close(refined.latents, torch.full((1, 2, 6), 0.5))


def test_rows_of_w_stay_equal_until_they_are_freed():
    generator = Identity(groups=(2,))
    wanted = torch.cat([torch.full((1, 6), 0.5), torch.full((1, 6), -0.3)]).view(1, 3, 2, 2)
    basis = torch.zeros(1, 1, 2, 6)
    together = run(distance(wanted), basis, generator=generator, steps=300, lr=0.02, patience=None)
    torch.testing.assert_close(together.latents, torch.full((1, 2, 6), 0.1), rtol=0, atol=1e-3)
    apart = run(distance(wanted), basis, generator=generator, groups=(1, 1), steps=300, lr=0.02, patience=None)
    torch.testing.assert_close(apart.latents.view(1, 3, 2, 2), wanted, rtol=0, atol=1e-3)


def test_pull_balances_against_the_objective():
    wanted, anchor = torch.full((1, 3, 2, 2), 0.8), torch.zeros(2, 6)
    plain, units = dict(generator=Identity(), steps=400, lr=0.02, patience=None), torch.full((2, 6), 2.0)
    pulled = run(distance(wanted), torch.full((1, 1, 2, 6), 0.4), anchor=anchor, pull=1.0, **plain)
    # The minimum of (x - 0.8)^2 + x^2 is passed on the way to 0.8, were it not for the pull.
    torch.testing.assert_close(mixed(pulled.state.basis), torch.full((1, 2, 6), 0.4), rtol=0, atol=1e-3)
    weaker = run(distance(wanted), torch.full((1, 1, 2, 6), 0.4), anchor=anchor, unit=units, pull=1.0, **plain)
    torch.testing.assert_close(mixed(weaker.state.basis), torch.full((1, 2, 6), 0.64), rtol=0, atol=1e-3)


def test_steps_are_in_units_of_the_latents():
    narrow, wide = (run(steps=1, lr=0.01, unit=torch.full((L, D), size)) for size in (1.0, 10.0))
    first, tenfold = (refined.state.basis.members - BASIS for refined in (narrow, wide))
    torch.testing.assert_close(tenfold, 10 * first, rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(first.abs(), torch.full_like(first, 0.01), rtol=1e-3, atol=1e-5)


def test_a_plateau_stops_its_problem_alone():
    basis = torch.zeros(2, 1, 2, 6)
    wanted = torch.stack([torch.zeros(3, 2, 2), torch.full((3, 2, 2), 0.9)])  # the first has nothing to gain
    steps = []
    settings = dict(generator=Identity(), steps=200, lr=0.01, patience=30, check=5)
    refined = run(distance(wanted), basis, progress=lambda state: steps.append(int(state.step)), **settings)
    assert refined.state.stopped.tolist() == [PLATEAU, PLATEAU] and 80 < steps[-1] < 200
    assert refined.state.found[0] == 0 and refined.latents[0].eq(0).all()
    assert refined.state.found[1] > 60 and refined.losses[1] < 1e-3
    assert run(distance(wanted), basis, **settings | {"patience": None}).state.step == 200


@pytest.mark.parametrize("broken", [float("nan"), float("inf")])
def test_a_loss_that_is_no_number_ends_its_problem_with_the_best_so_far(broken):
    calls = []

    def objective(images):
        calls.append(len(images))
        return distance(TARGETS)(images) * torch.tensor([1.0, broken if len(calls) > 12 else 1.0, 1.0])

    refined = run(objective, held_out=distance(TARGETS), steps=40, lr=0.02)
    assert refined.state.stopped.tolist() == [RUNNING, NOT_A_NUMBER, RUNNING] and refined.state.step == 40
    assert refined.latents.isfinite().all() and refined.losses[1] < refined.state.start[1]
    assert refined.state.basis.members.isfinite().all() and refined.state.found[1] == 10
    sound = run(steps=40, lr=0.02)
    torch.testing.assert_close(refined.latents[[0, 2]], sound.latents[[0, 2]])


def test_latents_without_any_finite_loss_are_refused():
    generator = TinyGenerator(broken_after=2.0)
    basis = BASIS.clamp(-1, 1).clone()
    basis[1] = 9.0
    with pytest.raises(ValueError, match=r"problems \[1\]"):
        run(basis=basis, generator=generator, steps=3)


def test_an_interruption_keeps_the_best_so_far():
    def interrupt(state):
        if state.step == 17:
            raise KeyboardInterrupt

    refined, whole = run(steps=40, lr=0.02, progress=interrupt), run(steps=10, lr=0.02)
    assert refined.interrupted and refined.state.step == 17
    torch.testing.assert_close(refined.latents, whole.latents)


def random_objective(rng):
    """Compares with targets through random weights, as views of an image would."""
    return lambda images: ((images - TARGETS).square() * torch.rand(TARGETS.shape[1:], generator=rng)).mean((1, 2, 3))


@pytest.mark.parametrize("weights", ["shared", "each"])
def test_a_run_that_goes_on_equals_one_that_was_never_stopped(weights):
    settings = dict(lr=0.02, noise=0.05, weights=weights, held_out=distance(TARGETS))

    def go(steps, state=None):
        rng = torch.Generator()
        return run(random_objective(rng), rng=rng, steps=steps, state=state, **settings)

    half = go(20)
    saved = State.from_tensors(half.state.to_tensors())
    torch.testing.assert_close(go(40, saved).latents, go(40).latents, rtol=0, atol=0)
    torch.testing.assert_close(go(40, saved).state.basis.members, go(40).state.basis.members, rtol=0, atol=0)


def test_the_rate_falls_along_a_cosine_to_nothing_and_goes_on_where_it_was():
    def go(state=None, stop=None, **options):
        seen = []

        def watch(state):
            seen.append(state)
            if stop is not None and state.step == stop:
                raise KeyboardInterrupt

        return seen, run(lr=0.02, steps=20, held_out=distance(TARGETS), state=state, progress=watch, **options)

    def first_move(states, step):  # of one number whose gradient keeps its sign
        return (states[step + 1].basis.members - states[step].basis.members).abs().amax()

    falling, whole = go(decay="cosine")
    steady, _ = go()
    for step in (0, 10, 19):
        share = (1 + math.cos(math.pi * step / 20)) / 2
        assert 0.5 * share * 0.02 < first_move(falling, step) < 2.5 * share * 0.02
        assert 0.5 * 0.02 < first_move(steady, step) < 2.5 * 0.02
    _, cut = go(decay="cosine", stop=13)
    assert cut.interrupted
    _, ended = go(decay="cosine", state=State.from_tensors(cut.state.to_tensors()))
    assert ended.state.basis.members.equal(whole.state.basis.members) and ended.latents.equal(whole.latents)


def test_a_seed_gives_the_same_result_and_another_another():
    def go(seed):
        rng = torch.Generator()
        return run(random_objective(rng), rng=rng, steps=15, seed=seed, noise=0.1, check=1).state.basis.members

    assert go(0).equal(go(0)) and not go(0).allclose(go(1))


def test_an_embedder_s_cosine_can_be_raised():
    embedder = TinyEmbedder()
    target = embedder.embed_text(["a hat"])
    refined = run(lambda images: 1 - (embedder.embed_images(images) * target).sum(-1), steps=100, lr=0.05)
    assert (refined.losses < refined.state.start - 0.1).all()


def test_arguments_stay_as_they_were():
    before = BASIS.clone()
    run(steps=3)
    assert BASIS.equal(before) and not BASIS.requires_grad


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: run(basis=BASIS[0]), r"expected latents \[P, M, 3, 4\]"),
        (lambda: run(basis=BASIS[:0]), "expected latents"),
        (lambda: run(basis=BASIS / 0), "finite latents"),
        (lambda: run(unit=torch.zeros(L, D)), "unit"),
        (lambda: run(unit=torch.ones(D)), "unit"),
        (lambda: Refining(steps=-1), "steps=-1"),
        (lambda: Refining(lr=float("nan")), "lr=nan"),
        (lambda: Refining(check=0), "check=0"),
        (lambda: Refining(patience=0), "patience=0"),
        (lambda: Refining(weights="all"), "weights='all'"),
        (lambda: Refining(decay="linear"), "decay='linear': expected one of constant, cosine"),
    ],
)
def test_what_does_not_fit_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_damaged_states_are_refused():
    tensors = run(steps=2).state.to_tensors()
    State.from_tensors(tensors)
    for change, message in (
        ({"best": tensors["best"][:2]}, "members"),
        ({"losses": tensors["losses"][:1]}, "belong together"),
        ({"first.members": tensors["first.members"] / 0}, "belong together"),
    ):
        with pytest.raises(ValueError, match=message):
            State.from_tensors(tensors | change)
    del tensors["second.logits"]
    with pytest.raises(ValueError, match=r"lacks second\.logits"):
        State.from_tensors(tensors)
