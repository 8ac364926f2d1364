"""Spearman's correlation of a judge's scores with people's ratings of single edits, editor by editor.

A resample is how often each item was drawn, so that all resamples' mid-ranks are products with one sparse table.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

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
    rated = np.full((max(len(item.raters) for item in items), len(items), len(editors)), np.nan)
    judged = np.full(rated.shape[1:], np.nan)
    for row, item in enumerate(items):
        columns = [editors.index(name) for name in item.candidates]
        assert item.ratings is not None
        rated[: len(item.raters), row, columns] = item.ratings
        judged[row, columns] = answers.scores[item.key]
    clusters = np.unique([item.cluster for item in items], return_inverse=True)[1]
    times = _drawn(clusters, seed)
    wanted = _mean(rated)
    asked = ~np.isnan(wanted)
    each, draws = _by_editor(judged, wanted, times)
    found = each[~np.isnan(each)]
    whole = len(np.unique(clusters))
    with np.errstate(divide="ignore"):
        fisher = float(np.tanh(np.arctanh(found).mean())) if len(found) else None
    return {
        "spearman": float(found.mean()) if len(found) else None,
        "ci95": _interval(_row_means(draws), whole),
        "fisher": fisher,
        "published": float(np.tanh(found.mean())) if len(found) else None,
        "by_model": {
            name: {
                "spearman": _known(each[place]),
                "ci95": _interval(draws[:, place], len(np.unique(clusters[asked[:, place]]))),
                "n": int(asked[:, place].sum()),
            }
            for place, name in enumerate(editors)
        },
        "counts": {"units": int(asked.sum()), "missing": int((asked & np.isnan(judged)).sum())},
        "human_ceiling": _ceiling(rated, clusters, times, seed),
    }


def spearman(one: Floats, other: Floats, times: Floats) -> Floats:
    """Correlation of the mid-ranks of two (N,), in each of R resamples: (R,). times: (R, N), how often each was drawn.

    Places with a NaN are left out. NaN where either does not vary.
    """
    known = ~(np.isnan(one) | np.isnan(other))
    if not known.any():
        return np.full(len(times), np.nan)
    times = times[:, known]
    total = np.maximum(times.sum(axis=1, keepdims=True), 1)
    ranks = [_mid_ranks(values[known], times) for values in (one, other)]
    a, b = (rank - (times * rank).sum(axis=1, keepdims=True) / total for rank in ranks)
    spread = (times * a**2).sum(axis=1) * (times * b**2).sum(axis=1)
    varies = spread > 1e-9
    return np.where(varies, (times * a * b).sum(axis=1) / np.sqrt(np.where(varies, spread, 1)), np.nan)


def _mid_ranks(values: Floats, times: Floats) -> Floats:
    """Mid-ranks of N values in each resample, less a half, (R, N)."""
    place = np.unique(values, return_inverse=True)[1]
    given = times @ csr_array((np.ones(len(place)), (np.arange(len(place)), place)))
    return np.asarray((np.cumsum(given, axis=1) - given / 2)[:, place])


def _ceiling(rated: Floats, clusters: NDArray[np.int64], times: Floats, seed: int) -> dict[str, Any] | None:
    """How well each rater agrees with the mean of the others, as the judge is measured; and how raters agree at all."""
    if len(rated) < 2:
        return None
    alone = [_by_editor(rated[one], _mean(np.delete(rated, one, axis=0)), times) for one in range(len(rated))]
    each, draws = (np.concatenate(parts, axis=-1) for parts in zip(*alone, strict=True))
    once = np.ones((1, rated.shape[1]))
    two = [_by_editor(rated[one], rated[other], once)[0] for one in range(len(rated)) for other in range(one)]
    people, rows, columns = np.nonzero(~np.isnan(rated))
    alpha = table_agreement(
        rated[people, rows, columns], rows * rated.shape[2] + columns, people, groups=clusters[rows], seed=seed
    )
    return {
        "value": _known(_row_means(each[None])[0]),
        "ci95": _interval(_row_means(draws), len(np.unique(clusters))),
        "raters": len(rated),
        "what": "Spearman of each rater with the mean of the others, averaged over raters and editors",
        "inter_rater": _known(_row_means(np.concatenate(two)[None])[0]),
        "alpha": alpha["alpha"],
        "alpha_ci95": alpha["ci95"],
    }


def _by_editor(one: Floats, other: Floats, times: Floats) -> tuple[Floats, Floats]:
    """Spearman of each column of two (N, E): as measured, (E,), and in each resample, (R, E)."""
    with_all = np.concatenate([np.ones((1, len(one))), times])
    found = np.stack([spearman(one[:, place], other[:, place], with_all) for place in range(one.shape[1])], axis=1)
    return found[0], found[1:]


def _drawn(clusters: NDArray[np.int64], seed: int) -> Floats:
    """How often each of N items comes in RESAMPLES draws of whole clusters, (RESAMPLES, N)."""
    count = int(clusters.max()) + 1
    drawn = np.random.default_rng(seed).integers(0, count, (RESAMPLES, count)) + count * np.arange(RESAMPLES)[:, None]
    times = np.bincount(drawn.ravel(), minlength=RESAMPLES * count).reshape(RESAMPLES, count)
    return times[:, clusters].astype(np.float64)


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
