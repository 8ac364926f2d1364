"""Active selection: which pages experts judge next, given what a reward model knows and does not know.

Pure functions on arrays, for tasks of K candidates, ensembles of M members, and A axes. A task's page shows the
candidates whose scores lie farthest apart, since experts order those reliably. Tasks are ranked by the information that
the answers to "which of the two is better?" would give about the model. It is large where the members (or a member's
own sigma) disagree about an order, and small where all agree that a pair is close; plain entropy spends its questions
on such pairs.

On drawn scenes none of this reliably saved judgements (README, "What to ask next"). Two alternatives did worse still in
first trials on one pool: entropy, which was worse than random choice, and choosing the candidates by information too,
which picks candidates that experts cannot tell apart either.
"""

from collections.abc import Sequence
from itertools import combinations
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]

NODES = 8
"""Nodes of the quadrature over a member's own uncertainty."""


class Proposal(NamedTuple):
    """One page to judge."""

    task: int
    """Index of the task in the pool."""
    candidates: tuple[int, ...]
    """Indices of the shown candidates, ascending."""
    information: float
    """Information of the page in nats, summed over its pairs."""
    at_random: bool
    """Whether the page was drawn at random, for calibration, and not for its information."""


def pair_information(mu: Floats, log_sigma: Floats) -> NDArray[np.float64]:
    """Return the information of asking about each pair of a task's candidates, in nats, summed over the axes.

    It is the mutual information between the answer and the model, H(E[p]) - E[H(p)] (BALD: Houlsby et al., arXiv
    1112.5745), where p = sigmoid(z) and z is the difference of the scores: of a member drawn at random and, within it,
    from N(mu_a - mu_b, sigma_a^2 + sigma_b^2) by Gauss-Hermite quadrature. A single member without sigma gives 0.

    Args:
        mu: Means of the scores, (M, K, A).
        log_sigma: Logarithms of their standard deviations, (M, K, A); -inf for none.

    Returns:
        The information, (K, K), symmetric, 0 on the diagonal.
    """
    nodes, weights = np.polynomial.hermite_e.hermegauss(NODES)
    mean = mu[:, :, None] - mu[:, None]
    variance = np.exp(2 * np.asarray(log_sigma, dtype=np.float64))
    deviation = np.sqrt(variance[:, :, None] + variance[:, None])
    chance = 1 / (1 + np.exp(-(mean[..., None] + deviation[..., None] * nodes)))
    share = weights / weights.sum() / len(mu)
    information = _entropy((chance * share).sum(axis=(0, -1))) - (_entropy(chance) * share).sum(axis=(0, -1))
    np.einsum("iia->ia", information)[:] = 0.0
    return np.asarray(np.clip(information, 0, None).sum(axis=-1), dtype=np.float64)


def pair_distance(mu: Floats, spread: Floats) -> NDArray[np.float64]:
    """Return how far apart each pair's mean scores lie, (K, K), summed over the axes.

    Args:
        mu: Scores, (M, K, A); their mean over the members counts.
        spread: Unit of the distance on each axis, (A,).
    """
    mean = mu.mean(axis=0) / spread
    return np.asarray(np.abs(mean[:, None] - mean[None]).sum(axis=-1), dtype=np.float64)


def best_page(distance: Floats, places: int) -> tuple[int, ...]:
    """Choose the candidates of a page: those with the largest sum of pairwise distances.

    All combinations are tried, since K is small.

    Args:
        distance: Distances of the candidates, (K, K), symmetric.
        places: Number of candidates to choose; all, if there are fewer.

    Returns:
        Their indices, ascending.
    """
    choices = list(combinations(range(len(distance)), min(places, len(distance))))
    apart = [distance[np.ix_(chosen, chosen)].sum() for chosen in choices]
    return choices[int(np.argmax(apart))]


def k_center(features: Floats, chosen: Sequence[int], pool: Sequence[int], count: int) -> list[int]:
    """Choose rows by greedy k-center (Gonzalez 1985): each time the row farthest from all chosen so far.

    Args:
        features: (N, F).
        chosen: Rows chosen before; if empty, the first row of `pool` comes first.
        pool: Rows to choose from.
        count: Number of rows to choose; all, if there are fewer.

    Returns:
        The chosen rows, in the order of choice.
    """
    remaining, selected = list(pool), []
    distance = np.full(len(remaining), np.inf)
    for row in chosen:
        distance = np.minimum(distance, np.linalg.norm(features[remaining] - features[row], axis=1))
    for _ in range(min(count, len(remaining))):
        index = int(distance.argmax())
        selected.append(remaining[index])
        distance = np.minimum(distance, np.linalg.norm(features[remaining] - features[remaining[index]], axis=1))
        distance[index] = -np.inf
    return selected


def propose_pages(
    scores: Sequence[tuple[Floats, Floats]],
    features: Floats,
    asked_tasks: Sequence[int],
    *,
    pages: int,
    places: int,
    random_share: float,
    shortlist: float = 1.0,
    seed: int,
) -> list[Proposal]:
    """Choose pages of the tasks that were not judged yet, one page per task.

    A page shows the candidates of its task that lie farthest apart; tasks are ranked by the information of that page.
    The share of pages drawn at random is drawn uniformly from the other tasks, with random candidates: pages chosen by
    information are no unbiased sample for calibration or measurement.

    Args:
        scores: (mu, log_sigma) of each of N tasks, (M, K, A) each.
        features: Features of the tasks for diversity, (N, F).
        asked_tasks: Indices of the tasks that are judged already.
        pages: Number of pages; fewer if fewer tasks remain.
        places: Largest number of candidates on a page.
        random_share: Share of the pages drawn at random, 0..1.
        shortlist: Number of most informative pages to consider, as a multiple of the pages wanted; of these, the pages
            farthest apart are taken. 1 or less takes the most informative ones.
        seed: Seed of the random pages.

    Returns:
        The pages: by information, highest first, then those drawn at random.
    """
    rng = np.random.default_rng(seed)
    remaining = sorted(set(range(len(scores))) - set(asked_tasks))
    pages = min(pages, len(remaining))
    drawn = round(random_share * pages)
    spread = np.concatenate([mu.mean(axis=0) for mu, _ in scores]).std(axis=0) + 1e-12
    best = {}
    for task in remaining:
        page = best_page(pair_distance(scores[task][0], spread), places)
        best[task] = (page, _page_information(scores[task], page))
    order = sorted(remaining, key=lambda task: -best[task][1])
    listed = order[: int(np.ceil(max(1.0, shortlist) * (pages - drawn)))]
    telling = k_center(features, asked_tasks, listed, pages - drawn)
    telling.sort(key=lambda task: -best[task][1])
    proposals = [Proposal(task, *best[task], at_random=False) for task in telling]
    others = sorted(set(remaining) - set(telling))
    for task in rng.choice(others, size=drawn, replace=False).tolist() if drawn else ():
        count = scores[task][0].shape[1]
        candidates = tuple(sorted(rng.choice(count, size=min(places, count), replace=False).tolist()))
        proposals.append(Proposal(task, candidates, _page_information(scores[task], candidates), at_random=True))
    return proposals


def _page_information(scores: tuple[Floats, Floats], page: tuple[int, ...]) -> float:
    """Information of a page in nats: the sum over its pairs."""
    mu, log_sigma = (array[:, list(page)] for array in scores)
    return float(pair_information(mu, log_sigma).sum() / 2)


def _entropy(chance: Floats) -> NDArray[np.float64]:
    """Entropy of a yes/no answer in nats."""
    p = np.clip(chance, 1e-12, 1 - 1e-12)
    return np.asarray(-(p * np.log(p) + (1 - p) * np.log(1 - p)), dtype=np.float64)
