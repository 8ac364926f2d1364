"""A suite's comparisons and units as arrays, and their outcomes for a judge's answers."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from editloop.evaluation.suites.answers import SuiteAnswers
from editloop.evaluation.suites.suite import Label, Suite
from editloop.evaluation.suites.ties import (
    Codes,
    Floats,
    PairOutcome,
    best_threshold,
    held_out_thresholds,
    pair_outcomes,
    preference_signs,
)

SIGNS: dict[Label, float] = {"left": 1.0, "right": -1.0, "tie": 0.0, "both_bad": 0.0}
"""Labels as numbers: 1 if the left edit is preferred, -1 if the right one is, 0 for a tie."""


@dataclass(frozen=True)
class Units:
    """M comparisons that form N units. A unit is a comparison, or in a suite of groups an item with its comparisons."""

    comparison_keys: tuple[str, ...]
    """(M): keys of the comparisons."""
    words: tuple[Label, ...]
    """(M): human labels."""
    human: Floats
    """(M,): the human labels as numbers, see SIGNS."""
    unit: NDArray[np.int64]
    """(M,): index of the unit that a comparison belongs to."""
    can_tie: NDArray[np.bool_]
    """(M,): whether people could call the comparison a tie. Tie thresholds are fitted to these alone."""
    keys: tuple[str, ...]
    """(N): keys of the units; their clusters, slices and axes follow."""
    clusters: tuple[str, ...]
    slices: tuple[str, ...]
    axes: tuple[str, ...]
    one_source: NDArray[np.bool_]
    """(N,): whether a unit's item has no reference images."""
    suite: Suite

    def __len__(self) -> int:
        return len(self.keys)

    def unit_outcomes(self, codes: Codes) -> Codes:
        """Return the units' outcomes: the worst one of each unit's comparisons, in the order of `PairOutcome`.

        Args:
            codes: Outcomes of the comparisons, (M,).

        Returns:
            Outcomes of the units, (N,).
        """
        units = np.zeros(len(self), dtype=np.int64)
        np.maximum.at(units, self.unit, codes)
        return units

    def credit(self, codes: Codes) -> Floats:
        """Return the probability that each unit is right if a coin decides the pairs on which only the judge ties.

        A pair that is right, or that both call a tie, has probability 1; one on which only the judge ties has 0.5; any
        other has 0. A unit's credit is the product over its pairs.

        Args:
            codes: Outcomes of the comparisons, (M,).

        Returns:
            (N,), 0..1.
        """
        credit_by_outcome = np.zeros(len(PairOutcome))
        credit_by_outcome[[PairOutcome.RIGHT, PairOutcome.BOTH_TIES]] = 1.0
        credit_by_outcome[PairOutcome.MODEL_TIE] = 0.5
        credits = np.ones(len(self))
        np.multiply.at(credits, self.unit, credit_by_outcome[codes])
        return credits


def suite_units(suite: Suite) -> Units:
    """Return the units of a suite's comparisons, in the suite's order.

    Args:
        suite: The suite. Items without comparisons are left out.
    """
    in_groups = suite.counting == "groups"
    compared = [(item, comparison) for item in suite.items for comparison in item.comparisons]
    compared_items = [item for item in suite.items if item.comparisons]
    owners = compared_items if in_groups else [item for item, _ in compared]
    unit_index = {item.key: number for number, item in enumerate(compared_items)}
    return Units(
        comparison_keys=tuple(comparison.key for _, comparison in compared),
        words=tuple(comparison.label for _, comparison in compared),
        human=np.array([SIGNS[comparison.label] for _, comparison in compared], dtype=np.float64),
        unit=np.array(
            [unit_index[item.key] for item, _ in compared] if in_groups else range(len(compared)), dtype=np.int64
        ),
        can_tie=np.array(
            [suite.counting == "ties" or (in_groups and len(item.candidates) == 2) for item, _ in compared], dtype=bool
        ),
        keys=tuple(item.key for item in compared_items)
        if in_groups
        else tuple(comparison.key for _, comparison in compared),
        clusters=tuple(item.cluster_name for item in owners),
        slices=tuple(item.slice for item in owners),
        axes=tuple(item.axis for item in owners),
        one_source=np.array([not item.references for item in owners], dtype=bool),
        suite=suite,
    )


@dataclass(frozen=True)
class ComparisonOutcomes:
    """Outcomes of the comparisons, (M,), under several rules for when scores are a tie."""

    published: Codes
    """With the threshold that is best on the suite itself, as publications do, or with the publication's own (see
    `Suite.tie_below`); `plain` if there is no threshold."""
    plain: Codes
    """With only equal scores as ties: the quality of the order, whatever the threshold."""
    held_out: Codes | None
    """With thresholds fitted to other clusters. None if there is no threshold to fit, or too few clusters to hold any
    out."""
    threshold: float | None
    """The threshold of `published`; None if there is none to fit."""
    folds: Floats | None
    """(folds,): the thresholds of `held_out`; None with it."""


def comparison_outcomes(units: Units, answers: SuiteAnswers, *, seed: int) -> ComparisonOutcomes:
    """Return the outcomes of a judge's answers.

    Verdicts, and scores of comparisons that people could not call a tie, need no threshold.

    Args:
        units: The suite's units.
        answers: Answers to the same suite.
        seed: Seed of the assignment of clusters to folds.
    """
    if answers.verdicts is not None:
        codes = _outcomes_of_verdicts(units, answers)
        return ComparisonOutcomes(codes, codes, None, None, None)
    assert answers.scores is not None
    pairs = [(answers.scores[item.key], comparison) for item in units.suite.items for comparison in item.comparisons]
    difference = np.array([scores[pair.left] - scores[pair.right] for scores, pair in pairs], dtype=np.float64)
    fits = units.can_tie
    plain = pair_outcomes(units.human, preference_signs(difference, 0.0))
    if not fits.any():
        return ComparisonOutcomes(plain, plain, None, None, None)
    if (tie_below := units.suite.tie_below) is None:
        threshold = best_threshold(units.human[fits], difference[fits])
        thresholds = np.where(fits, threshold, 0.0)
    else:
        threshold = tie_below
        thresholds = np.where(units.human == 0, np.nextafter(tie_below, 0.0), 0.0)
    published = pair_outcomes(units.human, preference_signs(difference, thresholds))
    numbers = np.unique(np.array(units.clusters)[units.unit], return_inverse=True)[1]
    fold_thresholds = held_out_thresholds(units.human, difference, numbers, fits, seed=seed)
    if fold_thresholds is None:
        return ComparisonOutcomes(published, plain, None, threshold, None)
    held_out = pair_outcomes(units.human, preference_signs(difference, np.where(fits, fold_thresholds[0], 0.0)))
    return ComparisonOutcomes(published, plain, held_out, threshold, fold_thresholds[1])


def _outcomes_of_verdicts(units: Units, answers: SuiteAnswers) -> Codes:
    """Outcomes of verdicts. Where people had four words, `tie` and `both_bad` are different."""
    assert answers.verdicts is not None
    verdicts = [answers.verdicts.get(key) for key in units.comparison_keys]
    judge = np.array([np.nan if word is None else SIGNS[word] for word in verdicts], dtype=np.float64)
    codes = pair_outcomes(units.human, judge)
    if units.suite.four_words:
        differs = np.array([word != human for word, human in zip(verdicts, units.words, strict=True)], dtype=bool)
        codes[(codes == PairOutcome.BOTH_TIES) & differs] = PairOutcome.OTHER_TIE
    return codes
