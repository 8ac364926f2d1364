"""Writes the result of an editor on a benchmark: report.json, edits.jsonl, contact sheets by task, and page.html."""

import base64
import io
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from markupsafe import Markup
from pydantic import JsonValue

from editloop.content import write_file, write_json
from editloop.data.picture_file import load_image
from editloop.evaluation.editor_suites.editing import edit_file
from editloop.evaluation.editor_suites.figures import TableFigures
from editloop.evaluation.editor_suites.layouts import LANGUAGES
from editloop.evaluation.editor_suites.result import REPORT, EditorResult, tables_json, write_edit_rows
from editloop.evaluation.editor_suites.tasks import EditorSuite
from editloop.evaluation.suites.ratios import RatioEstimate
from editloop.evaluation.suites.suite import decode_picture
from editloop.models.judge_protocol import Picture
from editloop.pages.contact_sheet import contact_sheet
from editloop.pages.plots import BLUE, GREEN, IntervalRow, intervals
from editloop.pages.templates import render

SHOWN = 6
"""Tasks of a type on its contact sheet: the first ones, not the best, and of two languages the English ones."""
SHEETS = "sheets"
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
        against: Name of that editor.
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
    sheets = {}
    for task in dict.fromkeys(task.task for task in suite.tasks):
        sheets[task] = _sheet(result, suite, task, images)
        write_file(folder / SHEETS / f"{task.replace('/', '-')}.jpg", sheets[task])
    page = render(
        Path(__file__).with_name("editor_suite_page.html.j2"),
        {"estimate": format_estimate, "span": format_span},
        result=result,
        note=comparison_note(result),
        figures=figures,
        changes=changes or {},
        against=against,
        plots={name: _plot(f"figures-{number}", table) or "" for number, (name, table) in enumerate(figures.items())},
        sheets={task: f"data:image/jpeg;base64,{base64.b64encode(data).decode()}" for task, data in sheets.items()},
    )
    write_file(folder / "page.html", page)
    write_json(folder / REPORT, report)
    return report


def format_estimate(estimate: RatioEstimate) -> str:
    """Return a figure with two decimals.

    Args:
        estimate: The figure.
    """
    return "–" if estimate.value is None else f"{estimate.value:.2f}"


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


def _sheet(result: EditorResult, suite: EditorSuite, name: str, images: Path) -> bytes:
    """JPEG of the contact sheet of a type of task."""
    numbers = {edit.key: edit for edit in result.edits}
    edited = [task for task in suite.tasks if task.task == name and edit_file(images, task).is_file()]
    english = [task for task in edited if task.language == LANGUAGES[0]]  # the sheet's font has no Chinese
    tasks = (english or edited)[:SHOWN]
    pictures: dict[str, list[Picture]] = {
        "source": [decode_picture(task.source) for task in tasks],
        "edit": [_loaded(edit_file(images, task)) for task in tasks],
    }
    notes = [
        numbers[task.key].missing
        or ", ".join(f"{figure} {value:.1f}" for figure, value in numbers[task.key].numbers.items())
        for task in tasks
    ]
    buffer = io.BytesIO()
    contact_sheet([task.instruction for task in tasks], pictures, notes).save(buffer, "JPEG", quality=85)
    return buffer.getvalue()


def _loaded(path: Path) -> Picture:
    return np.asarray(load_image(path))
