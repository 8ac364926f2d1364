"""Agreement of annotators: Krippendorff's alpha with a bootstrap interval, and agreement on the order of candidates.

K. Krippendorff, Content Analysis (2004), ch. 11. With m ratings of an item, n ratings of all items that have two or
more, and a squared distance d between two ratings,

    alpha = 1 - (n - 1) * (sum over items of the d of its ordered pairs / (m - 1)) / (sum of d over all ordered pairs)

The ordinal distance of two ratings is the distance of their mid-ranks, so ordinal alpha is interval alpha of mid-ranks.
Counts of values and of value pairs add up over groups of items, so at any level a resample costs two products with
sparse tables. A test compares alpha with the `krippendorff` package. That package cannot resample tasks; a bootstrap
built on it took eleven times as long (`make bench`).
"""

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np
import pandas as pd
from jaxtyping import Float, Int, Shaped
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import csr_array

from editloop.data.vocabulary import Axis
from editloop.statistics.bootstrap import draw_counts

Level = Literal["ordinal", "interval", "nominal"]
RESAMPLES = 1000
BLOCK = 2_000_000
"""Most numbers in memory at once while resampling."""
Array: TypeAlias = NDArray[np.float64]


def agreement(table: pd.DataFrame, axis: Axis, *, seed: int = 0) -> dict[str, Any]:
    """Measure the agreement of annotators on one axis.

    An item is a candidate. Candidates of one task are not independent of each other, so whole tasks are resampled.

    Args:
        table: A `judgement_table`.
        axis: The axis.
        seed: Seed of the resampling.

    Returns:
        The figures of `table_agreement`.
    """
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
    """Measure the agreement of N ratings.

    Args:
        values: The ratings, (N,): finite numbers, or anything at level "nominal".
        items: What each rating is about, (N,).
        raters: Who gave it, (N,).
        groups: The group that each item belongs to, (N,). Groups are resampled as a whole. None: each item alone.
        level: Level of measurement, which sets the distance of two ratings.
        seed: Seed of the resampling.

    Returns:
        {"alpha", "ci95", "items", "raters"}. `ci95` is [low, high], the 2.5th and 97.5th percentile of alpha over
        RESAMPLES resamples, and None with fewer than two groups or where every resample is undefined. `items` counts
        the items with two or more ratings, `raters` all raters. Where alpha is undefined (no item has two ratings, or
        all compared ratings are equal), `alpha` and `ci95` are None, and "note" says why.
    """
    names: list[str] = pd.Series(np.asarray(raters)).astype(str).unique().tolist()
    ratings = _Ratings.of(values, items, items if groups is None else groups, level)
    figures = {"alpha": None, "ci95": None, "items": ratings.items, "raters": len(names)}
    if note := _degenerate(ratings, names):
        return figures | {"note": note}
    G = ratings.given.shape[0]
    blocks = draw_counts(G, RESAMPLES, BLOCK // max(*ratings.given.shape, ratings.pairs.shape[1]), seed=seed)
    draws = np.concatenate([ratings.alphas(times) for times in blocks])
    defined = draws[~np.isnan(draws)]
    interval = [float(bound) for bound in np.percentile(defined, (2.5, 97.5))] if G > 1 and len(defined) else None
    return figures | {"alpha": float(ratings.alphas(np.ones((1, G)))[0]), "ci95": interval}


class _Ratings(NamedTuple):
    """The items with two or more ratings: counts of V values and P value pairs, summed over G groups."""

    items: int
    given: csr_array
    """(G, V): how often each value was given."""
    coincidences: csr_array
    """(G, P): how often each pair of values occurs within an item. Each item's pairs are divided by its m - 1."""
    pairs: Int[NDArray[np.intp], "2 P"]
    """The two values of each pair, as indices into `domain`."""
    domain: Shaped[NDArray[Any], " V"]
    """The values, sorted unless nominal."""
    level: Level

    @classmethod
    def of(cls, values: ArrayLike, items: ArrayLike, groups: ArrayLike, level: Level) -> "_Ratings":
        """Count the ratings. The arguments are those of `table_agreement`."""
        item, _ = pd.factorize(np.asarray(items))
        compared = (np.bincount(item) > 1)[item] if len(item) else np.zeros(0, dtype=bool)
        item, names = pd.factorize(item[compared])
        code, domain = pd.factorize(np.asarray(values)[compared], sort=level != "nominal")
        group, group_names = pd.factorize(np.asarray(groups)[compared])
        count, V, G = len(names), len(domain), len(group_names)
        counts = csr_array((np.ones(len(item)), (item, code)), shape=(count, V))
        counts.sum_duplicates()
        belongs = np.empty(count, dtype=np.intp)
        belongs[item] = group
        # All pairs of an item's values: its row of `counts`, joined with itself.
        row = np.repeat(np.arange(count), np.diff(counts.indptr))
        entries = pd.DataFrame({"row": row, "value": counts.indices, "times": counts.data})
        value_pairs = entries.merge(entries, on="row", suffixes=("", "_other"))
        same = value_pairs["value"] == value_pairs["value_other"]
        m = counts.sum(axis=1)[value_pairs["row"].to_numpy(dtype=np.intp)]
        weight = (value_pairs["times"] * (value_pairs["times_other"] - same) / (m - 1)).to_numpy(dtype=np.float64)
        number, pairs = pd.factorize(
            value_pairs["value"].to_numpy(np.int64) * max(1, V) + value_pairs["value_other"].to_numpy(np.int64)
        )
        coincidences = csr_array((weight, (belongs[value_pairs["row"]], number)), shape=(G, len(pairs)))
        value_counts = csr_array((np.ones(len(item)), (group, code)), shape=(G, V))
        return cls(count, value_counts, coincidences, np.stack([pairs // max(1, V), pairs % max(1, V)]), domain, level)

    def alphas(self, times: Float[Array, "R G"]) -> Float[Array, " R"]:
        """Return alpha with each group counted so many times in each of R resamples, NaN where undefined."""
        value_counts: Array = (self.given.T @ times.T).T
        pair_counts: Array = (self.coincidences.T @ times.T).T
        n: Array = value_counts.sum(axis=1)
        first: NDArray[np.intp] = self.pairs[0]
        second: NDArray[np.intp] = self.pairs[1]
        within: Array
        between: Array
        if self.level == "nominal":
            within = pair_counts @ (first != second)
            between = n**2 - (value_counts**2).sum(axis=1)
        else:
            if self.level == "ordinal":
                scores = np.cumsum(value_counts, axis=1) - value_counts / 2 - n[:, None] / 2
            else:
                # Centred, because squares of large values would swamp their differences.
                scores = np.broadcast_to(self.domain.astype(np.float64) - np.median(self.domain), value_counts.shape)
            within = (pair_counts * (scores[:, first] - scores[:, second]) ** 2).sum(axis=1)
            between = 2 * n * (value_counts * scores**2).sum(axis=1) - 2 * (value_counts * scores).sum(axis=1) ** 2
        several: NDArray[np.bool_] = (value_counts > 0).sum(axis=1) > 1
        return np.where(several, 1 - (n - 1) * within / np.where(several, between, 1), np.nan)


def _degenerate(ratings: _Ratings, names: Sequence[str]) -> str | None:
    """Return why alpha is undefined, or None."""
    if len(names) == 0:
        return "no ratings"
    if len(names) == 1:
        return f"one rater ({names[0]}): there is nobody to agree with"
    if ratings.items == 0:
        return "no item was rated by two raters: there is nothing to compare"
    if len(ratings.domain) == 1:
        value = ratings.domain[0] if ratings.level == "nominal" else f"{ratings.domain[0]:g}"
        return f"every compared rating is {value}: agreement cannot be told from chance"
    return None


def order_agreement(table: pd.DataFrame, axis: Axis) -> dict[str, Any]:
    """Measure how often two annotators order two candidates of a task the same way, over all such cases.

    A case is two annotators and two candidates of one task that both rated.

    Args:
        table: A `judgement_table` with at most one rating of a candidate by an annotator.
        axis: The axis.

    Returns:
        {"share", "same", "opposite", "one_tie", "both_tie"}. `share` is same / (same + opposite), None where both are
        0. `one_tie` and `both_tie` count the cases in which one or both annotators rated the two candidates equally.
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
