"""What is remarkable about an annotator, in words, with the odds of a false accusation held down.

Every test asks whether somebody is *beyond what honest annotators may be* (a constant below), not whether they differ
at all: people do. All tests of a campaign are one family (S. Holm, Scand. J. Statist. 6 (1979) 65-70). The clearest
case is taken out before the others are looked at again, so that nobody is blamed for being compared with a spammer.

Measured on generated campaigns of 60 to 300 tasks with 3 to 10 honest annotators (bias up to 0.35 levels either way,
noise of 0.3 to 0.7): nobody was named in 200 campaigns with 1,326 annotators.
"""

from collections.abc import Iterable, Mapping
from typing import NamedTuple, TypeGuard

import numpy as np
import pandas as pd

from annotation.quality.annotator_measures import EffectEstimate, Measures
from annotation.quality.known_answers import Share
from editloop.data.vocabulary import AXES, AXIS_NAMES, Axis

LEVEL = 0.05
"""Probability of any accusation in a campaign of honest annotators, at most."""
LEAST_PAGES, LEAST_GOLD_PAGES = 20, 5
"""Fewer say nothing."""
LEAST_ANNOTATORS = 3
"""Of two who differ, nobody can say who is off."""

SHIFT, DRIFT, EDITOR = 0.6, 0.25, 0.4
"""Levels against the median annotator."""
FOLLOWS, FADES = 0.4, 0.5
"""Of the median annotator's slope: who follows the others less, or loses more of it from first page to last."""
LEAST_SLOPE = 0.1
"""Where the median annotator follows the others less than this, ratings hang together too little to judge anybody."""
PLACE = 0.15
"""Levels from the page's mean: a smaller effect of the place is shown, not blamed."""
GOLD, GOLD_BELOW = 0.7, 0.15
"""Share of known answers right; or, where gold is hard for all, this far below the median annotator."""
REPEATS_BELOW = 0.1
"""Share of repeated ratings within one level, this far below the median annotator's."""
FLAT_ABOVE = 0.2
"""Share of pages on which every candidate gets one and the same level, this far above the median annotator's."""
FAST_RATING, FAST_SHARE, FAST_PAGES = 0.5, 1 / 3, 0.1
"""A page is too fast below so many seconds a rating and this share of the campaign's median; an honest annotator has at
most FAST_PAGES of those."""


class Speed(NamedTuple):
    """Of the pages whose time is known."""

    pages: int
    too_fast: int
    median: float
    """Seconds a page."""


class Evidence(NamedTuple):
    """All that is held against one annotator."""

    axes: Mapping[Axis, Measures]
    gold: Share | None
    repeats: Share | None
    """Repeated ratings within one level of the first."""
    flat: Share | None
    """Pages on which every rating is one level."""
    speed: Speed | None


class Finding(NamedTuple):
    annotator: str
    words: str
    """`KIND: what was found`."""
    log_p: float
    """Natural logarithm of the p-value, as those of clear cases are below any float."""


def findings(evidence: Mapping[str, Evidence]) -> list[Finding]:
    """Every test of every annotator; those who cannot be judged by one are not tested by it."""
    tested = [*_gold(evidence), *_repeats(evidence), *_flat(evidence), *_speed(evidence)]
    for axis in AXES:
        measured = {name: case.axes[axis] for name, case in evidence.items()}
        tested += _position(measured, axis)
        if len(evidence) >= LEAST_ANNOTATORS:
            tested += [*_follows(measured, axis), *_levels(measured, axis)]
    return tested


def _levels(measured: Mapping[str, Measures], axis: Axis) -> Iterable[Finding]:
    """Shift, drift, and leaning to an editor."""
    for name, measures in measured.items():
        if _has_enough_pages(measures.shift):
            difference, interval = _difference_text(measures.shift.value), _interval_text(measures.shift)
            words = f"rates {difference} than the median annotator ({interval})"
            yield Finding(name, f"shift: {AXIS_NAMES[axis]}: {words}", _log_p_beyond(measures.shift, SHIFT))
        if _has_enough_pages(measures.drift):
            difference, interval = _difference_text(measures.drift.value), _interval_text(measures.drift)
            words = f"rates {difference} at the end than at the beginning ({interval})"
            yield Finding(name, f"drift: {AXIS_NAMES[axis]}: {words}", _log_p_beyond(measures.drift, DRIFT))
        for editor, leaning in measures.editors.items():
            if _has_enough_pages(leaning):
                difference, interval = _difference_text(leaning.value), _interval_text(leaning)
                words = f"rates edits of {editor} {difference} than others do ({interval})"
                yield Finding(name, f"editor: {AXIS_NAMES[axis]}: {words}", _log_p_beyond(leaning, EDITOR))


def _follows(measured: Mapping[str, Measures], axis: Axis) -> Iterable[Finding]:
    slopes = {
        name: measures
        for name, measures in measured.items()
        if measures.follows is not None and measures.pages >= LEAST_PAGES
    }
    middle = (
        float(np.median([measures.follows.value for measures in slopes.values() if measures.follows]))
        if slopes
        else 0.0
    )
    if len(slopes) < LEAST_ANNOTATORS or middle < LEAST_SLOPE:
        return
    for name, measures in slopes.items():
        assert measures.follows is not None
        value, change = measures.follows.value, measures.follows.change
        words = (
            f"hardly follows the others ({round(value, 2) + 0:.2f} levels a level, the median annotator {middle:.2f})"
        )
        log_p = _log_p_above(FOLLOWS * middle - value, measures.follows.error, measures.pages)
        yield Finding(name, f"random: {AXIS_NAMES[axis]}: {words}", log_p)
        words = f"follows the others less and less ({change:+.2f} levels a level from first page to last)"
        log_p = _log_p_above(-FADES * middle - change, measures.follows.change_error, measures.pages)
        yield Finding(name, f"fading: {AXIS_NAMES[axis]}: {words}", log_p)


def _position(measured: Mapping[str, Measures], axis: Axis) -> Iterable[Finding]:
    for name, measures in measured.items():
        if measures.position.pages < LEAST_PAGES:
            continue
        position = int(np.argmax(np.abs(measures.position.means)))
        mean = measures.position.means[position]
        words = f"rates place {position + 1} {_difference_text(mean)} than the page's mean, whatever stands there"
        # Chance may put good candidates at one place, which all see; a fault of one person's sets them apart as well.
        log_p = max(measures.position.log_p, measures.position_apart.log_p) if abs(mean) > PLACE else 0.0
        yield Finding(name, f"position: {AXIS_NAMES[axis]}: {words}", log_p)


def _gold(evidence: Mapping[str, Evidence]) -> Iterable[Finding]:
    shares = {name: case.gold for name, case in evidence.items() if case.gold and case.gold.pages >= LEAST_GOLD_PAGES}
    if shares:
        middle = float(np.median([share.value for share in shares.values()]))
        least = min(GOLD, middle - GOLD_BELOW)
        for name, share in shares.items():
            words = (
                f"gold: {share.value:.0%} of {share.answers} known answers right (the median annotator {middle:.0%})"
            )
            yield Finding(name, words, _log_p_above(least - share.value, share.error, share.pages))


def _repeats(evidence: Mapping[str, Evidence]) -> Iterable[Finding]:
    shares = {
        name: case.repeats for name, case in evidence.items() if case.repeats and case.repeats.pages >= LEAST_GOLD_PAGES
    }
    if len(shares) >= LEAST_ANNOTATORS:
        middle = float(np.median([share.value for share in shares.values()]))
        for name, share in shares.items():
            words = f"repeats: {share.value:.0%} of {share.answers} repeated ratings within one level of the first"
            log_p = _log_p_above(middle - REPEATS_BELOW - share.value, share.error, share.pages)
            yield Finding(name, f"{words} (the median annotator {middle:.0%})", log_p)


def _flat(evidence: Mapping[str, Evidence]) -> Iterable[Finding]:
    shares = {name: case.flat for name, case in evidence.items() if case.flat and case.flat.pages >= LEAST_PAGES}
    if len(shares) >= LEAST_ANNOTATORS:
        middle = float(np.median([share.value for share in shares.values()]))
        for name, share in shares.items():
            words = f"flat: one and the same level for everything on {share.value:.0%} of pages"
            log_p = _log_p_above(share.value - middle - FLAT_ABOVE, share.error, share.pages)
            yield Finding(name, f"{words} (the median annotator {middle:.0%})", log_p)


def _speed(evidence: Mapping[str, Evidence]) -> Iterable[Finding]:
    from scipy.stats import binom

    for name, case in evidence.items():
        if case.speed is not None and case.speed.pages >= LEAST_PAGES:
            share = case.speed.too_fast / case.speed.pages
            words = f"speed: {share:.0%} of pages in under {FAST_RATING} s a rating"
            yield Finding(name, words, float(binom.logsf(case.speed.too_fast - 1, case.speed.pages, FAST_PAGES)))


def speed(pages: pd.DataFrame, campaign_median: float) -> Speed | None:
    """Of one annotator's pages with `seconds` and `ratings` (how many ratings a page takes); None without times."""
    timed = pages[pages["seconds"].notna()]
    if timed.empty:
        return None
    fast = (timed["seconds"] < FAST_RATING * timed["ratings"]) & (timed["seconds"] < FAST_SHARE * campaign_median)
    return Speed(len(timed), int(fast.sum()), float(timed["seconds"].median()))


def _has_enough_pages(estimate: EffectEstimate | None) -> TypeGuard[EffectEstimate]:
    return estimate is not None and estimate.pages >= LEAST_PAGES


def _log_p_beyond(estimate: EffectEstimate, allowed: float) -> float:
    """Log p of |effect| <= allowed, against larger on either side."""
    return _log_p_above(abs(estimate.value) - allowed, estimate.error, estimate.pages)


def _log_p_above(excess: float, error: float, pages: int) -> float:
    """Log p of "no excess" when this one was seen; t with pages - 1 degrees of freedom."""
    from scipy.stats import t

    if error <= 1e-12:
        return -np.inf if excess > 1e-12 else 0.0
    return float(t.logsf(excess / error, max(1, pages - 1)))


def _difference_text(levels: float) -> str:
    return f"{abs(levels):.2f} levels {'higher' if levels > 0 else 'lower'}"


def _interval_text(estimate: EffectEstimate) -> str:
    half = 1.96 * estimate.error
    return f"95 % interval {estimate.value - half:+.2f} to {estimate.value + half:+.2f}"
