"""Active selection: which pages experts are asked next, from what a reward model knows and does not know.

Pure functions on arrays. K candidates a task, M members of an ensemble, A axes. The measure is the information that the
answer to "which of the two is better?" would give about the model: it is large where the members (or a member's own
sigma) disagree about the order, and small where all agree that the pair is simply close, which is where plain entropy
spends its questions.
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


def best_page(information: Floats, places: int) -> tuple[tuple[int, ...], float]:
    """The `places` candidates (all, where there are fewer) whose pairs tell the most, and how much: (indices, nats).

    information: (K, K) of `pair_information`. Every choice is tried: K is small.
    """
    size = min(places, len(information))
    told = {chosen: float(information[np.ix_(chosen, chosen)].sum() / 2) for chosen in _choices(len(information), size)}
    best = max(told, key=lambda chosen: told[chosen])
    return best, told[best]


def k_center(features: Floats, chosen: Sequence[int], pool: Sequence[int], count: int) -> list[int]:
    """`count` of `pool`, each time the one farthest from all that are taken: greedy k-center (Gonzalez 1985).

    features: (N, F); `chosen` are rows taken before; without any the first of the pool begins.
    """
    left, taken = list(pool), []
    distance = np.full(len(left), np.inf)
    for row in chosen:
        distance = np.minimum(distance, np.linalg.norm(features[left] - features[row], axis=1))
    for _ in range(min(count, len(left))):
        place = int(distance.argmax())
        taken.append(left[place])
        distance = np.minimum(distance, np.linalg.norm(features[left] - features[left[place]], axis=1))
        distance[place] = -np.inf
    return taken


def propose_pages(
    scores: Sequence[tuple[Floats, Floats]],
    features: Floats,
    asked: Sequence[int],
    *,
    pages: int,
    places: int,
    random_share: float,
    shortlist: float = 1.0,
    seed: int,
) -> list[Proposal]:
    """Choose `pages` pages of the tasks that were not asked, the most telling first, then those drawn at random.

    scores: (mu, log_sigma) of each task, (M, K, A). features: (N, F), one row a task, for diversity. A page shows the
    `places` candidates of its task that tell the most. With a `shortlist` above 1, so many times as many pages as
    wanted are looked at, and those that lie farthest apart are taken. `random_share` of the pages is drawn evenly from
    all others, with any candidates: what is chosen by information alone is no fair sample to calibrate or measure with.
    """
    rng = np.random.default_rng(seed)
    left = sorted(set(range(len(scores))) - set(asked))
    pages = min(pages, len(left))
    drawn = round(random_share * pages)
    table = {task: pair_information(*scores[task]) for task in left}
    best = {task: best_page(table[task], places) for task in left}
    order = sorted(left, key=lambda task: -best[task][1])
    listed = order[: int(np.ceil(max(1.0, shortlist) * (pages - drawn)))]
    telling = k_center(features, asked, listed, pages - drawn)
    telling.sort(key=lambda task: -best[task][1])
    found = [Proposal(task, *best[task], at_random=False) for task in telling]
    others = sorted(set(left) - set(telling))
    for task in rng.choice(others, size=drawn, replace=False).tolist() if drawn else ():
        size = min(places, len(table[task]))
        shown = tuple(sorted(rng.choice(len(table[task]), size=size, replace=False).tolist()))
        found.append(Proposal(task, shown, float(table[task][np.ix_(shown, shown)].sum() / 2), at_random=True))
    return found


def _choices(count: int, size: int) -> list[tuple[int, ...]]:
    return list(combinations(range(count), size))


def _entropy(chance: Floats) -> NDArray[np.float64]:
    """Entropy of a yes/no answer, nats."""
    p = np.clip(chance, 1e-12, 1 - 1e-12)
    return np.asarray(-(p * np.log(p) + (1 - p) * np.log(1 - p)), dtype=np.float64)
