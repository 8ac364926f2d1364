"""`editloop edits import`: bring in the prompts of published online RL as an edits folder."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from pipelines.imported_rows import print_skipped
from pipelines.input_options import input_file_or_folder

edits_app = typer.Typer(no_args_is_help=True, help="Bring in edits that others have published.")


@edits_app.callback()
def _edits_commands() -> None:
    """Keep `import` a command of its own: a single command would take the name of its group."""


@edits_app.command("import")
def import_edits_command(
    path: Annotated[
        Path,
        typer.Argument(callback=input_file_or_folder, help="The file with the rows, or its folder, with the pictures."),
    ],
    out: Annotated[Path, typer.Option(help="Edits folder to write, for `editloop stage editor_rl --edits`.")],
    form: Annotated[
        Literal["editscore-rl", "edit-r1"],
        typer.Option(
            "--format", help="editscore-rl: EditScore-RL-Data's rl.jsonl; edit-r1: Edit-R1's train_metadata.jsonl."
        ),
    ],
    leave_out: Annotated[
        list[str] | None, typer.Option(help="A kind of edit that is not imported, such as text_change; several times.")
    ] = None,
    strict: Annotated[bool, typer.Option(help="Refuse rows with faults instead of leaving them out.")] = False,
) -> None:
    """Make an edits folder of published prompts: edits.jsonl, the pictures by content, and where both come from.

    Rows with faults are left out, counted, and listed in skipped.txt; an import that was stopped goes on at the row it
    had reached. SHA256SUMS has the sha256 of every file that was read, and `editloop verify` names them for an editor
    that practised on the edits.

    For example: editloop edits import EditScore-RL-Data --format editscore-rl --leave-out text_change --out data/edits
    """
    from editloop.data.published_edits import import_published_edits

    report = import_published_edits(path, form, out, leave_out=leave_out or (), strict=strict)
    print(f"{report.rows} edits of {report.sources} pictures")
    for kind, count in report.left_out.items():
        print(f"left out as asked: {count} of kind {kind}")
    print_skipped(report.skipped, out)
