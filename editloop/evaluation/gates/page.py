"""A gate's decision as an HTML page: verdict and reasons, suites with their slices, other judges, and figures."""

import base64
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from markupsafe import Markup

from editloop.pages.plots import BLUE, GREEN, RED, SOFT, IntervalRow, ReferenceLine, intervals
from editloop.pages.templates import render


class RequirementText(NamedTuple):
    """What the page says of a requirement."""

    heading: str
    note: str
    figure: str
    """Heading of the models' figures."""
    interval: str
    """What the intervals are of; empty for the figures themselves."""
    units: str


REQUIREMENTS = {
    "within_editor": RequirementText(
        "Order within one editor's samples",
        "Rank correlation with the experts' ratings among one editor's edits of a task, the mean over tasks and "
        "editors: what online RL feels.",
        "correlation",
        "",
        "groups",
    ),
    "baseline": RequirementText(
        "Gain over the untrained backbone",
        "Share of held-out units that is right, and its gain over the untrained backbone on the same units, in points "
        "of a hundred: what the training is worth.",
        "right",
        "of the gain",
        "units",
    ),
}
"""Texts by the requirement's name in gate.json."""
MAX_ROWS = 30
"""Largest number of rows in a forest plot."""


def gate_page(
    title: str,
    gate: Mapping[str, Any],
    tables: Mapping[str, Mapping[str, Any]] | None = None,
    pictures: Mapping[str, Path] | None = None,
) -> str:
    """Render a gate's decision as one self-contained HTML page.

    Args:
        title: Title of the page.
        gate: The decision, as `decide` returns it (a gate.json).
        tables: Figures to show, by heading; None for none.
        pictures: PNG files to show, by caption; None for none.

    Returns:
        The HTML.
    """
    filters: dict[str, Callable[..., str]] = {"share": _share, "signed": _signed, "span": _span, "figure": _figure}
    return render(
        Path(__file__).with_name("gate_page.html.j2"),
        filters,
        title=title,
        gate=gate,
        level=f"{100 * (1 - gate.get('alpha', 0.05)):g} %",
        plots=[_forest(number, suite) or "" for number, suite in enumerate(gate.get("suites", []))],
        REQUIREMENTS=REQUIREMENTS,
        tables=tables or {},
        pictures={
            caption: f"data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}"
            for caption, path in (pictures or {}).items()
        },
    )


def _forest(number: int, suite: Mapping[str, Any]) -> Markup | None:
    """Return a forest plot of the suite and its slices: changes with their intervals, in points."""
    rows = [{"slice": "all", "regressed": None, **suite}, *suite["slices"]][:MAX_ROWS]
    finite_ends = [end for row in rows for end in (row["interval"] or []) if end is not None]
    reach = 100 * max([abs(end) for end in finite_ends] + [suite["margin"], 0.02]) * 1.05
    estimates = [
        IntervalRow(
            row["slice"],
            None if row["change"] is None else 100 * row["change"],
            None if None in row["interval"] else (100 * row["interval"][0], 100 * row["interval"][1]),
            _colour(index, row, suite),
            _signed(row["change"]),
        )
        for index, row in enumerate(rows)
    ]
    marks = (
        [ReferenceLine(0.0, "no change")] if not suite["margin"] else [ReferenceLine(-100 * suite["margin"], "margin")]
    )
    return intervals(f"forest-{number}", estimates, (-reach, reach), marks, "{:+.0f}".format)


def _colour(index: int, row: Mapping[str, Any], suite: Mapping[str, Any]) -> str:
    if row["regressed"]:
        return RED
    if index == 0:
        return {"promote": GREEN, "reject": RED}.get(suite["verdict"], BLUE)
    return SOFT if row["regressed"] is None else BLUE


def _share(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f} %"


def _signed(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:+.1f}"


def _span(ends: list[float | None]) -> str:
    return "–" if None in ends else f"{_signed(ends[0])} to {_signed(ends[1])}"


def _figure(value: Any) -> str:
    if value is None:
        return "not measured"
    if isinstance(value, list | tuple):
        return " to ".join(_figure(part) for part in value)
    if isinstance(value, float):
        return f"{value:.3f}"
    return f"{value:,}" if isinstance(value, int) else str(value)
