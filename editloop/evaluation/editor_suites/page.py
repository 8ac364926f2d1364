"""Writes the result of an editor on a benchmark: report.json, edits.jsonl, and page.html with edits of each type."""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from markupsafe import Markup
from pydantic import JsonValue

from editloop.content import write_file, write_json
from editloop.data.picture_file import load_image, read_picture
from editloop.evaluation.editor_suites.editing import edit_file
from editloop.evaluation.editor_suites.figures import TableFigures
from editloop.evaluation.editor_suites.result import REPORT, EditorResult, tables_json, write_edit_rows
from editloop.evaluation.editor_suites.tasks import EditorSuite, EditorTask
from editloop.evaluation.suites.ratios import RatioEstimate
from editloop.pages.plots import BLUE, GREEN, IntervalRow, intervals
from editloop.pages.templates import render
from editloop.pages.thumbnails import Thumbnail, thumbnail

SHOWN = 6
"""Edits of a type and language on the page: the first ones, not the best."""
SIDE = 240
"""Longest side of a thumbnail, in pixels."""
PUBLISHED = {
    "gedit-bench": "its published figures come from GPT-4.1 with VIEScore's wording",
    "imgedit-bench": "its published figures come from GPT-4.1 with ImgEdit's questions",
    "edit-compass": "its published figures come from other questions, five for each edit",
}
"""What a benchmark's published figures were measured with."""


def comparison_note(result: EditorResult) -> str:
    """Return with which results a result may be compared.

    Args:
        result: The result.
    """
    return (
        f"Compare with results of the same judge and wording only ({result.facts.judge.describe()}); of "
        f"{result.facts.suite}, {PUBLISHED[result.facts.suite]}."
    )


def write_result(
    result: EditorResult,
    suite: EditorSuite,
    images: Path,
    folder: Path,
    *,
    changes: Mapping[str, TableFigures] | None = None,
    against: str = "",
    seed: int = 0,
) -> dict[str, JsonValue]:
    """Write a result, and return the content of report.json.

    Args:
        result: The result.
        suite: The benchmark.
        images: Folder of the edits.
        folder: Where to write; may hold edits and answers already.
        changes: Changes from another editor; None for none.
        against: That editor, in words.
        seed: Seed of the intervals' resampling.
    """
    figures = result.figures(seed)
    missing_reasons: dict[str, JsonValue] = dict(result.missing_reasons())
    report: dict[str, JsonValue] = {
        **result.facts.model_dump(mode="json"),
        "edits": len(result.edits),
        "missing_reasons": missing_reasons,
        "comparable": comparison_note(result),
        "tables": tables_json(figures),
    }
    if changes is not None:
        report["changes"] = {"against": against, "tables": tables_json(dict(changes))}
    write_edit_rows(result, folder)
    page = render(
        Path(__file__).with_name("editor_suite_page.html.j2"),
        {"estimate": format_estimate, "change": format_change, "span": format_span, "clear": is_clear},
        result=result,
        note=comparison_note(result),
        figures=figures,
        changes=changes or {},
        against=against,
        plots={name: _plot(f"figures-{number}", table) or "" for number, (name, table) in enumerate(figures.items())},
        examples=_examples(result, suite, images),
    )
    write_file(folder / "page.html", page)
    write_json(folder / REPORT, report)
    return report


def format_estimate(estimate: RatioEstimate) -> str:
    """Return a figure with two decimals.

    Args:
        estimate: The figure.
    """
    return "–" if estimate.value is None else f"{estimate.value:.2f}".replace("-0.00", "0.00")


def format_change(estimate: RatioEstimate) -> str:
    """Return a change with its sign and two decimals.

    Args:
        estimate: The change.
    """
    return format_estimate(estimate) if not round(estimate.value or 0, 2) else f"{estimate.value:+.2f}"


def is_clear(estimate: RatioEstimate) -> bool:
    """Whether a change's interval leaves out 0.

    Args:
        estimate: The change.
    """
    return estimate.ci95 is not None and not estimate.ci95[0] <= 0 <= estimate.ci95[1]


def format_span(estimate: RatioEstimate) -> str:
    """Return a figure's interval in words.

    Args:
        estimate: The figure.
    """
    return "" if estimate.ci95 is None else f"{estimate.ci95[0]:.2f} to {estimate.ci95[1]:.2f}"


def _plot(name: str, table: TableFigures) -> Markup | None:
    """Plot of the figure that editors are compared by: the average, then each type of task."""
    figure = list(table.average)[-1]
    rows = [_row("average", table.average[figure], GREEN)]
    rows += [_row(task, figures[figure], BLUE) for task, figures in table.by_task.items()]
    ends = [end for row in rows if row.value is not None for end in (row.value, *(row.interval or ()))]
    if not ends:
        return None
    margin = 0.05 * (max(ends) - min(ends)) or 0.5
    return intervals(name, rows, (min(ends) - margin, max(ends) + margin))


def _row(label: str, estimate: RatioEstimate, colour: str) -> IntervalRow:
    interval = None if estimate.ci95 is None else (estimate.ci95[0], estimate.ci95[1])
    return IntervalRow(label, estimate.value, interval, colour, format_estimate(estimate))


class _Example(NamedTuple):
    """An edit on the page."""

    task: EditorTask
    source: Thumbnail
    edit: Thumbnail
    note: str
    """Its figures, or why it has none."""


def _examples(result: EditorResult, suite: EditorSuite, images: Path) -> dict[str, list[_Example]]:
    """The first edits of each type of task and language, by type."""
    scored = {edit.key: edit for edit in result.edits}
    examples: dict[str, list[_Example]] = {}
    counts = Counter[tuple[str, str]]()
    for task in suite.tasks:
        path = edit_file(images, task)
        if counts[task.task, task.language] == SHOWN or not path.is_file():
            continue
        counts[task.task, task.language] += 1
        numbers = scored[task.key].numbers.items()
        note = scored[task.key].missing or ", ".join(f"{figure} {value:.1f}" for figure, value in numbers)
        source = thumbnail(read_picture(task.source.read(), task.source.name), SIDE)
        examples.setdefault(task.task, []).append(_Example(task, source, thumbnail(load_image(path), SIDE), note))
    return examples
