"""How far annotators agree: Krippendorff's alpha with a bootstrap interval, and the order they put candidates in.

K. Krippendorff, Content Analysis (2004), ch. 11. With m ratings of an item, n of all items that have two or more, and a
squared distance d between two ratings,

    alpha = 1 - (n - 1) * (sum over items of the d of its ordered pairs / (m - 1)) / (sum of d over all ordered pairs)

An ordinal distance is the distance of mid-ranks, so ordinal alpha is interval alpha of mid-ranks; sums over pairs
follow from sums of scores and of their squares. A resample is then a few products with a sparse table.
"""

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import csr_array

from annotation.judgement_table import judgement_table
from annotation.vocabulary import Axis, Judgement

Level = Literal["ordinal", "interval", "nominal"]
RESAMPLES = 1000
Float = NDArray[np.float64]


def agreement(judgements: Sequence[Judgement], axis: Axis, *, seed: int = 0) -> dict[str, Any]:
    """Agreement on one axis, as `table_agreement` gives it: an item is a candidate, and whole tasks are resampled.

    Candidates of one task are not independent of each other.
    """
    return judged_agreement(judgement_table(judgements), axis, seed=seed)


def judged_agreement(table: pd.DataFrame, axis: Axis, *, seed: int = 0) -> dict[str, Any]:
    """The same from a `judgement_table`."""
    return table_agreement(table[axis], table["item"], table["annotator"], groups=table["task_id"], seed=seed)


def table_agreement(
    values: ArrayLike,
    items: ArrayLike,
    raters: ArrayLike,
    *,
    groups: ArrayLike | None = None,
    level: Level = "ordinal",
    seed: int = 0,
) -> dict[str, Any]:
    """Agreement of N ratings: {"alpha", "ci95": [low, high], "items", "raters"}.

    values, items, raters, groups: (N,), a rating and what it belongs to; values are finite numbers, or anything with
    `level` nominal. `items` counts those with two ratings or more, `raters` everybody. `ci95` is the 2.5th to 97.5th
    percentile of alpha over RESAMPLES draws of whole groups (items, where no groups are given), None with one group.
    Where alpha is undefined (no item has two ratings, or all compared ratings are one value) it is None, and "note"
    says why.
    """
    names = pd.unique(pd.Series(np.asarray(raters)).astype(str))
    ratings = _Ratings.of(values, items, items if groups is None else groups, level)
    found = {"alpha": None, "ci95": None, "items": ratings.counts.shape[0], "raters": len(names)}
    if note := _degenerate(ratings, names):
        return found | {"note": note}
    rng = np.random.default_rng(seed)
    chosen = (rng.integers(ratings.groups, size=ratings.groups) for _ in range(RESAMPLES if ratings.groups > 1 else 0))
    draws = [ratings.alpha(np.bincount(one, minlength=ratings.groups)) for one in chosen]
    defined = [draw for draw in draws if not np.isnan(draw)]
    interval = [float(bound) for bound in np.percentile(defined, (2.5, 97.5))] if defined else None
    return found | {"alpha": ratings.alpha(np.ones(ratings.groups)), "ci95": interval}


class _Ratings(NamedTuple):
    """The I items that have two ratings or more, of V values, in G groups."""

    counts: csr_array
    """(I, V): how often each value was given."""
    scores: Float | None
    """(V,): the values, for interval distances; None = mid-ranks (ordinal) or equality (nominal)."""
    domain: NDArray[Any]
    """(V,): the values themselves, sorted where they have an order."""
    group: NDArray[np.intp]
    """(I,)"""
    groups: int
    level: Level

    @classmethod
    def of(cls, values: ArrayLike, items: ArrayLike, groups: ArrayLike, level: Level) -> "_Ratings":
        item, _ = pd.factorize(np.asarray(items))
        compared = (np.bincount(item) > 1)[item] if len(item) else np.zeros(0, dtype=bool)
        item, _ = pd.factorize(item[compared])
        code, domain = pd.factorize(np.asarray(values)[compared], sort=level != "nominal")
        group, names = pd.factorize(np.asarray(groups)[compared])
        first = np.unique(item, return_index=True)[1]
        counts = csr_array((np.ones(len(item)), (item, code)), shape=(len(first), len(domain)))
        # Centred, so that squares of large values do not drown their differences.
        scores = domain.astype(np.float64) - np.median(domain) if level == "interval" and len(domain) else None
        return cls(counts, scores, domain, group[first], len(names), level)

    def alpha(self, weights: NDArray[Any]) -> float:
        """Alpha with each group's items counted `weights` (G,) times; NaN where undefined."""
        times = weights[self.group].astype(np.float64)
        given = times @ self.counts
        n, m = given.sum(), self.counts.sum(axis=1)
        if self.level == "nominal":
            squares = self.counts.copy()
            squares.data **= 2
            within = m**2 - squares.sum(axis=1)
            between = n**2 - (given**2).sum()
        else:
            scores = self.scores if self.scores is not None else np.cumsum(given) - given / 2 - n / 2
            within = 2 * m * (self.counts @ scores**2) - 2 * (self.counts @ scores) ** 2
            between = 2 * n * (given @ scores**2) - 2 * (given @ scores) ** 2
        if (given > 0).sum() < 2:
            return float("nan")
        return float(1 - (n - 1) * (times @ (within / (m - 1))) / between)


def _degenerate(ratings: _Ratings, names: NDArray[Any]) -> str | None:
    """Why alpha is undefined, or None."""
    if len(names) == 0:
        return "no ratings"
    if len(names) == 1:
        return f"one rater ({names[0]}): there is nobody to agree with"
    if ratings.counts.shape[0] == 0:
        return "no item was rated by two raters: there is nothing to compare"
    if len(ratings.domain) == 1:
        value = ratings.domain[0] if ratings.level == "nominal" else f"{ratings.domain[0]:g}"
        return f"every compared rating is {value}: agreement cannot be told from chance"
    return None


def order_agreement(table: pd.DataFrame, axis: Axis) -> dict[str, Any]:
    """Do two annotators order two candidates of one task the same way? Counted over all such fours.

    Gives {"share", "same", "opposite", "one_tie", "both_tie"}: `share` is same / (same + opposite), None where both are
    0; fours in which one or both of the two see a tie are counted apart. `table` is a `judgement_table` with one rating
    of a candidate by an annotator.
    """
    rows = table[["task_id", "annotator", "item", axis]]
    pairs = rows.merge(rows, on=["task_id", "annotator"], suffixes=("_a", "_b"))
    pairs = pairs[pairs["item_a"] < pairs["item_b"]]
    order = np.sign(pairs[f"{axis}_a"].to_numpy().astype(int) - pairs[f"{axis}_b"].to_numpy())
    by_pair = pd.DataFrame({"a": order > 0, "b": order < 0, "tie": order == 0}).groupby(
        [pairs["item_a"].to_numpy(), pairs["item_b"].to_numpy()]
    )
    a, b, tie = by_pair.sum().to_numpy(dtype=np.int64).T.reshape(3, -1)
    same = int((a * (a - 1) + b * (b - 1)).sum()) // 2
    opposite = int((a * b).sum())
    return {
        "share": same / (same + opposite) if same + opposite else None,
        "same": same,
        "opposite": opposite,
        "one_tie": int((tie * (a + b)).sum()),
        "both_tie": int((tie * (tie - 1)).sum()) // 2,
    }
