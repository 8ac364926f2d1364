"""Rank correlation of a judge's score with people's ratings among one editor's own edits of a task.

Online RL compares an editor's samples of a task with each other, so it feels this figure and not the accuracy over the
edits of several editors, which differ more.
"""

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from editloop.datasets.preference_groups import PreferenceGroup
from editloop.evaluation.oracle import oracle_of_group
from editloop.evaluation.suites.answers import SuiteAnswers
from editloop.evaluation.suites.correlation import spearman
from editloop.evaluation.suites.suite import Item, Suite
from editloop.statistics.bootstrap import (
    LEVEL,
    RESAMPLES,
    percentile_interval,
    resampled_ratios,
    sum_by_cluster,
)

LEAST_SAMPLES = 3
"""Fewest edits of a group. Two have an order too, but their correlation is 1 or -1 and nothing between."""
LEAST_RANGE = {"experts": 0.0, "oracle": 0.05}
"""The best and the worst rating of a group differ by more: edits of equal quality have no order. Experts' are sums of
two ratings (2..8), the oracle's are 0..1."""

Truth = Literal["experts", "oracle"]
"""Who rates: `experts`, by the mean over annotators of the sum of both axes, or the oracle, by its mean of both."""


class EditorSamples(NamedTuple):
    """A group: one editor's edits of one task, K of them, and how good they are."""

    task: str
    cluster: str
    """The source image. Groups of one source are dependent, and are resampled together."""
    editor: str
    indices: NDArray[np.int64]
    """(K,): places among the task's candidates."""
    ratings: NDArray[np.float64]
    """(K,)."""


class WithinEditor(NamedTuple):
    """A judge's correlation within an editor's samples."""

    correlation: float | None
    """Mean over the groups, -1..1; None without any."""
    interval: list[float] | None
    """[low, high], by resampling sources; None if the groups are of fewer than two sources."""
    groups: int
    """Number of groups."""
    missing: int
    """Number of further groups that lack so many scores that fewer than LEAST_SAMPLES are left."""


def editor_samples(suite: Suite, groups: Sequence[PreferenceGroup], truth: Truth) -> list[EditorSamples]:
    """Return the groups of a dataset: each task and editor with several edits that differ in quality.

    Args:
        suite: A suite that was read from the dataset (`heldout` or `scenes`). Tasks that it lacks are left out.
        groups: The dataset's tasks with their candidates.
        truth: Who rates the edits. Tasks without a known right result have no oracle.
    """
    items = {item.key: item for item in suite.items}
    samples = []
    for group in groups:
        ratings = _ratings(group, truth)
        if ratings is None or group.task_id not in items:
            continue
        for editor in dict.fromkeys(group.editors):
            members = [number for number, name in enumerate(group.editors) if name == editor]
            if len(members) >= LEAST_SAMPLES and np.ptp(ratings[members]) > LEAST_RANGE[truth]:
                samples.append(_samples(items[group.task_id], group, editor, members, ratings))
    return samples


def correlation_within_editors(
    samples: Sequence[EditorSamples],
    scores: Mapping[str, NDArray[np.float64]],
    *,
    seed: int,
    level: float = LEVEL,
    resamples: int = RESAMPLES,
) -> WithinEditor:
    """Return the mean over groups of Spearman's correlation between score and rating.

    A judge that gives all edits of a group one score has 0 there: it says nothing of their order. Edits without a score
    are left out.

    Args:
        samples: The groups.
        scores: The judge's scores by task, (K,) in the order of the suite's candidates; NaN where missing.
        seed: Seed of the resampling.
        level: Coverage of the interval, 0..1.
        resamples: Number of resamples.
    """
    correlations, clusters, missing = list[float](), list[str](), 0
    for group in samples:
        values = scores[group.task][group.indices] if group.task in scores else np.full(len(group.indices), np.nan)
        answered = ~np.isnan(values)
        if answered.sum() < LEAST_SAMPLES:
            missing += 1
        elif np.ptp(group.ratings[answered]) > 0:
            once = np.ones((1, int(answered.sum())))
            correlations.append(float(np.nan_to_num(spearman(values[answered], group.ratings[answered], once)[0])))
            clusters.append(group.cluster)
    if not correlations:
        return WithinEditor(None, None, 0, missing)
    column = np.array(correlations)[:, None]
    resampled = resampled_ratios(
        *sum_by_cluster(column, np.ones_like(column), clusters), seed=seed, resamples=resamples
    )
    interval = percentile_interval(resampled.draws[:, 0], int(resampled.clusters[0]), level)
    return WithinEditor(float(column.mean()), interval, len(correlations), missing)


def measure_within_editors(
    suite: Suite,
    groups: Sequence[PreferenceGroup],
    answers: SuiteAnswers | None,
    truth: Truth,
    *,
    seed: int,
    level: float = LEVEL,
) -> WithinEditor:
    """Return a judge's correlation within an editor's samples of a dataset.

    Args:
        suite: As for `editor_samples`.
        groups: The dataset's tasks.
        answers: The judge's answers to the suite; None, or verdicts, where there are no scores.
        truth: Who rates the edits.
        seed: Seed of the resampling.
        level: Coverage of the interval, 0..1.
    """
    if answers is None or answers.scores is None:
        return WithinEditor(None, None, 0, 0)
    return correlation_within_editors(editor_samples(suite, groups, truth), answers.scores, seed=seed, level=level)


def _ratings(group: PreferenceGroup, truth: Truth) -> NDArray[np.float64] | None:
    """Ratings of the candidates, (K,); None where nobody knows."""
    if truth == "experts":
        sums: NDArray[np.float64] = group.ratings.astype(np.float64).sum(axis=1)
        return sums
    oracle = oracle_of_group(group)
    return None if oracle is None else oracle.mean


def _samples(
    item: Item, group: PreferenceGroup, editor: str, members: Sequence[int], ratings: NDArray[np.float64]
) -> EditorSamples:
    indices = np.array([item.candidates.index(group.candidates[number]) for number in members])
    return EditorSamples(item.key, item.cluster_name, editor, indices, ratings[list(members)])
