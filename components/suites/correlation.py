"""Spearman's correlation of a judge's scores with people's ratings of single edits, editor by editor."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from annotation.quality.agreement import table_agreement
from components.gates.bootstrap import expanded_tail
from components.suites.answers import Answers
from components.suites.suite import Item

Floats = NDArray[np.float64]
RESAMPLES = 2000
TAIL = 0.025


def correlations(items: Sequence[Item], answers: Answers, *, seed: int) -> dict[str, Any]:
    """The part of a report about rated edits.

    `spearman` is the mean over editors of the correlation over the items, with `ci95` by resampling whole clusters.
    Two other averages stand beside it: `fisher` (of the z-transformed correlations) and `published`, what EditReward's
    evaluation of ImagenHub prints: tanh of the plain mean, the transformation there being left out on the way in.
    `human_ceiling` is the same figure of each rater against the mean of the others. None where nothing varies.
    """
    assert answers.scores is not None
    editors = list(dict.fromkeys(name for item in items for name in item.candidates))
    people = max(len(item.raters) for item in items)
    rated = np.full((people, len(items), len(editors)), np.nan)
    judged = np.full(rated.shape[1:], np.nan)
    for row, item in enumerate(items):
        columns = [editors.index(name) for name in item.candidates]
        assert item.ratings is not None
        rated[: len(item.raters), row, columns] = item.ratings
        judged[row, columns] = answers.scores[item.key]
    wanted = _mean(rated)
    clusters = np.unique([item.cluster for item in items], return_inverse=True)[1]
    asked = ~np.isnan(wanted)
    each = _by_editor(judged, wanted)
    found, draws = (
        each[~np.isnan(each)],
        _resampled(lambda rows: _by_editor(judged[rows], wanted[rows]), clusters, seed),
    )
    with np.errstate(divide="ignore"):
        fisher = _known(float(np.tanh(np.arctanh(found).mean()))) if len(found) else None
    return {
        "spearman": _known(float(found.mean())) if len(found) else None,
        "ci95": _interval(_row_means(draws), len(np.unique(clusters))),
        "fisher": fisher,
        "published": _known(float(np.tanh(found.mean()))) if len(found) else None,
        "by_model": {
            name: {
                "spearman": _known(each[place]),
                "ci95": _interval(draws[:, place], len(np.unique(clusters[asked[:, place]]))),
                "n": int(asked[:, place].sum()),
            }
            for place, name in enumerate(editors)
        },
        "counts": {"units": int(asked.sum()), "missing": int((asked & np.isnan(judged)).sum())},
        "human_ceiling": _ceiling(rated, clusters, seed),
    }


def spearman(one: Floats, other: Floats) -> float:
    """Correlation of the ranks of two (N,); pairs with a NaN are left out. NaN where either does not vary."""
    known = ~(np.isnan(one) | np.isnan(other))
    if known.sum() < 2:
        return float("nan")
    ranks = rankdata(np.stack([one[known], other[known]]), axis=1)
    ranks -= ranks.mean(axis=1, keepdims=True)
    spread = np.sqrt((ranks**2).sum(axis=1)).prod()
    return float(ranks.prod(axis=0).sum() / spread) if spread > 0 else float("nan")


def _ceiling(rated: Floats, clusters: NDArray[np.int64], seed: int) -> dict[str, Any] | None:
    """How well each rater agrees with the mean of the others, as the judge is measured; and how raters agree at all."""
    if len(rated) < 2:
        return None

    def alone(rows: NDArray[np.int64]) -> Floats:
        others = [_mean(np.delete(rated[:, rows], rater, axis=0)) for rater in range(len(rated))]
        return np.concatenate([_by_editor(rated[rater][rows], others[rater]) for rater in range(len(rated))])

    each = alone(np.arange(rated.shape[1]))
    two = [_by_editor(rated[a], rated[b]) for a in range(len(rated)) for b in range(a)]
    people, rows, columns = np.nonzero(~np.isnan(rated))
    alpha = table_agreement(
        rated[people, rows, columns], rows * rated.shape[2] + columns, people, groups=clusters[rows], seed=seed
    )
    return {
        "value": _known(float(_row_means(each[None])[0])),
        "ci95": _interval(_row_means(_resampled(alone, clusters, seed)), len(np.unique(clusters))),
        "raters": len(rated),
        "what": "Spearman of each rater with the mean of the others, averaged over raters and editors",
        "inter_rater": _known(float(_row_means(np.concatenate(two)[None])[0])),
        "alpha": alpha["alpha"],
        "alpha_ci95": alpha["ci95"],
    }


def _by_editor(one: Floats, other: Floats) -> Floats:
    """Spearman of each column of two (N, E), (E,)."""
    return np.array([spearman(one[:, place], other[:, place]) for place in range(one.shape[1])])


def _resampled(figures: Callable[[NDArray[np.int64]], Floats], clusters: NDArray[np.int64], seed: int) -> Floats:
    """The figures of RESAMPLES draws of whole clusters, (RESAMPLES, figures)."""
    members = [np.flatnonzero(clusters == one) for one in range(clusters.max() + 1)]
    rng = np.random.default_rng(seed)
    drawn = rng.integers(0, len(members), (RESAMPLES, len(members)))
    return np.stack([figures(np.concatenate([members[one] for one in row])) for row in drawn])


def _mean(rated: Floats) -> Floats:
    """Mean over raters, NaN where nobody rated. (P, N, E) to (N, E)."""
    counts = (~np.isnan(rated)).sum(axis=0)
    return np.asarray(np.where(counts > 0, np.nansum(rated, axis=0) / np.maximum(counts, 1), np.nan))


def _row_means(draws: Floats) -> Floats:
    """Mean of each row over what is known, (R, E) to (R,)."""
    counts = (~np.isnan(draws)).sum(axis=1)
    return np.asarray(np.where(counts > 0, np.nansum(draws, axis=1) / np.maximum(counts, 1), np.nan))


def _interval(draws: Floats, clusters: int) -> list[float] | None:
    """The 95 % interval of resampled figures, (R,), as components.gates.bootstrap takes it."""
    known = draws[~np.isnan(draws)]
    if clusters < 2 or not len(known):
        return None
    tail = expanded_tail(TAIL, clusters)
    return [float(end) for end in np.quantile(known, [tail, 1 - tail])]


def _known(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
