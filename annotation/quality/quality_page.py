"""HTML report of a campaign's quality."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from markupsafe import Markup

from annotation.quality.annotator_flags import FAST_RATING, LEVEL, SHIFT
from annotation.quality.page_cards import NOTHING_TO_REVIEW, ReviewPages
from editloop.data.vocabulary import AXES, AXIS_NAMES, Axis
from editloop.pages.plots import (
    BLUE,
    RED,
    SOFT,
    VIOLET,
    IntervalRow,
    Line,
    ReferenceLine,
    bars,
    finite_or_none,
    intervals,
    trend,
)
from editloop.pages.templates import render

COLOURS = {"if": BLUE, "vq": VIOLET}
USABLE, GOOD = 0.667, 0.8
"""Lowest alpha for tentative and for firm conclusions, by Krippendorff."""


def quality_page(quality: Mapping[str, Any], title: str, review: ReviewPages = NOTHING_TO_REVIEW) -> str:
    """Render the quality of a campaign as one self-contained HTML page.

    Args:
        quality: The statistics that `annotation.quality.quality.quality` returns.
        title: Name of the campaign.
        review: The pages that the lead looks at: in conflict, for norming, and the hardest.

    Returns:
        The HTML text.
    """
    filters = {
        "figure": _figure,
        "percent": _percent,
        "count": lambda value: f"{value:,}".replace(",", "\u202f"),
        "levels": lambda value: "–" if finite_or_none(value) is None else _signed(value),
        "interval": lambda ends: f"95 % interval {_figure(ends[0])} to {_figure(ends[1])}" if ends else "no interval",
        "span": lambda ends: f"{_signed(ends[0])} to {_signed(ends[1])}",
        "shares": lambda ends: f"{100 * ends[0]:.0f} to {100 * ends[1]:.0f}",
        "chance": _chance,
    }
    annotators = quality["annotators"]
    remarkable = [name for name, figures in sorted(annotators.items()) if figures["flags"]]
    editors = {
        editor for figures in annotators.values() for by_editor in figures["editors"].values() for editor in by_editor
    }
    return render(
        Path(__file__).with_name("quality_page.html.j2"),
        filters,
        **quality,
        title=title,
        review=review,
        names=[(axis, AXIS_NAMES[axis]) for axis in AXES],
        remarkable=remarkable,
        editors=sorted(editors),
        level=LEVEL,
        fast=FAST_RATING,
        plots={
            "agreement": _agreement(quality["axes"]),
            "over_time": _over_time(quality["axes"]),
            "by_type": _by_type(quality["axes"]),
            "shift": {axis: _shift(annotators, axis) for axis in AXES},
            "steady": {axis: _steady(annotators, axis) for axis in AXES},
            "position": _position(quality["position"]),
        },
    )


def _agreement(axes: Mapping[str, Any]) -> Markup | None:
    rows = [_alpha(AXIS_NAMES[axis], axes[axis], COLOURS[axis]) for axis in AXES]
    return intervals(
        "agreement", rows, (_lowest(rows), 1.0), [ReferenceLine(USABLE, "usable"), ReferenceLine(GOOD, "good")]
    )


def _by_type(axes: Mapping[str, Any]) -> dict[Axis, Markup | None] | None:
    plots: dict[Axis, Markup | None] = {}
    for axis in AXES:
        types = axes[axis]["by_type"]
        if len(types) < 2:
            return None
        rows = [_alpha(name, figures, COLOURS[axis]) for name, figures in sorted(types.items())]
        plots[axis] = intervals(f"type-{axis}", rows, (_lowest(rows), 1.0), [ReferenceLine(USABLE, "usable")])
    return plots


def _alpha(label: str, figures: Mapping[str, Any], colour: str) -> IntervalRow:
    ends = figures["ci95"]
    text = f"{_figure(figures['alpha'])}" + (f" ({_figure(ends[0])} to {_figure(ends[1])})" if ends else "")
    return IntervalRow(label, figures["alpha"], tuple(ends) if ends else None, colour, text)


def _lowest(rows: list[IntervalRow]) -> float:
    return min([0.0, *(row.interval[0] for row in rows if row.interval)])


def _over_time(axes: Mapping[str, Any]) -> Markup | None:
    parts = axes[AXES[0]]["over_time"]
    lines = [
        Line(
            AXIS_NAMES[axis].split()[0],
            [part["alpha"] for part in axes[axis]["over_time"]],
            COLOURS[axis],
            [tuple(part["ci95"]) if part["ci95"] else None for part in axes[axis]["over_time"]],
        )
        for axis in AXES
    ]
    return trend("over-time", [_day(part["begin"]) for part in parts], lines)


def _shift(annotators: Mapping[str, Any], axis: str) -> Markup | None:
    rows = []
    for name, figures in sorted(annotators.items()):
        if shift := figures["shift"][axis]:
            colour = RED if figures["flags"] else COLOURS[axis]
            low, high = shift["ci95"]
            rows.append(IntervalRow(name, shift["value"], (low, high), colour, _signed(shift["value"])))
    reach = max([1.0, *(1.1 * abs(end) for row in rows for end in row.interval or ())])
    marks = [ReferenceLine(0, "median"), *(ReferenceLine(side * SHIFT, _signed(side * SHIFT)) for side in (-1, 1))]
    return intervals(f"shift-{axis}", rows, (-reach, reach), marks, _signed)


def _steady(annotators: Mapping[str, Any], axis: str) -> Markup | None:
    begins = sorted({part["begin"][:10] for figures in annotators.values() for part in figures["parts"]})
    several = max((len(figures["parts"]) for figures in annotators.values()), default=0)
    lines = [
        Line(name, [part["shift"][axis] for part in figures["parts"]], RED if figures["flags"] else SOFT)
        for name, figures in sorted(annotators.items(), key=lambda item: bool(item[1]["flags"]))
        if len(figures["parts"]) == several
    ]
    steps = [_day(begin) for begin in begins] if len(begins) == several else [str(k + 1) for k in range(several)]
    return trend(f"steady-{axis}", steps, lines, zero=True)


def _position(position: Mapping[str, Any]) -> Markup | None:
    places = max(len(position[axis]["means"]) for axis in AXES)
    groups = [Line(AXIS_NAMES[axis], position[axis]["means"], COLOURS[axis]) for axis in AXES]
    return bars("position", [f"place {k + 1}" for k in range(places)], groups, 0.3)


def _figure(value: Any, digits: int = 2) -> str:
    if finite_or_none(value) is None:
        return "not known"
    return f"{round(value, digits) + 0.0:.{digits}f}".replace("-", "−")


def _percent(value: Any, digits: int = 1) -> str:
    return "not known" if finite_or_none(value) is None else f"{100 * value:.{digits}f} %"


def _signed(value: float) -> str:
    return "0" if round(value, 2) == 0 else f"{value:+.2f}".replace("-", "−")


def _chance(p: float) -> str:
    return "below 0.001" if p < 0.001 else f"{p:.3f}" if math.isfinite(p) else "–"


def _day(moment: str) -> str:
    """Return the day of an ISO time, written as 05 Jan."""
    from datetime import datetime

    return f"{datetime.fromisoformat(moment):%d %b}"
