"""`editloop teacher import`: import distilled edits for EditScore."""

from pathlib import Path
from typing import Annotated

import typer

from pipelines.input_options import input_file

teacher_app = typer.Typer(no_args_is_help=True, help="Bring in edits that a strong model has judged.")


@teacher_app.command("import")
def import_teacher_command(
    file: Annotated[
        Path, typer.Argument(callback=input_file, help="JSON lines of key, instruction, source, edit, editor, sc, pq.")
    ],
    out: Annotated[Path, typer.Option(help="Folder of taught edits to write; `stage reward` trains EditScore on it.")],
    top: Annotated[int, typer.Option(min=1, help="Highest of the teacher's points; 0 is the lowest.")] = 25,
    least_best: Annotated[
        float, typer.Option(min=0, max=10, help="Drop a task whose best edit's O (0..10) is below: nobody achieved it.")
    ] = 0.0,
    least_spread: Annotated[
        float, typer.Option(min=0, help="Drop a task whose edits' O has a smaller standard deviation: all are alike.")
    ] = 0.0,
) -> None:
    """Check a teacher's rows, drop tasks that teach nothing, and keep the rest with its pictures.

    A faulty row is named by its line, and then nothing is written. What was dropped is counted by reason.

    For example: editloop teacher import judged/rows.jsonl --out data/taught --least-best 5 --least-spread 0.5
    """
    from editloop.training.edit_score.distillation import import_distillation_rows

    counts = import_distillation_rows(file, out, top=top, least_best=least_best, least_spread=least_spread)
    for name, count in counts.items():
        print(f"{name:<28} {count:>8,}")
