"""What people reach on a suite of pairs: each rater's order against that of the others."""

from typing import Any

import numpy as np

from components.dataset.labels import TIE
from components.gates.bootstrap import by_cluster, ratio_interval
from components.suites.suite import Suite


def human_ceiling(suite: Suite, *, seed: int) -> dict[str, Any] | None:
    """Strict accuracy of raters, as a judge's is counted: share of a rater's orders of the suite's pairs that are those
    of the mean of the others who rated both edits (within TIE these have no order, and do not count).

    A rater's tie is wrong. None where no pair was rated by two people or more.
    """
    hits, clusters = list[float](), list[str]()
    people = set[str]()
    for item in suite.items:
        if item.ratings is None or len(item.raters) < 2:
            continue
        for one in item.comparisons:
            margins = item.ratings[:, one.left] - item.ratings[:, one.right]
            both = np.flatnonzero(~np.isnan(margins))
            for rater in both if len(both) > 1 else ():
                others = float(np.mean(margins[both[both != rater]]))
                if abs(others) > TIE:
                    hits.append(float(margins[rater] * others > 0))
                    clusters.append(item.cluster)
                    people.add(item.raters[rater])
    if not hits:
        return None
    right = np.array(hits)[:, None]
    sums = by_cluster(right, np.ones_like(right), clusters)
    value, low, high = ratio_interval(sums[0][:, 0], sums[1][:, 0], seed=seed)
    return {
        "value": value,
        "ci95": None if np.isnan(low) else [low, high],
        "raters": len(people),
        "orders": len(hits),
        "what": "strict accuracy of each rater against the mean of the others",
    }
