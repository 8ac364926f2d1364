"""The preference losses against Monte Carlo, closed forms and hand-made groups."""

import math

import numpy as np
import pytest
import torch
from scipy.integrate import quad

from editloop.training.edit_reward.group_loss import group_loss
from editloop.training.edit_reward.losses import (
    MARGIN,
    PAIR_LOSSES,
    TIE_STRENGTH,
    bradley_terry,
    bradley_terry_margin,
    bradley_terry_ties,
    expected_log,
    log_expected,
    score_difference,
    tie_loss,
)

pytestmark = pytest.mark.floats

POINTS = [(0.0, 0.0, 0.5, -0.7), (2.0, -1.0, 0.3, 0.2), (-1.5, 0.4, 1.0, 0.1)]


def tensors(point):
    return tuple(torch.tensor(value, dtype=torch.float64) for value in point)


@pytest.mark.parametrize("point", POINTS)
def test_quadrature_agrees_with_a_million_draws(point):
    mu_a, log_a, mu_b, log_b = tensors(point)
    deviation = math.hypot(math.exp(log_a), math.exp(log_b))
    z = (
        mu_a
        - mu_b
        + deviation * torch.randn(1_000_000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    )
    assert expected_log(mu_a, log_a, mu_b, log_b).item() == pytest.approx(
        -torch.nn.functional.logsigmoid(z).mean().item(), abs=5e-3
    )
    assert log_expected(mu_a, log_a, mu_b, log_b).item() == pytest.approx(-z.sigmoid().mean().log().item(), abs=5e-3)


def test_an_even_pair_has_probability_one_half_whatever_the_uncertainty():
    mu, wide = torch.zeros(1), torch.ones(1)
    assert log_expected(mu, wide, mu, wide).item() == pytest.approx(math.log(2), abs=1e-6)


@pytest.mark.parametrize("point", POINTS)
def test_expected_log_is_the_larger_by_jensen(point):
    assert expected_log(*tensors(point)) >= log_expected(*tensors(point))


def test_without_uncertainty_both_are_bradley_terry():
    mu_a, mu_b, none = torch.tensor([1.3]), torch.tensor([0.4]), torch.tensor([-20.0])
    plain = bradley_terry(mu_a, none, mu_b, none)
    torch.testing.assert_close(expected_log(mu_a, none, mu_b, none), plain)
    torch.testing.assert_close(log_expected(mu_a, none, mu_b, none), plain)
    torch.testing.assert_close(bradley_terry_margin(mu_a + MARGIN, none, mu_b, none), plain)


def test_group_loss_by_hand():
    mu = torch.tensor([[[1.0, 0.0], [0.0, 2.0], [9.0, 9.0]]])
    ratings = torch.tensor([[[4.0, 3.0], [2.0, 3.0], [1.0, 1.0]]])
    valid = torch.tensor([[True, True, False]])
    weights = torch.ones(1, 3, 3, 1)
    loss, pairs = group_loss(mu, torch.zeros_like(mu), ratings, valid, weights, "bradley-terry")
    # Only candidates 0 and 1 are valid; they differ on the first axis alone (a tie on the second carries no order).
    assert pairs.item() == 1
    assert loss.item() == pytest.approx(math.log(1 + math.exp(-1.0)), abs=1e-6)


def test_a_pair_counts_by_its_weight_on_each_axis():
    mu = torch.tensor([[[1.0, 0.5], [0.0, 2.0]]], dtype=torch.float64)
    ratings = torch.tensor([[[4.0, 1.0], [2.0, 3.0]]], dtype=torch.float64)
    weights = torch.zeros(1, 2, 2, 2, dtype=torch.float64)
    weights[0, 0, 1], weights[0, 1, 0] = torch.tensor([0.25, 9.0]), torch.tensor([9.0, 2.0])
    valid = torch.ones(1, 2, dtype=torch.bool)
    loss, count = group_loss(mu, torch.zeros_like(mu), ratings, valid, weights, "bradley-terry")
    # 0 is preferred on the first axis, by a gap of 1, and 1 on the second, by 1.5.
    assert count.item() == 2.25
    costs = [math.log(1 + math.exp(-gap)) for gap in (1.0, 1.5)]
    assert loss.item() == pytest.approx((0.25 * costs[0] + 2 * costs[1]) / 2.25)
    little = group_loss(mu, torch.zeros_like(mu), ratings, valid, weights / 9, "bradley-terry")
    assert little[1].item() == pytest.approx(0.25)
    assert little[0].item() == pytest.approx((0.25 * costs[0] + 2 * costs[1]) / 9), "less than one pair is no division"


def test_nothing_to_learn_costs_nothing():
    mu, valid = torch.ones(1, 2, 2), torch.zeros(1, 2, dtype=torch.bool)
    for name in ("bradley-terry", "bradley-terry-ties", "regression"):
        loss, count = group_loss(mu, mu, 3 * mu, valid, torch.ones(1, 2, 2, 2), name)
        assert (loss.item(), count.item()) == (0, 0)


def test_a_tie_is_a_pair_once_of_candidates_that_are_there_and_alike_within_the_tie():
    """Ratings 3, 3.125, 3.5 and one that is not there: one tie, two orders, on one axis."""
    mu = torch.tensor([[[0.3], [-0.2], [0.5], [9.0]]], dtype=torch.float64)
    ratings = torch.tensor([[[3.0], [3.125], [3.5], [3.0]]], dtype=torch.float64)
    valid = torch.tensor([[True, True, True, False]])
    weights = torch.zeros(1, 4, 4, 1, dtype=torch.float64)
    weights[0, 2, 0] = weights[0, 2, 1] = 1.0
    loss, count = group_loss(mu, torch.zeros_like(mu), ratings, valid, weights, "bradley-terry-ties")
    assert count.item() == 3

    def beats(gap: float) -> float:
        return math.exp(gap) / (math.exp(gap) + TIE_STRENGTH)

    tied = (TIE_STRENGTH**2 - 1) * beats(0.5) * beats(-0.5)
    assert loss.item() == pytest.approx(-math.log(beats(0.2) * beats(0.7) * tied) / 3)


@pytest.mark.parametrize("name", ["expected-log", "log-expected"])
def test_fused_asks_the_mean_score_with_the_mean_doubt(name):
    mu = torch.tensor([[[1.0, 3.0], [0.5, -0.5]]], dtype=torch.float64)
    doubt = torch.tensor([[[0.2, -0.4], [0.6, 0.0]]], dtype=torch.float64)
    ratings = torch.tensor([[[4.0, 3.0], [2.0, 4.0]]], dtype=torch.float64)
    weights = torch.tensor([0.5, 1.0], dtype=torch.float64).expand(1, 2, 2, 2)
    loss, count = group_loss(mu, doubt, ratings, torch.ones(1, 2, dtype=torch.bool), weights, name, target="fused")
    one = PAIR_LOSSES[name](*(torch.tensor(value, dtype=torch.float64) for value in (2.0, -0.1, 0.0, 0.3)))
    assert count.item() == 0.75
    assert loss.item() == pytest.approx(0.75 * one.item())


def test_a_difference_has_the_means_difference_and_the_variances_sum():
    mean, deviation = score_difference(
        *(torch.tensor(value, dtype=torch.float64) for value in (2.0, math.log(3), 0.5, math.log(4)))
    )
    assert (mean.item(), deviation.item()) == (1.5, pytest.approx(5))


def test_losses_of_the_constants_that_are_published():
    a, b, none = torch.tensor(1.0, dtype=torch.float64), torch.tensor(0.0, dtype=torch.float64), torch.zeros(())
    assert bradley_terry_margin(a, none, b, none).item() == pytest.approx(math.log(1 + math.exp(-0.43)))
    assert bradley_terry_ties(a, none, b, none).item() == pytest.approx(math.log(1 + 5 * math.exp(-1)))
    assert tie_loss(b, b).item() == pytest.approx(-math.log(24 / 36))


def test_a_tie_overall_whose_axes_disagree_teaches_both_ways():
    mu = torch.zeros(1, 2, 2, requires_grad=True)
    ratings = torch.tensor([[[4.0, 2.0], [2.0, 4.0]]])
    valid, weights = torch.ones(1, 2, dtype=torch.bool), torch.ones(1, 2, 2, 1)
    loss, pairs = group_loss(mu, torch.zeros(1, 2, 2), ratings, valid, weights, "bradley-terry")
    loss.backward()
    assert pairs.item() == 2
    assert mu.grad[0, 0, 0] < 0 < mu.grad[0, 1, 0]  # the first is to rise on the first axis
    assert mu.grad[0, 0, 1] > 0 > mu.grad[0, 1, 1]  # and to fall on the second


def test_losses_are_differentiable_in_uncertainty():
    mu_a, mu_b = torch.tensor([-1.0]), torch.tensor([1.0])
    log_sigma = torch.zeros(1, requires_grad=True)
    expected_log(mu_a, log_sigma, mu_b, log_sigma).sum().backward()
    plain = torch.zeros(1, requires_grad=True)
    log_expected(mu_a, plain, mu_b, plain).sum().backward()
    assert log_sigma.grad > 0 > plain.grad  # on a mistake, doubt costs more in the first and less in the second


@pytest.mark.parametrize("deviation", [0.3, 1.0, 3.0])
@pytest.mark.parametrize("mean", [-4.0, 0.0, 1.5])
def test_quadrature_agrees_with_adaptive_integration(mean, deviation):
    density = math.sqrt(1 / (2 * math.pi))
    expected = quad(lambda x: np.logaddexp(0, -(mean + deviation * x)) * math.exp(-x * x / 2) * density, -12, 12)[0]
    chance = quad(lambda x: math.exp(-x * x / 2) * density / (1 + math.exp(-(mean + deviation * x))), -12, 12)[0]
    values = tensors((mean, math.log(deviation), 0.0, -20.0))
    assert expected_log(*values).item() == pytest.approx(expected, abs=1e-5)
    assert log_expected(*values).item() == pytest.approx(-math.log(chance), abs=1e-4)


def test_a_hopeless_pair_costs_a_finite_amount():
    values = tuple(torch.tensor(value) for value in (-300.0, -1.0, 0.0, -1.0))
    assert log_expected(*values).item() == pytest.approx(300, rel=0.01)


def test_beating_losing_and_tying_are_all_that_can_happen():
    a, b, none = torch.tensor([-2.0, 0.0, 0.7]), torch.tensor([1.0, 0.0, 0.2]), torch.zeros(3)
    chances = [
        (-loss).exp()
        for loss in (bradley_terry_ties(a, none, b, none), bradley_terry_ties(b, none, a, none), tie_loss(a, b))
    ]
    torch.testing.assert_close(sum(chances), torch.ones(3))
    assert chances[2][1].item() == pytest.approx((TIE_STRENGTH - 1) / (TIE_STRENGTH + 1))


def test_ties_pull_scores_together_and_other_losses_do_not_see_them():
    ratings, valid, weights = torch.full((1, 2, 1), 3.0), torch.ones(1, 2, dtype=torch.bool), torch.zeros(1, 2, 2, 1)
    for loss, pulls in (("bradley-terry-ties", True), ("bradley-terry", False)):
        mu = torch.tensor([[[2.0], [-1.0]]], requires_grad=True)
        group_loss(mu, torch.zeros(1, 2, 1), ratings, valid, weights, loss)[0].backward()
        assert (mu.grad[0, 0, 0] > 0 > mu.grad[0, 1, 0]) == pulls
        assert pulls or not mu.grad.any()


def test_regression_is_the_mean_square_over_candidates_that_are_there():
    mu, ratings = torch.tensor([[[1.0, 2.0], [4.0, 4.0]]]), torch.tensor([[[2.0, 4.0], [0.0, 0.0]]])
    loss, candidates = group_loss(mu, mu, ratings, torch.tensor([[True, False]]), torch.zeros(1, 2, 2, 2), "regression")
    assert (loss.item(), candidates.item()) == (2.5, 1)


def test_fused_orders_by_the_sum_and_disentangles_ties():
    valid, weights = torch.ones(1, 3, dtype=torch.bool), torch.ones(1, 3, 3, 2)
    ratings = torch.tensor([[[4.0, 2.0], [2.0, 4.0], [1.0, 1.0]]])
    mu = torch.tensor([[[1.0, 0.5], [0.0, 2.0], [-1.0, 0.0]]])
    loss, pairs = group_loss(mu, torch.zeros_like(mu), ratings, valid, weights, "bradley-terry", target="fused")
    # 0 and 1 tie overall: a sample on each axis. Both beat 2, asked of the mean over axes.
    gaps = torch.tensor([1.0 - 0.0, 2.0 - 0.5, 0.75 + 0.5, 1.0 + 0.5])
    assert pairs.item() == 4
    assert loss.item() == pytest.approx(-torch.nn.functional.logsigmoid(gaps).mean().item(), abs=1e-6)
