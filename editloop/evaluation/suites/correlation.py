"""Spearman's correlation of a judge's scores with people's ratings of single edits, for each editor.

A resample is a vector of how often each item was drawn, so one product with a sparse matrix gives the mid-ranks of all
resamples.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from editloop.evaluation.suites.answers import SuiteAnswers
from editloop.evaluation.suites.suite import Item
from editloop.pages.plots import finite_or_none
from editloop.statistics.agreement import table_agreement
from editloop.statistics.bootstrap import draw_counts, finite_mean, percentile_interval

Floats = NDArray[np.float64]
RESAMPLES = 2000


def correlation_report(items: Sequence[Item], answers: SuiteAnswers, *, seed: int) -> dict[str, Any]:
    """Return the part of a report about rated edits.

    `spearman` is the mean over editors of the correlation over items, with `ci95` by resampling whole clusters. Two
    other averages are reported as well. `fisher` averages the z-transformed correlations. `published` is what
    EditReward's evaluation of ImagenHub prints: it takes tanh of the plain mean, without the transformation before.
    `human_ceiling` is the same figure for each rater against the mean of the others.

    Args:
        items: Items with ratings, at least one.
        answers: The judge's scores of these items.
        seed: Seed of the resampling.

    Returns:
        spearman, ci95, fisher, published, by_model, counts (rated edits and missing scores) and human_ceiling. A figure
        is None if scores or ratings do not vary.
    """
    assert answers.scores is not None
    editors = list(dict.fromkeys(name for item in items for name in item.candidates))
    rated = np.full((max(len(item.raters) for item in items), len(items), len(editors)), np.nan)
    judged = np.full(rated.shape[1:], np.nan)
    for row, item in enumerate(items):
        columns = [editors.index(name) for name in item.candidates]
        assert item.ratings is not None
        rated[: len(item.raters), row, columns] = item.ratings
        judged[row, columns] = answers.scores[item.key]
    clusters = np.unique([item.cluster_name for item in items], return_inverse=True)[1]
    cluster_count = int(clusters.max()) + 1
    (cluster_draws,) = draw_counts(cluster_count, RESAMPLES, RESAMPLES, seed=seed)
    times = cluster_draws[:, clusters]
    mean_ratings = finite_mean(rated, 0)
    is_rated = ~np.isnan(mean_ratings)
    by_editor, draws = _spearman_by_editor(judged, mean_ratings, times)
    finite = by_editor[~np.isnan(by_editor)]
    with np.errstate(divide="ignore"):
        fisher = float(np.tanh(np.arctanh(finite).mean())) if len(finite) else None
    return {
        "spearman": float(finite.mean()) if len(finite) else None,
        "ci95": percentile_interval(finite_mean(draws, 1), cluster_count),
        "fisher": fisher,
        "published": float(np.tanh(finite.mean())) if len(finite) else None,
        "by_model": {
            name: {
                "spearman": finite_or_none(by_editor[column]),
                "ci95": percentile_interval(draws[:, column], len(np.unique(clusters[is_rated[:, column]]))),
                "n": int(is_rated[:, column].sum()),
            }
            for column, name in enumerate(editors)
        },
        "counts": {"units": int(is_rated.sum()), "missing": int((is_rated & np.isnan(judged)).sum())},
        "human_ceiling": _rater_agreement(rated, clusters, times, seed),
    }


def spearman(first: Floats, second: Floats, times: Floats) -> Floats:
    """Return Spearman's correlation in each of R resamples.

    Args:
        first: Values, (N,). Items where either value is NaN are left out.
        second: Values of the same items, (N,).
        times: How often each resample draws each item, (R, N).

    Returns:
        (R,), -1..1. NaN where either side does not vary.
    """
    finite = ~(np.isnan(first) | np.isnan(second))
    if not finite.any():
        return np.full(len(times), np.nan)
    times = times[:, finite]
    total = np.maximum(times.sum(axis=1, keepdims=True), 1)
    ranks = [_mid_ranks(values[finite], times) for values in (first, second)]
    a, b = (rank - (times * rank).sum(axis=1, keepdims=True) / total for rank in ranks)
    spread = (times * a**2).sum(axis=1) * (times * b**2).sum(axis=1)
    varies = spread > 1e-9
    return np.where(varies, (times * a * b).sum(axis=1) / np.sqrt(np.where(varies, spread, 1)), np.nan)


def _mid_ranks(values: Floats, times: Floats) -> Floats:
    """Mid-ranks of N values in each resample, minus 1/2, (R, N)."""
    level = np.unique(values, return_inverse=True)[1]
    belongs: csr_array = csr_array((np.ones(len(level)), (np.arange(len(level)), level)))
    level_counts: Floats = (belongs.T @ times.T).T
    return np.asarray((np.cumsum(level_counts, axis=1) - level_counts / 2)[:, level])


def _rater_agreement(rated: Floats, clusters: NDArray[np.int64], times: Floats, seed: int) -> dict[str, Any] | None:
    """Agreement of each rater with the mean of the others, measured as the judge's is, and of raters with each other.

    rated: (P, N, E), raters, items and editors. None with fewer than two raters.
    """
    if len(rated) < 2:
        return None
    per_rater = [
        _spearman_by_editor(rated[rater], finite_mean(np.delete(rated, rater, axis=0), 0), times)
        for rater in range(len(rated))
    ]
    by_rater, draws = (np.concatenate(parts, axis=-1) for parts in zip(*per_rater, strict=True))
    undrawn = np.ones((1, rated.shape[1]))
    rater_pairs = [
        _spearman_by_editor(rated[rater], rated[other_rater], undrawn)[0]
        for rater in range(len(rated))
        for other_rater in range(rater)
    ]
    people, rows, columns = np.nonzero(~np.isnan(rated))
    alpha = table_agreement(
        rated[people, rows, columns], rows * rated.shape[2] + columns, people, groups=clusters[rows], seed=seed
    )
    return {
        "value": finite_or_none(float(finite_mean(by_rater, 0))),
        "ci95": percentile_interval(finite_mean(draws, 1), len(np.unique(clusters))),
        "raters": len(rated),
        "what": "Spearman of each rater with the mean of the others, averaged over raters and editors",
        "inter_rater": finite_or_none(float(finite_mean(np.concatenate(rater_pairs), 0))),
        "alpha": alpha["alpha"],
        "alpha_ci95": alpha["ci95"],
    }


def _spearman_by_editor(first: Floats, second: Floats, times: Floats) -> tuple[Floats, Floats]:
    """Spearman's correlation of the columns of two arrays (N, E): as measured, (E,), and in each resample, (R, E)."""
    with_all = np.concatenate([np.ones((1, len(first))), times])
    correlations = np.stack(
        [spearman(first[:, column], second[:, column], with_all) for column in range(first.shape[1])], axis=1
    )
    return correlations[0], correlations[1:]
