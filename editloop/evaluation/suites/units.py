"""A suite's comparisons and its units as arrays, and what a judge's answers make of them."""

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


@dataclass(frozen=True)
class Units:
    """M comparisons, which are or make up N units: the comparisons themselves, or in a suite of groups the items."""

    comparison_keys: tuple[str, ...]
    """M keys."""
    words: tuple[Label, ...]
    """M."""
    human: Floats
    """(M,): 1 left, -1 right, 0 tie."""
    unit: NDArray[np.int64]
    """(M,): the unit that a comparison belongs to."""
    can_tie: NDArray[np.bool_]
    """(M,): comparisons that a threshold is chosen by: those that people could call a tie."""
    keys: tuple[str, ...]
    """N."""
    clusters: tuple[str, ...]
    slices: tuple[str, ...]
    axes: tuple[str, ...]
    suite: Suite

    def __len__(self) -> int:
        return len(self.keys)

    def unit_outcomes(self, codes: Codes) -> Codes:
        """Outcomes of the units from those of their comparisons: the worst, in the order of Outcome. (M,) to (N,)."""
        units = np.zeros(len(self), dtype=np.int64)
        np.maximum.at(units, self.unit, codes)
        return units

    def credit(self, codes: Codes) -> Floats:
        """(N,): the chance of a unit to be right if a coin decided each pair that the judge leaves open."""
        credit_by_outcome = np.zeros(len(PairOutcome))
        credit_by_outcome[[PairOutcome.RIGHT, PairOutcome.BOTH_TIES]], credit_by_outcome[PairOutcome.MODEL_TIE] = (
            1.0,
            0.5,
        )
        credits = np.ones(len(self))
        np.multiply.at(credits, self.unit, credit_by_outcome[codes])
        return credits


def suite_units(suite: Suite) -> Units:
    """The units of a suite's comparisons, in its order."""
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
        clusters=tuple(item.cluster for item in owners),
        slices=tuple(item.slice for item in owners),
        axes=tuple(item.axis for item in owners),
        suite=suite,
    )


@dataclass(frozen=True)
class ComparisonOutcomes:
    """What became of the comparisons, (M,), as published, and with thresholds that did not see them."""

    published: Codes
    plain: Codes
    """With equal scores alone as ties: what orders are worth apart from where the threshold lies."""
    held_out: Codes | None
    """None where there is no threshold to choose, or too few clusters to hold any out."""
    threshold: float | None
    folds: Floats | None
    """The thresholds of the folds."""


def comparison_outcomes(units: Units, answers: SuiteAnswers, *, seed: int) -> ComparisonOutcomes:
    """The outcomes of a judge's answers."""
    if answers.verdicts is not None:
        codes = _outcomes_of_verdicts(units, answers)
        return ComparisonOutcomes(codes, codes, None, None, None)
    assert answers.scores is not None
    difference = np.array(
        [
            answers.scores[item.key][comparison.left] - answers.scores[item.key][comparison.right]
            for item in units.suite.items
            for comparison in item.comparisons
        ],
        dtype=np.float64,
    )
    fits = units.can_tie
    plain = pair_outcomes(units.human, preference_signs(difference, 0.0))
    if not fits.any():
        return ComparisonOutcomes(plain, plain, None, None, None)
    threshold = best_threshold(units.human[fits], difference[fits])
    published = pair_outcomes(units.human, preference_signs(difference, np.where(fits, threshold, 0.0)))
    numbers = np.unique(np.array(units.clusters)[units.unit], return_inverse=True)[1]
    fold_thresholds = held_out_thresholds(units.human, difference, numbers, fits, seed=seed)
    if fold_thresholds is None:
        return ComparisonOutcomes(published, plain, None, threshold, None)
    held_out = pair_outcomes(units.human, preference_signs(difference, np.where(fits, fold_thresholds[0], 0.0)))
    return ComparisonOutcomes(published, plain, held_out, threshold, fold_thresholds[1])


def _outcomes_of_verdicts(units: Units, answers: SuiteAnswers) -> Codes:
    """Outcomes of verdicts; where people had four words, `tie` and `both_bad` are not the same."""
    assert answers.verdicts is not None
    verdicts = [answers.verdicts.get(key) for key in units.comparison_keys]
    judge = np.array([np.nan if word is None else SIGNS[word] for word in verdicts], dtype=np.float64)
    codes = pair_outcomes(units.human, judge)
    if units.suite.four_words:
        differs = np.array([word != human for word, human in zip(verdicts, units.words, strict=True)], dtype=bool)
        codes[(codes == PairOutcome.BOTH_TIES) & differs] = PairOutcome.OTHER_TIE
    return codes
