"""`editloop benchmark-editor`: run an editor over a public benchmark of editors, and score its edits by any judge."""

import json
import re
import sys
from contextlib import nullcontext, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipelines.benchmark_cli import BENCHMARKS
from pipelines.input_options import input_file_or_folder, plain_folder
from pipelines.scoring_cli import Passes, fetch_model
from pipelines.service_option import DEFAULT_SERVICES, Services

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from editloop.evaluation.editor_suites.editing import EditorSampling
    from editloop.evaluation.editor_suites.figures import TableFigures
    from editloop.evaluation.editor_suites.result import EditorFacts, EditorResult
    from editloop.evaluation.editor_suites.tasks import EditorSuite
    from editloop.evaluation.suites.ratios import RatioEstimate


def benchmark_editor_command(
    suite: Annotated[str, typer.Option(help="gedit-bench, imgedit-bench or edit-compass.")],
    data: Annotated[
        Path,
        typer.Option(
            callback=input_file_or_folder, help="The suite's folder or file, as it is published (docs/promotion.md)."
        ),
    ],
    editor: Annotated[
        str,
        typer.Option(
            help="The editor: a pipeline's folder, a shipped name (tiny-editor), or models:/editor@champion; with "
            "--images, a name for whatever made them."
        ),
    ],
    judge: Annotated[str, typer.Option(help="The judge, as --model of `editloop benchmark`.")],
    images: Annotated[
        Path | None,
        typer.Option(
            callback=plain_folder, help="Folder of edits that are there already, named as the suite names them."
        ),
    ] = None,
    against: Annotated[
        Path | None,
        typer.Option(
            callback=plain_folder,
            help="Output folder of another editor: show the changes, if judge and wording are the same.",
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--out", "--output", help="Folder of the result; by default runs/benchmarks/SUITE-EDITOR-JUDGE."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON, and nothing else.")] = False,
    steps: Annotated[int, typer.Option(min=1, help="Denoising steps.")] = 8,
    guidance: Annotated[float | None, typer.Option(help="Guidance scale; by default the editor's own.")] = None,
    batch: Annotated[int, typer.Option(min=1, help="Edits of one size that are made together, at most.")] = 16,
    seed: Annotated[int, typer.Option(help="Seed of the noise and of the intervals' resampling.")] = 0,
    passes: Passes = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1; by default a GPU where there is one.")] = None,
    services: Services = DEFAULT_SERVICES,
) -> None:
    """Measure an editor on a public benchmark: figures by task as published, their intervals, and a page with edits.

    Stopped or killed, the same call goes on where it was: edits and answers are kept in the output folder.

    For example: editloop benchmark-editor --suite gedit-bench --data data/GEdit-Bench --editor models:/editor@champion
    --judge models:/edit-score@champion

    Edits that are there: editloop benchmark-editor --suite imgedit-bench --data data/ImgEdit --editor theirs
    --images theirs --judge openai:http://HOST/v1#MODEL
    """
    from editloop.evaluation.editor_suites.editing import EditorSampling, find_edit_images
    from editloop.evaluation.editor_suites.layouts import open_editor_suite
    from editloop.evaluation.editor_suites.page import format_change, format_estimate, write_result
    from editloop.evaluation.editor_suites.result import EditorFacts, compare_results, judge_edits, read_result
    from editloop.scoring.opening import open_judge

    with redirect_stdout(sys.stderr if as_json else sys.stdout):
        opened = open_editor_suite(suite, data)
        other = read_result(against) if against else None
        opened_judge = open_judge(fetch_model(judge, services), device=device, passes=passes)
        folder = output or BENCHMARKS / _folder_name(suite, editor, f"{opened_judge.name}-{opened_judge.version[:12]}")
        if images is None:
            sampling = EditorSampling(steps=steps, guidance=guidance, seed=seed)
            facts = _make_edits(opened, editor, sampling, folder / "edits", device, batch, services)
            images_folder = folder / "edits"
        else:
            facts, images_folder = EditorFacts(name=editor), find_edit_images(opened, images)
        result = judge_edits(opened, facts, images_folder, opened_judge, folder / "answers")
        changes = compare_results(result, other, seed=seed) if other else None
        described = other.facts.editor.describe() if other else ""
        report = write_result(result, opened, images_folder, folder, changes=changes, against=described, seed=seed)
    if as_json:
        print(json.dumps(report, indent=2, ensure_ascii=False, allow_nan=False))
        return
    _show(result, result.figures(seed), "", format_estimate)
    if changes:
        _show(result, changes, f", change against {described}", format_change)
    print(report["comparable"])
    for reason, count in result.missing_reasons().items():
        print(f"  {count} x missing: {reason}")
    print(folder / "page.html")


def _make_edits(
    suite: "EditorSuite",
    address: str,
    sampling: "EditorSampling",
    folder: Path,
    device: str | None,
    batch: int,
    services: Path,
) -> "EditorFacts":
    from editloop.evaluation.editor_suites.editing import editor_version, make_edits
    from editloop.evaluation.editor_suites.result import EditorFacts
    from editloop.models.editors.opening import find_editor, open_editor
    from pipelines.environment import services_of

    with services_of(services) if address.startswith("models:/") else nullcontext():
        pipeline = find_editor(address)
    facts = EditorFacts(name=address, version=editor_version(pipeline), sampling=sampling)
    make_edits(suite, open_editor(pipeline, device=device), facts.version, folder, sampling, batch=batch)
    return facts


def _folder_name(suite: str, editor: str, judge: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", f"{suite}-{editor}-{judge}")


def _show(
    result: "EditorResult",
    tables: "Mapping[str, TableFigures]",
    title: str,
    format_figure: "Callable[[RatioEstimate], str]",
) -> None:
    """Print tables of figures, the averages first."""
    from rich import box
    from rich.table import Table

    from editloop.evaluation.editor_suites.page import format_span
    from editloop.terminal import text_console

    names = result.facts.figures
    for name, table in tables.items():
        heading = f"{result.facts.editor.name} on {result.facts.suite}, {name}{title}"
        printed = Table(
            "task", "edits", *names, f"95 % interval of {names[-1]}", "missing", box=box.SIMPLE, title=heading
        )
        rows = {"average": (table.average, sum(table.edits.values()), sum(table.missing.values()))}
        rows |= {task: (row, table.edits[task], table.missing[task]) for task, row in table.by_task.items()}
        for task, (row, edits, missing) in rows.items():
            cells = [format_figure(row[figure]) for figure in names]
            printed.add_row(task, str(edits), *cells, format_span(row[names[-1]]), str(missing))
        text_console().print(printed)
