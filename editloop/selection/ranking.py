"""Active selection: which pages experts are asked next, from what a reward model knows and does not know.

Pure functions on arrays. K candidates a task, M members of an ensemble, A axes. A task's page shows the candidates
whose scores lie farthest apart, since experts order those reliably. Tasks are taken by the information that the answers
to "which of the two is better?" would give about the model: it is large where the members (or a member's own sigma)
disagree about an order, and small where all agree that a pair is simply close, which is where plain entropy spends its
questions. On drawn scenes none of it saved judgements for certain (README, "What to ask next"). Worse still in
first trials on one pool: entropy (below random choice), and information for the choice of candidates too (it picks what
experts cannot tell apart either).
"""

from collections.abc import Sequence
from itertools import combinations
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]

NODES = 8
"""Of the quadrature over a member's own doubt."""


class Proposal(NamedTuple):
    """One page to ask."""

    task: int
    """Index of the task in the pool."""
    candidates: tuple[int, ...]
    """Indices of its candidates, ascending."""
    information: float
    """Nats that the page's pairs would tell, summed."""
    at_random: bool
    """Chosen for calibration, not for its information."""


def pair_information(mu: Floats, log_sigma: Floats) -> NDArray[np.float64]:
    """What asking about each pair of a task's candidates would tell, (K, K), nats, symmetric, summed over the axes.

    mu, log_sigma: (M, K, A) scores of M members. Mutual information between the answer and the model, H(E[p]) - E[H(p)]
    (BALD: Houlsby et al., arXiv 1112.5745), p = sigmoid(z) and z the score difference: drawn from a member at random,
    and within it from N(mu_a - mu_b, sigma_a^2 + sigma_b^2) by Gauss-Hermite nodes. One member without sigma tells
    nothing.
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
    """How far apart each pair's scores lie, (K, K), summed over the axes, each in units of its `spread` (A,).

    mu: (M, K, A); the members' mean counts.
    """
    mean = mu.mean(axis=0) / spread
    return np.asarray(np.abs(mean[:, None] - mean[None]).sum(axis=-1), dtype=np.float64)


def best_page(distance: Floats, places: int) -> tuple[int, ...]:
    """The `places` candidates (all, where there are fewer) whose pairs lie farthest apart in all, ascending.

    distance: (K, K), symmetric. Every choice is tried: K is small.
    """
    choices = list(combinations(range(len(distance)), min(places, len(distance))))
    apart = [distance[np.ix_(chosen, chosen)].sum() for chosen in choices]
    return choices[int(np.argmax(apart))]


def k_center(features: Floats, chosen: Sequence[int], pool: Sequence[int], count: int) -> list[int]:
    """`count` of `pool`, each time the one farthest from all that are taken: greedy k-center (Gonzalez 1985).

    features: (N, F); `chosen` are rows taken before; without any the first of the pool begins.
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
    """Choose `pages` pages of the tasks that were not asked, the most telling first, then those drawn at random.

    scores: (mu, log_sigma) of each task, (M, K, A). features: (N, F), one row a task, for diversity. A page shows the
    `places` candidates of its task that lie farthest apart. With a `shortlist` above 1, so many times as many pages as
    wanted are looked at, and those that lie farthest apart are taken. `random_share` of the pages is drawn evenly from
    all others, with any candidates: what is chosen by information alone is no fair sample to calibrate or measure with.
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
    """What a page's pairs would tell, nats."""
    mu, log_sigma = (array[:, list(page)] for array in scores)
    return float(pair_information(mu, log_sigma).sum() / 2)


def _entropy(chance: Floats) -> NDArray[np.float64]:
    """Entropy of a yes/no answer, nats."""
    p = np.clip(chance, 1e-12, 1 - 1e-12)
    return np.asarray(-(p * np.log(p) + (1 - p) * np.log(1 - p)), dtype=np.float64)
