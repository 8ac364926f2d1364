"""The preference losses against Monte Carlo, closed forms and hand-made groups."""

import math

import pytest
import torch

from components.reward.losses import (
    LOSSES,
    MARGIN,
    bradley_terry,
    bradley_terry_margin,
    expected_log,
    group_loss,
    log_expected,
)

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
    loss, pairs = group_loss(mu, torch.zeros_like(mu), ratings, valid, weights, LOSSES["bradley-terry"])
    # Only candidates 0 and 1 are valid; they differ on the first axis alone (a tie on the second carries no order).
    assert pairs.item() == 1
    assert loss.item() == pytest.approx(math.log(1 + math.exp(-1.0)), abs=1e-6)


def test_a_tie_overall_whose_axes_disagree_teaches_both_ways():
    mu = torch.zeros(1, 2, 2, requires_grad=True)
    ratings = torch.tensor([[[4.0, 2.0], [2.0, 4.0]]])
    valid, weights = torch.ones(1, 2, dtype=torch.bool), torch.ones(1, 2, 2, 1)
    loss, pairs = group_loss(mu, torch.zeros(1, 2, 2), ratings, valid, weights, LOSSES["bradley-terry"])
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
