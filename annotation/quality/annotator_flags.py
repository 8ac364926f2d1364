"""Hypothesis tests that flag conspicuous annotators, with the probability of a false flag controlled.

Every test asks whether an annotator is *beyond the tolerance for honest annotators* (the constants below), not whether
they differ from the others at all: all people do. The tests of a campaign are one family, corrected by Holm's method
(S. Holm, Scand. J. Statist. 6 (1979) 65-70) in `annotation.quality.annotator_quality`. It removes the clearest case
before it tests the others again, so that nobody is flagged for being compared with a spammer.

In 200 generated campaigns of 60 to 300 tasks with 1,326 honest annotators, 3 to 10 a campaign (bias up to 0.35 levels
either way, noise of 0.3 to 0.7), the tests flagged nobody.
"""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import numpy as np
import pandas as pd

from annotation.quality.annotator_measures import Measures
from annotation.quality.known_answers import Share
from editloop.data.vocabulary import AXES, AXIS_NAMES, Axis

LEVEL = 0.05
"""Upper bound on the probability of any flag in a campaign of honest annotators."""
LEAST_PAGES, LEAST_GOLD_PAGES = 20, 5
"""With fewer pages an annotator is not tested."""
LEAST_ANNOTATORS = 3
"""Comparisons with the others need this many annotators: of two who differ, nobody can tell which one is off."""

SHIFT, DRIFT, EDITOR = 0.6, 0.25, 0.4
"""Tolerated differences from the median annotator, in levels."""
FOLLOWS, FADES = 0.4, 0.5
"""Shares of the median annotator's slope. A slope below FOLLOWS, or a loss of more than FADES from the first page to
the last, is beyond the tolerance."""
LEAST_SLOPE = 0.1
"""Where the median annotator's slope is below this, ratings are too inconsistent to test anybody's slope."""
PLACE = 0.15
"""Levels from the page's mean. A smaller effect of the position is reported but not flagged."""
GOLD, GOLD_BELOW = 0.7, 0.15
"""Lowest tolerated share of known answers right. Where gold is hard for everybody, the limit is GOLD_BELOW below the
median annotator's share instead."""
REPEATS_BELOW = 0.1
"""Tolerated distance below the median annotator's share of repeated ratings within one level."""
FLAT_ABOVE = 0.2
"""Tolerated distance above the median annotator's share of pages on which every rating is the same level."""
FAST_RATING, FAST_SHARE, FAST_PAGES = 0.5, 1 / 3, 0.1
"""A page is too fast if it takes less than FAST_RATING seconds a rating and less than FAST_SHARE of the campaign's
median page time. The tolerated share of such pages is FAST_PAGES."""


class Speed(NamedTuple):
    """Answer speed of one annotator, over pages with a known duration."""

    pages: int
    too_fast: int
    """Pages answered too fast, as the constants FAST_RATING and FAST_SHARE define it."""
    median: float
    """Median time, in seconds a page."""


class Evidence(NamedTuple):
    """Measurements of one annotator that the tests use; None where there are no data."""

    axes: Mapping[Axis, Measures]
    gold: Share | None
    """Known answers that are right."""
    repeats: Share | None
    """Repeated ratings within one level of the first rating."""
    flat: Share | None
    """Pages on which every rating is the same level."""
    speed: Speed | None


class Finding(NamedTuple):
    """Result of one test of one annotator."""

    annotator: str
    words: str
    """`KIND: description`."""
    log_p: float
    """Natural logarithm of the p-value: for clear cases the p-value itself is too small for a float."""


def findings(evidence: Mapping[str, Evidence]) -> list[Finding]:
    """Run all tests of all annotators.

    A test leaves out annotators with too few data for it.

    Args:
        evidence: Measurements by annotator.

    Returns:
        One finding for each test run, significant or not; Holm's correction is the caller's.
    """
    tested = [*_shares(evidence), *_speed(evidence)]
    for axis in AXES:
        measured = {name: case.axes[axis] for name, case in evidence.items()}
        tested += _position(measured, axis)
        if len(evidence) >= LEAST_ANNOTATORS:
            tested += [*_follows(measured, axis), *_levels(measured, axis)]
    return tested


def _levels(measured: Mapping[str, Measures], axis: Axis) -> Iterable[Finding]:
    """Test shift, drift, and preference for an editor."""
    for name, measures in measured.items():
        effects = [
            ("shift", measures.shift, SHIFT, "rates", "than the median annotator"),
            ("drift", measures.drift, DRIFT, "rates", "at the end than at the beginning"),
        ]
        for editor, leaning in measures.editors.items():
            effects.append(("editor", leaning, EDITOR, f"rates edits of {editor}", "than others do"))
        for kind, estimate, allowed, begin, end in effects:
            if estimate is not None and estimate.pages >= LEAST_PAGES:
                half = 1.96 * estimate.error
                interval = f"95 % interval {estimate.value - half:+.2f} to {estimate.value + half:+.2f}"
                words = f"{kind}: {AXIS_NAMES[axis]}: {begin} {_difference_text(estimate.value)} {end} ({interval})"
                yield Finding(name, words, _log_p_above(abs(estimate.value) - allowed, estimate.error, estimate.pages))


def _follows(measured: Mapping[str, Measures], axis: Axis) -> Iterable[Finding]:
    slopes = {
        name: (measures.follows, measures.pages)
        for name, measures in measured.items()
        if measures.follows is not None and measures.pages >= LEAST_PAGES
    }
    if len(slopes) < LEAST_ANNOTATORS:
        return
    middle = float(np.median([slope.value for slope, _ in slopes.values()]))
    if middle < LEAST_SLOPE:
        return
    for name, (slope, pages) in slopes.items():
        followed = f"{round(slope.value, 2) + 0:.2f} levels a level, the median annotator {middle:.2f}"
        log_p = _log_p_above(FOLLOWS * middle - slope.value, slope.error, pages)
        yield Finding(name, f"random: {AXIS_NAMES[axis]}: hardly follows the others ({followed})", log_p)
        words = f"follows the others less and less ({slope.change:+.2f} levels a level from first page to last)"
        log_p = _log_p_above(-FADES * middle - slope.change, slope.change_error, pages)
        yield Finding(name, f"fading: {AXIS_NAMES[axis]}: {words}", log_p)


def _position(measured: Mapping[str, Measures], axis: Axis) -> Iterable[Finding]:
    for name, measures in measured.items():
        if measures.position.pages < LEAST_PAGES:
            continue
        position = int(np.argmax(np.abs(measures.position.means)))
        mean = measures.position.means[position]
        words = f"rates place {position + 1} {_difference_text(mean)} than the page's mean, whatever stands there"
        # By chance the good candidates may stand at one position for everybody. A bias of one annotator also shows in
        # the differences from the others, so both tests must agree.
        log_p = max(measures.position.log_p, measures.position_apart.log_p) if abs(mean) > PLACE else 0.0
        yield Finding(name, f"position: {AXIS_NAMES[axis]}: {words}", log_p)


def _shares(evidence: Mapping[str, Evidence]) -> Iterable[Finding]:
    """Test the shares of right known answers, of equal repeated ratings and of flat pages against the median's."""
    for name, share, middle in _comparable_shares(evidence, "gold", LEAST_GOLD_PAGES, 1):
        words = f"gold: {share.value:.0%} of {share.answers} known answers right"
        yield _share_finding(name, share, middle, words, min(GOLD, middle - GOLD_BELOW) - share.value)
    for name, share, middle in _comparable_shares(evidence, "repeats", LEAST_GOLD_PAGES, LEAST_ANNOTATORS):
        words = f"repeats: {share.value:.0%} of {share.answers} repeated ratings within one level of the first"
        yield _share_finding(name, share, middle, words, middle - REPEATS_BELOW - share.value)
    for name, share, middle in _comparable_shares(evidence, "flat", LEAST_PAGES, LEAST_ANNOTATORS):
        words = f"flat: one and the same level for everything on {share.value:.0%} of pages"
        yield _share_finding(name, share, middle, words, share.value - middle - FLAT_ABOVE)


def _comparable_shares(
    evidence: Mapping[str, Evidence], kind: str, least_pages: int, least_annotators: int
) -> list[tuple[str, Share, float]]:
    """Return the shares of annotators with enough pages, each with the median share; none of too few annotators."""
    all_shares: dict[str, Share | None] = {name: getattr(case, kind) for name, case in evidence.items()}
    shares = {name: share for name, share in all_shares.items() if share and share.pages >= least_pages}
    if len(shares) < least_annotators:
        return []
    middle = float(np.median([share.value for share in shares.values()]))
    return [(name, share, middle) for name, share in shares.items()]


def _share_finding(name: str, share: Share, middle: float, words: str, excess: float) -> Finding:
    return Finding(name, f"{words} (the median annotator {middle:.0%})", _log_p_above(excess, share.error, share.pages))


def _speed(evidence: Mapping[str, Evidence]) -> Iterable[Finding]:
    from scipy.stats import binom

    for name, case in evidence.items():
        if case.speed is not None and case.speed.pages >= LEAST_PAGES:
            share = case.speed.too_fast / case.speed.pages
            words = f"speed: {share:.0%} of pages in under {FAST_RATING} s a rating"
            yield Finding(name, words, float(binom.logsf(case.speed.too_fast - 1, case.speed.pages, FAST_PAGES)))


def speed(pages: pd.DataFrame, campaign_median: float) -> Speed | None:
    """Return the answer speed of one annotator.

    Args:
        pages: One row per page that the annotator answered, with `seconds` (NaN = unknown) and `ratings` (number of
            ratings on the page).
        campaign_median: Median time of the campaign, in seconds a page.

    Returns:
        The speed; None where no time is known.
    """
    timed = pages[pages["seconds"].notna()]
    if timed.empty:
        return None
    fast = (timed["seconds"] < FAST_RATING * timed["ratings"]) & (timed["seconds"] < FAST_SHARE * campaign_median)
    return Speed(len(timed), int(fast.sum()), float(timed["seconds"].median()))


def _log_p_above(excess: float, error: float, pages: int) -> float:
    """Return the log p-value of "no excess" for the observed one, by a t-test with pages - 1 degrees of freedom."""
    from scipy.stats import t

    if error <= 1e-12:
        return -np.inf if excess > 1e-12 else 0.0
    return float(t.logsf(excess / error, max(1, pages - 1)))


def _difference_text(levels: float) -> str:
    return f"{abs(levels):.2f} levels {'higher' if levels > 0 else 'lower'}"
