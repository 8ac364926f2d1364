"""`editloop benchmark`: measure any judge on any suite, by asking it now or from its saved answers."""

import json
import re
import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from editloop.errors import EditLoopError
from pipelines.input_options import input_file, input_file_or_folder, input_folder
from pipelines.scoring_cli import Passes, Processes, fetch_model, opened_judge
from pipelines.service_option import DEFAULT_SERVICES, Services

if TYPE_CHECKING:
    from editloop.evaluation.suites.suite import Suite

BENCHMARKS = Path("runs/benchmarks")


def benchmark_command(
    suite: Annotated[
        str,
        typer.Option(
            help="editscore-bench, editreward-bench, genai-bench, aurora-bench, imagenhub, editreward-compass, "
            "mmrb2-edit, heldout (what your experts order in a dataset's test split) or scenes (what the oracle orders "
            "there)."
        ),
    ],
    data: Annotated[
        Path | None,
        typer.Option(
            callback=input_file_or_folder,
            help="The suite's folder or file in its public format; of heldout and scenes a dataset folder.",
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            help="The judge: a model's folder, a shipped name (tiny-reward), models:/NAME@ALIAS, http://HOST:PORT of "
            "`editloop serve`, or openai:http://HOST/v1#MODEL."
        ),
    ] = None,
    scores: Annotated[
        Path | None,
        typer.Option(
            callback=input_file, help="A judge's saved scores (.csv, .parquet, .jsonl): key, candidate, score."
        ),
    ] = None,
    verdicts: Annotated[
        Path | None,
        typer.Option(
            callback=input_file,
            help="A judge's saved verdicts (JSON lines): key, verdict (left, right, both_bad, tie or null); of "
            "mmrb2-edit also the predictions (.json) of its own code.",
        ),
    ] = None,
    labels: Annotated[
        Path | None,
        typer.Option(
            callback=input_file,
            help="Human votes of a suite of pairs that comes without images (JSON lines): key, label.",
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--out", "--output", help="Folder of report, page and raw answers; by default runs/benchmarks/SUITE-JUDGE."
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON, and nothing else.")] = False,
    training: Annotated[
        Path | None,
        typer.Option(
            callback=input_folder("dataset"),
            help="Dataset folder that the judge learnt from: refuse where it holds the suite.",
        ),
    ] = None,
    passes: Passes = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1; by default a GPU where there is one.")] = None,
    processes: Processes = 1,
    seed: Annotated[int, typer.Option(help="Seed of the resampling and of held-out thresholds' folds.")] = 0,
    services: Services = DEFAULT_SERVICES,
) -> None:
    """Measure a judge on a suite: accuracy as published, and beside it what makes it honest, each with its interval.

    Stopped or killed, the same call goes on where it was: a judge's raw answers are kept in the output folder.

    For example: editloop benchmark --suite genai-bench --data suites/genai --model models:/edit-reward@champion

    Without the suite's images: editloop benchmark --suite genai-bench --labels votes.jsonl --verdicts judge.jsonl

    Keys are the suite's own: GenAI-Bench's rows are 0, 1, 2, ...; EditScore's bench joins its row's keys and dimension
    by `|`; of groups a score's key is the group, its candidates A to D, and a verdict's key is the row's id; AURORA's
    are pair-N and point-N; ImagenHub's the file names; EditReward-Compass's the rows' places, with the winner left;
    MMRB2's the pairs' ids, with response A left, and KEY|reverse for a verdict on the edits the other way round. A
    pair's candidates are left and right, or 0 and 1.
    """
    from editloop.evaluation.suites.answers import judge_suite
    from editloop.evaluation.suites.evaluation import evaluate
    from editloop.evaluation.suites.opening import open_suite
    from editloop.evaluation.suites.page import write_evaluation
    from editloop.evaluation.suites.saved_answers import read_scores, read_verdicts

    if sum(option is not None for option in (model, scores, verdicts)) != 1:
        raise EditLoopError("whose answers? Give one of --model, --scores and --verdicts.")
    with redirect_stdout(sys.stderr if as_json else sys.stdout):
        opened = open_suite(suite, data, labels)
        if training is not None:
            from editloop.evaluation.leaks.leaks import check_leaks

            check_leaks(training, opened)
        if model is not None:
            with opened_judge(fetch_model(model, services), device, passes, processes) as judge:
                folder = output or _folder(opened, f"{judge.name}-{judge.version[:12]}")
                answers = judge_suite(opened, judge, folder / "answers")
        else:
            if scores is not None:
                answers = read_scores(scores, opened)
            else:
                assert verdicts is not None
                answers = read_verdicts(verdicts, opened)
            folder = output or _folder(opened, answers.judge["name"])
        evaluation = evaluate(opened, answers, seed=seed)
        write_evaluation(evaluation, folder)
    if as_json:
        print(json.dumps(evaluation.report, indent=2, ensure_ascii=False, allow_nan=False))
    else:
        _show(evaluation.report)
        print(folder)


def _folder(suite: "Suite", judge: str) -> Path:
    return BENCHMARKS / f"{suite.name}-{re.sub(r'[^A-Za-z0-9._-]+', '-', judge)}"


def _show(report: dict[str, Any]) -> None:
    """Print the report as tables, with figures times 100."""
    from rich import box
    from rich.table import Table

    from editloop.evaluation.suites.page import format_interval, format_share, key_figures, report_tables
    from editloop.models.judge_protocol import JudgeWording, wording_note
    from editloop.terminal import text_console

    console = text_console()
    table = Table(
        "figure", "value", "95 % interval", box=box.SIMPLE, title=f"{report['judge']['name']} on {report['suite']}"
    )
    for name, value, ends in key_figures(report):
        table.add_row(name, format_share(value), format_interval(ends))
    console.print(table)
    for heading, rows in report_tables(report).items():
        table = Table(heading, "value", "95 % interval", "units", box=box.SIMPLE)
        for name, row in rows.items():
            table.add_row(name, format_share(row["value"]), format_interval(row["ci95"]), str(row["n"]))
        console.print(table)
    if threshold := report.get("threshold"):
        chosen = "chosen on the suite itself, as published" if threshold["fitted"] else "the publication's threshold"
        print(f"scores within {threshold['published']:.4g} are a tie: {chosen}")
    print(", ".join(f"{count} {name.replace('_', ' ')}" for name, count in report["counts"].items() if count))
    if wording := report["judge"].get("wording"):
        print(f"{report['judge']['name']} {report['judge']['version'][:12]}{wording_note(JudgeWording(**wording))}")
    for reason, count in report["missing_reasons"].items():
        print(f"  {count} x missing: {reason}")
    for reason, count in report["left_out"].items():
        print(f"  {count} x left out: {reason}")
