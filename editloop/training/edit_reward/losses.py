"""Losses of EditReward (arXiv 2509.26346) on a head's (mu, log sigma), by quadrature instead of sampling.

A pair's score difference is z ~ N(mu_a - mu_b, sigma_a^2 + sigma_b^2), a being the preferred candidate. Expectations
over z use Gauss-Hermite nodes: deterministic, differentiable, and dearer Monte Carlo (1000 draws) agrees with it.

Under `expected-log` doubt always costs (log sigmoid is concave), so sigma shrinks to nothing however noisy the labels
are; `log-expected` pays for doubt where a pair is on the wrong side, and its sigma keeps a meaning.
"""

import math
from collections.abc import Callable
from functools import cache

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

NODES = 32
"""Largest error against adaptive quadrature over means of -5 to 5, `expected_log` / `log_expected`: 3e-8 / 2e-7 at a
deviation of 2, 1e-4 / 5e-4 at 4, 0.013 / 0.03 at 10, 0.12 / 0.13 at 28, the largest that the heads' bounds allow."""
MARGIN = 0.57
"""Constant margin of the Bradley-Terry variant."""
TIE_STRENGTH = 5.0
"""k of Bradley-Terry with ties: two equal candidates tie with probability (k - 1) / (k + 1)."""

PairLoss = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


@cache
def _nodes(dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor]:
    """Nodes and log weights of a standard normal's expectation, each (NODES,)."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(NODES)
    return (
        torch.as_tensor(nodes, dtype=dtype, device=device),
        torch.as_tensor(np.log(weights / weights.sum()), dtype=dtype, device=device),
    )


def score_difference(mu_a: Tensor, log_sigma_a: Tensor, mu_b: Tensor, log_sigma_b: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of the score difference a - b, any shape."""
    return mu_a - mu_b, torch.exp(torch.logaddexp(2 * log_sigma_a, 2 * log_sigma_b) / 2)


def expected_log(mu_a: Tensor, log_sigma_a: Tensor, mu_b: Tensor, log_sigma_b: Tensor) -> Tensor:
    """-E_z[log sigmoid(z)]: the uncertainty loss as EditReward's code has it. At least `log_expected` (Jensen)."""
    mean, deviation = score_difference(mu_a, log_sigma_a, mu_b, log_sigma_b)
    nodes, log_weights = _nodes(mean.dtype, mean.device)
    return -(logsigmoid(torch.addcmul(mean[..., None], deviation[..., None], nodes)) @ log_weights.exp())


def log_expected(mu_a: Tensor, log_sigma_a: Tensor, mu_b: Tensor, log_sigma_b: Tensor) -> Tensor:
    """-log E_z[sigmoid(z)]: the uncertainty loss as EditReward's paper prints it. Summed in logs: no underflow."""
    mean, deviation = score_difference(mu_a, log_sigma_a, mu_b, log_sigma_b)
    nodes, log_weights = _nodes(mean.dtype, mean.device)
    z = torch.addcmul(mean[..., None], deviation[..., None], nodes)
    return -torch.logsumexp(logsigmoid(z) + log_weights, dim=-1)


def bradley_terry(mu_a: Tensor, log_sigma_a: Tensor, mu_b: Tensor, log_sigma_b: Tensor) -> Tensor:
    """-log sigmoid(mu_a - mu_b); sigma is not used."""
    return -logsigmoid(mu_a - mu_b)


def bradley_terry_margin(mu_a: Tensor, log_sigma_a: Tensor, mu_b: Tensor, log_sigma_b: Tensor) -> Tensor:
    """-log sigmoid(mu_a - mu_b - MARGIN)."""
    return -logsigmoid(mu_a - mu_b - MARGIN)


def bradley_terry_ties(mu_a: Tensor, log_sigma_a: Tensor, mu_b: Tensor, log_sigma_b: Tensor) -> Tensor:
    """-log P(a beats b) where ties can happen: P = e^a / (e^a + k e^b) (Rao and Kupper 1967), k = TIE_STRENGTH."""
    return -logsigmoid(mu_a - mu_b - math.log(TIE_STRENGTH))


def tie_loss(mu_a: Tensor, mu_b: Tensor) -> Tensor:
    """-log P(a and b tie) = -log((k^2 - 1) P(a beats b) P(b beats a)), of the same model as `bradley_terry_ties`."""
    gap, k = mu_a - mu_b, TIE_STRENGTH
    return -(math.log(k * k - 1) + logsigmoid(gap - math.log(k)) + logsigmoid(-gap - math.log(k)))


PAIR_LOSSES: dict[str, PairLoss] = {
    "expected-log": expected_log,
    "log-expected": log_expected,
    "bradley-terry": bradley_terry,
    "bradley-terry-margin": bradley_terry_margin,
    "bradley-terry-ties": bradley_terry_ties,
}
REGRESSION = "regression"
LOSSES = (*PAIR_LOSSES, REGRESSION)
"""Names of all losses. `regression` is pointwise: squared error of mu against the mean rating, 1..4."""
