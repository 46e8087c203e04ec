"""Descent on two losses: each way reaches its known solution, and the loss that comes first pays for nothing."""

import pytest
import torch

from clip2latent.barrier import WAYS, Moments, bilevel, descend, inverted, linear

RNG = torch.Generator().manual_seed(3)
A, SHIFT_A = (torch.randn(*shape, generator=RNG, dtype=torch.float64) for shape in ((2, 4), (2,)))
B, SHIFT_B = (torch.randn(*shape, generator=RNG, dtype=torch.float64) for shape in ((3, 4), (3,)))
CURVATURE = torch.linalg.eigvalsh(A.T @ A).max()


def primary(x):
    """|A x - a|^2 / 2, whose minima are a plane."""
    return (x @ A.T - SHIFT_A).square().sum(-1) / 2


def secondary(x):
    """|B x - b|^2 / 2, whose minima are a line that misses the plane."""
    return (x @ B.T - SHIFT_B).square().sum(-1) / 2


def gradients(x):
    return (x @ A.T - SHIFT_A) @ A, (x @ B.T - SHIFT_B) @ B


def nearest_minimum(first, first_shift, second, second_shift):
    """The minimum of the second loss among the first's, where first x = shift: by Lagrange's multipliers."""
    rows, width = first.shape
    system = torch.zeros(width + rows, width + rows, dtype=first.dtype)
    system[:width, :width], system[:width, width:], system[width:, :width] = second.T @ second, first.T, first
    return torch.linalg.solve(system, torch.cat([second.T @ second_shift, first_shift]))[:width]


SOLUTIONS = {
    "bilevel": nearest_minimum(A, SHIFT_A, B, SHIFT_B),
    "inverted": nearest_minimum(B, SHIFT_B, A, SHIFT_A),
    "linear": torch.linalg.solve(A.T @ A + 2 * B.T @ B, A.T @ SHIFT_A + 2 * B.T @ SHIFT_B),
}


def test_gradients_are_the_losses_and_the_solutions_differ():
    x = torch.randn(2, 4, generator=RNG, dtype=torch.float64).requires_grad_()
    for loss, gradient in zip((primary, secondary), gradients(x), strict=True):
        torch.testing.assert_close(torch.autograd.grad(loss(x).sum(), x)[0], gradient)
    names = list(SOLUTIONS)
    for one, other in zip(names, names[1:] + names[:1], strict=True):
        assert (SOLUTIONS[one] - SOLUTIONS[other]).norm() > 0.1


@pytest.mark.parametrize("name", WAYS)
def test_plain_descent_reaches_the_known_solution(name):
    weight = 2.0 if name == "linear" else 1.0
    x = torch.tensor([[0.0, 0, 0, 0], [2, -1, 0, 1]], dtype=torch.float64)
    for step in range(1500):
        x = x - 0.05 / (1 + step / 100) * WAYS[name].direction(*gradients(x), weight)
    torch.testing.assert_close(x, SOLUTIONS[name].expand(2, 4), rtol=0, atol=0.02)


@pytest.mark.parametrize("name", WAYS)
def test_adam_reaches_the_known_solution(name):
    weight = 2.0 if name == "linear" else 1.0
    x = torch.zeros(1, 4, dtype=torch.float64)
    moments = Moments.zeros_like(x)
    for step in range(1500):
        change, moments = descend(moments, *gradients(x), WAYS[name].direction, weight, lr=0.05 / (1 + step / 100))
        x = x + change
    torch.testing.assert_close(x, SOLUTIONS[name].expand(1, 4), rtol=0, atol=0.02)


def climbs(direction, weight):
    """How far each step of descent stays under the fall of the primary loss that the barrier promises; 0 if nowhere."""
    x, lr, worst = (torch.linalg.pinv(A) @ SHIFT_A)[None], 0.05, 0.0
    for _ in range(200):
        p, s = gradients(x)
        change = -lr * direction(p, s, weight)
        promised = lr * weight * p.square().sum() - CURVATURE / 2 * change.square().sum()
        worst = max(worst, float(primary(x + change) - primary(x) + promised))
        x = x + change
    return max(0.0, worst - 1e-12)


@pytest.mark.parametrize("weight", [0.0, 0.5, 1.0])
def test_the_primary_loss_falls_at_every_step_as_far_as_the_barrier_says(weight):
    """Up to half the curvature times the squared step, which a first-order method cannot see."""
    assert climbs(bilevel, weight) == 0
    assert climbs(lambda p, s, w: linear(p, s, 1.0), weight) > 0.01
    assert climbs(lambda p, s, w: inverted(p, s, 1.0), weight) > 0.01


def test_without_conflict_the_secondary_gradient_is_not_bent():
    p, s = torch.tensor([[1.0, 0.0]]), torch.tensor([[3.0, 2.0]])
    assert bilevel(p, s, 1.0).equal(s) and bilevel(p, s, 4.0).equal(torch.tensor([[4.0, 2.0]]))
    assert bilevel(p, -s, 0.0).equal(torch.tensor([[0.0, -2.0]]))


def test_gradients_of_zero_and_of_next_to_nothing_give_numbers():
    s = torch.tensor([[3.0, -2.0]])
    for size in (0.0, 1e-30, 1e-20):
        bent = bilevel(torch.full((1, 2), size), s)
        assert bent.isfinite().all() and bent.norm() <= s.norm() + 1e-6


def test_rows_are_problems_of_their_own():
    p, s = torch.randn(3, 5, generator=RNG), torch.randn(3, 5, generator=RNG)
    for way in WAYS.values():
        torch.testing.assert_close(way.direction(p, s, 0.7)[1:2], way.direction(p[1:2], s[1:2], 0.7))


def test_adam_of_the_sum_is_adam():
    """Kingma and Ba 2015, algorithm 1, of the weighted sum."""
    x = theirs = torch.zeros(1, 4, dtype=torch.float64)
    moments, mean, square = Moments.zeros_like(x), 0, 0
    for step in range(1, 20):
        change, moments = descend(moments, *gradients(x), linear, 0.3, lr=0.02)
        x = x + change
        p, s = gradients(theirs)
        mean, square = 0.9 * mean + 0.1 * (p + 0.3 * s), 0.999 * square + 0.001 * (p + 0.3 * s) ** 2
        theirs = theirs - 0.02 * (mean / (1 - 0.9**step)) / ((square / (1 - 0.999**step)).sqrt() + 1e-8)
    torch.testing.assert_close(x, theirs)


def test_a_step_of_adam_goes_down_the_primary_loss_though_its_numbers_have_other_scales():
    """To first order: <p, change> <= -lr weight <p, p / d>; Adam on the bent direction itself would climb."""
    p, s = torch.tensor([[1.0, 1, 1]]), torch.tensor([[6.0, -2, -2]])
    assert bilevel(p, s, 0.5).equal(s) and (p * s.sign()).sum() < 0  # Adam's first step goes against the signs
    change, moments = descend(Moments.zeros_like(p), p, s, bilevel, 0.5, lr=0.1)
    d = (moments.square / (1 - 0.999)).sqrt()
    assert -(p * change).sum() >= 0.1 * 0.5 * (p * p / d).sum() - 1e-6 > 0
