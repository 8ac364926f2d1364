"""A suite's comparisons and its units as arrays, and what a judge's answers make of them."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from components.suites.answers import Answers
from components.suites.suite import Label, Suite
from components.suites.ties import Codes, Floats, Outcome, best_threshold, decided, held_out_thresholds, outcomes

SIGNS: dict[Label, float] = {"left": 1.0, "right": -1.0, "tie": 0.0, "both_bad": 0.0}


@dataclass(frozen=True)
class Units:
    """M comparisons, which are or make up N units: the comparisons themselves, or in a suite of groups the items."""

    compared: tuple[str, ...]
    """M keys."""
    words: tuple[Label, ...]
    """M."""
    human: Floats
    """(M,): 1 left, -1 right, 0 tie."""
    unit: NDArray[np.int64]
    """(M,): the unit that a comparison belongs to."""
    tells_ties: NDArray[np.bool_]
    """(M,): comparisons that a threshold is chosen by: those that people could call a tie."""
    keys: tuple[str, ...]
    """N."""
    clusters: tuple[str, ...]
    slices: tuple[str, ...]
    axes: tuple[str, ...]
    suite: Suite

    def __len__(self) -> int:
        return len(self.keys)

    def together(self, found: Codes) -> Codes:
        """Outcomes of the units from those of their comparisons: the worst, in the order of Outcome. (M,) to (N,)."""
        units = np.zeros(len(self), dtype=np.int64)
        np.maximum.at(units, self.unit, found)
        return units

    def credit(self, found: Codes) -> Floats:
        """(N,): the chance of a unit to be right if a coin decided each pair that the judge leaves open."""
        worth = np.zeros(len(Outcome))
        worth[[Outcome.RIGHT, Outcome.BOTH_TIES]], worth[Outcome.MODEL_TIE] = 1.0, 0.5
        credits = np.ones(len(self))
        np.multiply.at(credits, self.unit, worth[found])
        return credits


def units_of(suite: Suite) -> Units:
    """The units of a suite's comparisons, in its order."""
    in_groups = suite.counting == "groups"
    compared = [(item, one) for item in suite.items for one in item.comparisons]
    asked = [item for item in suite.items if item.comparisons]
    owners = asked if in_groups else [item for item, _ in compared]
    place = {item.key: number for number, item in enumerate(asked)}
    return Units(
        compared=tuple(one.key for _, one in compared),
        words=tuple(one.label for _, one in compared),
        human=np.array([SIGNS[one.label] for _, one in compared], dtype=np.float64),
        unit=np.array([place[item.key] for item, _ in compared] if in_groups else range(len(compared)), dtype=np.int64),
        tells_ties=np.array(
            [suite.counting == "ties" or (in_groups and len(item.candidates) == 2) for item, _ in compared], dtype=bool
        ),
        keys=tuple(item.key for item in asked) if in_groups else tuple(one.key for _, one in compared),
        clusters=tuple(item.cluster for item in owners),
        slices=tuple(item.slice for item in owners),
        axes=tuple(item.axis for item in owners),
        suite=suite,
    )


@dataclass(frozen=True)
class Found:
    """What became of the comparisons, (M,), as published, and with thresholds that did not see them."""

    published: Codes
    plain: Codes
    """With equal scores alone as ties: what orders are worth apart from where the threshold lies."""
    held_out: Codes | None
    """None where there is no threshold to choose, or too few clusters to hold any out."""
    threshold: float | None
    folds: Floats | None
    """The thresholds of the folds."""


def found_by(units: Units, answers: Answers, *, seed: int) -> Found:
    """The outcomes of a judge's answers."""
    if answers.verdicts is not None:
        said = _of_verdicts(units, answers)
        return Found(said, said, None, None, None)
    assert answers.scores is not None
    difference = np.array(
        [
            answers.scores[item.key][one.left] - answers.scores[item.key][one.right]
            for item in units.suite.items
            for one in item.comparisons
        ],
        dtype=np.float64,
    )
    fits = units.tells_ties
    plain = outcomes(units.human, decided(difference, 0.0))
    if not fits.any():
        return Found(plain, plain, None, None, None)
    threshold = best_threshold(units.human[fits], difference[fits])
    published = outcomes(units.human, decided(difference, np.where(fits, threshold, 0.0)))
    numbers = np.unique(np.array(units.clusters)[units.unit], return_inverse=True)[1]
    apart = held_out_thresholds(units.human, difference, numbers, fits, seed=seed)
    if apart is None:
        return Found(published, plain, None, threshold, None)
    held_out = outcomes(units.human, decided(difference, np.where(fits, apart[0], 0.0)))
    return Found(published, plain, held_out, threshold, apart[1])


def _of_verdicts(units: Units, answers: Answers) -> Codes:
    """Outcomes of verdicts; where people had four words, `tie` and `both_bad` are not the same."""
    assert answers.verdicts is not None
    said = [answers.verdicts.get(key) for key in units.compared]
    judge = np.array([np.nan if word is None else SIGNS[word] for word in said], dtype=np.float64)
    found = outcomes(units.human, judge)
    if units.suite.four_words:
        other = np.array([word != human for word, human in zip(said, units.words, strict=True)], dtype=bool)
        found[(found == Outcome.BOTH_TIES) & other] = Outcome.OTHER_TIE
    return found
