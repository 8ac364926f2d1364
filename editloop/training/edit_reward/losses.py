"""Losses of EditReward (arXiv 2509.26346) on a head's (mu, log sigma), by quadrature instead of sampling.

A pair's score difference is z ~ N(mu_a - mu_b, sigma_a^2 + sigma_b^2), where a is the preferred candidate. Expectations
over z use Gauss-Hermite nodes. They are deterministic and differentiable, and agree with Monte Carlo (1000 draws),
which costs more.

Under `expected-log`, uncertainty always costs (log sigmoid is concave), so sigma shrinks to 0 however noisy the labels
are. Under `log-expected`, uncertainty lowers the loss of a pair on the wrong side, so sigma keeps a meaning.
"""

import math
from collections.abc import Callable
from functools import cache
from typing import TypeAlias

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import logsigmoid

NODES = 32
"""Number of quadrature nodes. Largest error against adaptive quadrature over means of -5 to 5, `expected_log` /
`log_expected`: 3e-8 / 2e-7 at a deviation of 2, 1e-4 / 5e-4 at 4, 0.013 / 0.03 at 10, and 0.12 / 0.13 at 28, the
largest deviation that the heads' bounds allow."""
MARGIN = 0.57
"""Constant margin of the Bradley-Terry variant."""
TIE_STRENGTH = 5.0
"""k of Bradley-Terry with ties: two equal candidates tie with probability (k - 1) / (k + 1)."""

PairScores: TypeAlias = Float[Tensor, "*#pairs"]
"""Means or log deviations of scores, one per pair, in any shape; those of one call broadcast."""
PairLosses: TypeAlias = Float[Tensor, "*pairs"]
"""The loss of each pair, in the shape that the scores broadcast to."""
PairLoss = Callable[[PairScores, PairScores, PairScores, PairScores], PairLosses]


@cache
def _nodes(dtype: torch.dtype, device: torch.device) -> tuple[Float[Tensor, " nodes"], Float[Tensor, " nodes"]]:
    """Return nodes and log weights for the expectation under a standard normal, NODES each."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(NODES)
    return (
        torch.as_tensor(nodes, dtype=dtype, device=device),
        torch.as_tensor(np.log(weights / weights.sum()), dtype=dtype, device=device),
    )


def score_difference(
    mu_a: PairScores, log_sigma_a: PairScores, mu_b: PairScores, log_sigma_b: PairScores
) -> tuple[PairLosses, PairLosses]:
    """Return mean and standard deviation of the score difference a - b.

    Args:
        mu_a: Mean score of a.
        log_sigma_a: Log standard deviation of a's score.
        mu_b: Mean score of b.
        log_sigma_b: Log standard deviation of b's score.
    """
    return mu_a - mu_b, torch.exp(torch.logaddexp(2 * log_sigma_a, 2 * log_sigma_b) / 2)


def expected_log(mu_a: PairScores, log_sigma_a: PairScores, mu_b: PairScores, log_sigma_b: PairScores) -> PairLosses:
    """Uncertainty loss as in EditReward's code: -E_z[log sigmoid(z)]. By Jensen's inequality at least `log_expected`.

    Args:
        mu_a: Mean score of the preferred candidate.
        log_sigma_a: Log standard deviation of its score.
        mu_b: Mean score of the other candidate.
        log_sigma_b: Log standard deviation of its score.

    Returns:
        The loss of each pair.
    """
    mean, deviation = score_difference(mu_a, log_sigma_a, mu_b, log_sigma_b)
    nodes, log_weights = _nodes(mean.dtype, mean.device)
    return -(logsigmoid(torch.addcmul(mean[..., None], deviation[..., None], nodes)) @ log_weights.exp())


def log_expected(mu_a: PairScores, log_sigma_a: PairScores, mu_b: PairScores, log_sigma_b: PairScores) -> PairLosses:
    """Uncertainty loss as in EditReward's paper: -log E_z[sigmoid(z)]. Summed in log space, so it does not underflow.

    Args:
        mu_a: Mean score of the preferred candidate.
        log_sigma_a: Log standard deviation of its score.
        mu_b: Mean score of the other candidate.
        log_sigma_b: Log standard deviation of its score.

    Returns:
        The loss of each pair.
    """
    mean, deviation = score_difference(mu_a, log_sigma_a, mu_b, log_sigma_b)
    nodes, log_weights = _nodes(mean.dtype, mean.device)
    z = torch.addcmul(mean[..., None], deviation[..., None], nodes)
    return -torch.logsumexp(logsigmoid(z) + log_weights, dim=-1)


def bradley_terry(mu_a: PairScores, log_sigma_a: PairScores, mu_b: PairScores, log_sigma_b: PairScores) -> PairLosses:
    """Bradley-Terry loss: -log sigmoid(mu_a - mu_b).

    Args:
        mu_a: Mean score of the preferred candidate.
        log_sigma_a: Unused.
        mu_b: Mean score of the other candidate.
        log_sigma_b: Unused.

    Returns:
        The loss of each pair.
    """
    return -logsigmoid(mu_a - mu_b)


def bradley_terry_margin(
    mu_a: PairScores, log_sigma_a: PairScores, mu_b: PairScores, log_sigma_b: PairScores
) -> PairLosses:
    """Bradley-Terry loss with a margin: -log sigmoid(mu_a - mu_b - MARGIN).

    Args:
        mu_a: Mean score of the preferred candidate.
        log_sigma_a: Unused.
        mu_b: Mean score of the other candidate.
        log_sigma_b: Unused.

    Returns:
        The loss of each pair.
    """
    return -logsigmoid(mu_a - mu_b - MARGIN)


def bradley_terry_ties(
    mu_a: PairScores, log_sigma_a: PairScores, mu_b: PairScores, log_sigma_b: PairScores
) -> PairLosses:
    """Bradley-Terry loss where ties are possible: -log P(a beats b).

    P = e^a / (e^a + k e^b) with k = TIE_STRENGTH (Rao and Kupper 1967).

    Args:
        mu_a: Mean score of the preferred candidate.
        log_sigma_a: Unused.
        mu_b: Mean score of the other candidate.
        log_sigma_b: Unused.

    Returns:
        The loss of each pair.
    """
    return -logsigmoid(mu_a - mu_b - math.log(TIE_STRENGTH))


def tie_loss(mu_a: PairScores, mu_b: PairScores) -> PairLosses:
    """Loss of a tie in the model of `bradley_terry_ties`: -log P(a and b tie).

    P(a and b tie) = (k^2 - 1) P(a beats b) P(b beats a) with k = TIE_STRENGTH.

    Args:
        mu_a: Mean score of one candidate.
        mu_b: Mean score of the other.

    Returns:
        The loss of each pair.
    """
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
