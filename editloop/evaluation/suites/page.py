"""Writes an evaluation to files: report.json (all figures), page.html (for people), units.jsonl (each unit)."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from markupsafe import Markup

from editloop.content import write_file, write_json
from editloop.evaluation.suites.evaluation import Evaluation
from editloop.pages.plots import BLUE, GREEN, VIOLET, IntervalRow, ReferenceLine, intervals
from editloop.pages.templates import render

FIGURE_TITLES = {
    "accuracy": "Accuracy, as published",
    "accuracy_as_published": "Accuracy, as published: the threshold only where people call a tie",
    "accuracy_by_overall": "Accuracy by the judge's own overall score",
    "accuracy_missing_wrong": "Accuracy, missing replies wrong",
    "accuracy_answered": "Accuracy without missing replies",
    "accuracy_held_out": "Accuracy with held-out thresholds",
    "accuracy_without_ties": "Right orders of the pairs that people order",
    "half_credit_accuracy": "Right orders, a tie of the judge counting half",
    "tie_rate": "Ties of the judge",
    "spearman": "Spearman's correlation",
}
BY_OVERALL = "Spearman's correlation by the judge's own overall score"
ONE_THRESHOLD = "Accuracy, one threshold for all pairs"
"""Title of `accuracy` where `accuracy_as_published` is another figure."""
MIN_UNITS_SHOWN = 2
"""A slice with fewer units has no row in the plot."""


def write_evaluation(evaluation: Evaluation, folder: Path) -> None:
    """Write report.json, page.html and units.jsonl.

    Args:
        evaluation: The evaluation.
        folder: Where to write; may hold the judge's answers already.
    """
    outcomes = evaluation.outcomes
    columns = (outcomes.keys, outcomes.clusters, outcomes.slices, outcomes.right.tolist(), outcomes.missing.tolist())
    names = ("key", "cluster", "slice", "right", "missing")
    lines = [
        json.dumps(dict(zip(names, row, strict=True)), ensure_ascii=False) + "\n" for row in zip(*columns, strict=True)
    ]
    write_file(folder / "units.jsonl", "".join(lines))
    write_file(folder / "page.html", suite_page(evaluation.report))
    write_json(folder / "report.json", evaluation.report)


def suite_page(report: dict[str, Any]) -> str:
    """Return a report as a self-contained HTML page.

    Args:
        report: An evaluation's report.
    """
    filters: dict[str, Callable[..., str]] = {"share": format_share, "span": format_interval}
    return render(
        Path(__file__).with_name("suite_page.html.j2"),
        filters,
        report=report,
        figures=key_figures(report),
        tables=report_tables(report),
        picture=_interval_plot(report) or "",
    )


def key_figures(report: dict[str, Any]) -> list[tuple[str, float | None, list[float] | None]]:
    """Return the title, value and 95 % interval of the main figures that a report has.

    Args:
        report: An evaluation's report.

    Returns:
        Title, value and interval of each figure; value and interval are None where not measured.
    """
    ci95_by_name = report.get("intervals", {})
    strict = report["counting"] == "strict"
    redundant: tuple[str, ...] = ("accuracy_without_ties",) if strict else ()
    redundant += ("accuracy_answered",) if "accuracy_missing_wrong" in ci95_by_name else ()
    titles = FIGURE_TITLES | ({"accuracy": ONE_THRESHOLD} if "accuracy_as_published" in ci95_by_name else {})
    figures = [
        (titles[name], report[name], ci95_by_name[name])
        for name in titles
        if name in ci95_by_name and name not in redundant
    ]
    if threshold := report.get("threshold"):
        figures.insert(
            1, (FIGURE_TITLES["accuracy_held_out"], threshold["accuracy_held_out"], threshold["ci95_held_out"])
        )
    if correlation := report.get("correlation"):
        figures.append((FIGURE_TITLES["spearman"], correlation["spearman"], correlation["ci95"]))
        if "by_overall" in correlation:
            figures.append((BY_OVERALL, correlation["by_overall"], None))
        ceiling = correlation["human_ceiling"]
        if ceiling:
            figures.append((f"The same of {ceiling['raters']} people", ceiling["value"], ceiling["ci95"]))
    elif ceiling := report.get("human_ceiling"):
        figures.append((f"What {ceiling['raters']} people reach", ceiling["value"], ceiling["ci95"]))
    return figures


def report_tables(report: dict[str, Any]) -> dict[str, dict[str, dict[str, Any]]]:
    """Return the report's tables by heading.

    Args:
        report: An evaluation's report.

    Returns:
        By heading and row name: value, ci95 and n (units). Empty tables are left out.
    """
    by_heading = {
        "By task": report.get("by_task", {}),
        "By group of tasks": report.get("by_group", {}),
        "By number of sources": report.get("by_sources", {}),
        "By axis": _axis_rows(report),
        "By editor": (report.get("correlation") or {}).get("by_model", {}),
    }
    return {
        heading: {
            name: {"value": row.get("accuracy", row.get("spearman")), "ci95": row["ci95"], "n": row["n"]}
            for name, row in rows.items()
        }
        for heading, rows in by_heading.items()
        if rows
    }


def _axis_rows(report: dict[str, Any]) -> dict[str, Any]:
    """The rows by axis; none where there is one axis, or the tasks are the axes under the publication's names."""
    by_axis, by_task = (report.get(name, {}) for name in ("by_axis", "by_task"))
    figures = [sorted((row["n"], row["accuracy"] or 0.0) for row in rows.values()) for rows in (by_axis, by_task)]
    return {} if len(by_axis) < 2 or figures[0] == figures[1] else by_axis


def _interval_plot(report: dict[str, Any]) -> Markup | None:
    """Plot of the overall figure and the tables' figures, with intervals, times 100."""
    correlation = report["accuracy"] is None
    overall = report["spearman"] if correlation else report["accuracy"]
    rows = [_estimate("all", overall, report["ci95"], GREEN)]
    colours = {"By axis": VIOLET}
    for heading, table in report_tables(report).items():
        if (heading == "By editor") == correlation and heading != "By group of tasks":
            plotted = {name: row for name, row in table.items() if row["n"] >= MIN_UNITS_SHOWN}
            rows += [
                _estimate(name, row["value"], row["ci95"], colours.get(heading, BLUE)) for name, row in plotted.items()
            ]
    ceiling = report.get("human_ceiling")
    marks = [ReferenceLine(100 * ceiling["value"], "people")] if ceiling and ceiling["value"] is not None else []
    low = -100.0 if correlation and any((row.interval or (0, 0))[0] < 0 for row in rows) else 0.0
    return intervals("suite", rows, (low, 100.0), marks, "{:.0f}".format)


def _estimate(label: str, value: float | None, ends: list[float] | None, colour: str) -> IntervalRow:
    return IntervalRow(
        label,
        None if value is None else 100 * value,
        None if ends is None else (100 * ends[0], 100 * ends[1]),
        colour,
        format_share(value),
    )


def format_share(value: float | None) -> str:
    """Return a share or correlation times 100, with one decimal.

    Args:
        value: The value; None: not measured.
    """
    return "not measured" if value is None else f"{100 * value:.1f}"


def format_interval(ends: list[float] | None) -> str:
    """Return an interval in words, times 100.

    Args:
        ends: Lower and upper end; None: not measured.
    """
    return "–" if ends is None else f"{format_share(ends[0])} to {format_share(ends[1])}"
