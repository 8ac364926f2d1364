"""Human ceiling of a suite of pairs: the accuracy of each rater against the mean of the others."""

from typing import Any

import numpy as np

from editloop.datasets.labels import TIE
from editloop.evaluation.suites.suite import Suite
from editloop.statistics.bootstrap import ratio_interval, sum_by_cluster


def human_ceiling(suite: Suite, *, seed: int) -> dict[str, Any] | None:
    """Return the strict accuracy of human raters, counted as a judge's is.

    For each rater and each of the suite's pairs, the rater's order is compared with that of the mean of the other
    raters who rated both edits. Pairs on which the others differ by no more than TIE do not count. A rater's tie is
    wrong.

    Args:
        suite: The suite.
        seed: Seed of the interval's resampling.

    Returns:
        value (0..1), ci95, raters, orders (number of counted orders) and what (the measure in words). None if no order
        counts, as where no pair was rated by two people.
    """
    hits, clusters = list[float](), list[str]()
    rater_names = set[str]()
    for item in suite.items:
        if item.ratings is None or len(item.raters) < 2:
            continue
        for comparison in item.comparisons:
            margins = item.ratings[:, comparison.left] - item.ratings[:, comparison.right]
            rated_both = np.flatnonzero(~np.isnan(margins))
            for rater in rated_both if len(rated_both) > 1 else ():
                mean_of_others = float(np.mean(margins[rated_both[rated_both != rater]]))
                if abs(mean_of_others) > TIE:
                    hits.append(float(margins[rater] * mean_of_others > 0))
                    clusters.append(item.cluster_name)
                    rater_names.add(item.raters[rater])
    if not hits:
        return None
    right = np.array(hits)[:, None]
    sums = sum_by_cluster(right, np.ones_like(right), clusters)
    value, low, high = ratio_interval(sums[0][:, 0], sums[1][:, 0], seed=seed)
    return {
        "value": value,
        "ci95": None if np.isnan(low) else [low, high],
        "raters": len(rater_names),
        "orders": len(hits),
        "what": "strict accuracy of each rater against the mean of the others",
    }
