"""`editloop teacher import` and `editloop teacher publish`: distilled edits for EditScore, and a version of them."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from editloop.errors import EditLoopError
from pipelines.imported_rows import print_skipped
from pipelines.input_options import input_file, input_folder

teacher_app = typer.Typer(no_args_is_help=True, help="Bring in edits that a strong model has judged.")


@teacher_app.command("import")
def import_teacher_command(
    file: Annotated[
        Path,
        typer.Argument(
            callback=input_file,
            help="JSON lines of key, instruction, source, edit, editor, sc, pq; or EditScore's reward.json.",
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder of taught edits to write; `stage reward` trains EditScore on it.")],
    form: Annotated[
        Literal["rows", "editscore"],
        typer.Option("--format", help="rows: a teacher's rows; editscore: the conversations of EditScore-Reward-Data."),
    ] = "rows",
    top: Annotated[int, typer.Option(min=1, help="Highest of the teacher's points; 0 is the lowest.")] = 25,
    least_best: Annotated[
        float, typer.Option(min=0, max=10, help="Drop a task whose best edit's O (0..10) is below: nobody achieved it.")
    ] = 0.0,
    least_spread: Annotated[
        float, typer.Option(min=0, help="Drop a task whose edits' O has a smaller standard deviation: all are alike.")
    ] = 0.0,
    instruction_after: Annotated[
        str, typer.Option(help="Of conversations: the text before the instruction; empty for the published one.")
    ] = "",
    instruction_before: Annotated[
        str, typer.Option(help="Of conversations: the text after the instruction; empty where it ends the prompt.")
    ] = "",
    strict: Annotated[bool, typer.Option(help="Of conversations: refuse rows with faults.")] = False,
) -> None:
    """Keep a teacher's judged edits with their pictures, and where they come from, as a folder to train EditScore on.

    Of a teacher's rows, a faulty one is named by its line, and then nothing is written; tasks that teach nothing may be
    dropped, and are counted by reason. Of published conversations, rows with faults are left out, counted, and listed
    in skipped.txt, and an import that was stopped goes on at the row it had reached.

    For example: editloop teacher import published/reward.json --format editscore --out data/taught
    """
    if form == "rows":
        from editloop.training.edit_score.distillation import import_distillation_rows

        counts = import_distillation_rows(file, out, top=top, least_best=least_best, least_spread=least_spread)
        for name, count in counts.items():
            print(f"{name:<28} {count:>8,}")
    else:
        from editloop.training.edit_score.published_conversations import Wording, import_conversations

        if least_best or least_spread:
            raise EditLoopError(
                "--least-best and --least-spread: published conversations may answer one question of an edit alone, so "
                "they have no O to filter by, and were filtered before; leave both out."
            )
        wording = Wording(instruction_after or Wording().before, instruction_before)
        report = import_conversations(file, out, top=top, wording=wording, strict=strict)
        print(f"{report.sc:,} answers to SC, {report.pq:,} to PQ, {report.pictures:,} pictures")
        print_skipped(report.skipped, out)


@teacher_app.command("publish")
def publish_teacher_command(
    folder: Annotated[
        Path, typer.Argument(callback=input_folder("dataset"), help="Folder of taught edits, as the import wrote it.")
    ],
    version: Annotated[Path, typer.Option(help="JSON file to write: the version, for stage promote.")],
) -> None:
    """Add a folder of taught edits, with the files that it came from, to the dataset repository as a version.

    A judge that learnt them can then be registered, and `editloop verify` leads from it to these files.

    For example: editloop teacher publish data/taught --version data/taught.json
    """
    from editloop.content import write_json
    from editloop.training.edit_score.distillation import publish_distillation

    committed = publish_distillation(folder)
    write_json(version, committed)
    print(f"version {committed['tag']} in {committed['repo']}")
