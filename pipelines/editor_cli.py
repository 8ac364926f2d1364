"""`editloop editor add`: give a downloaded editor's folder its manifest."""

from pathlib import Path
from typing import Annotated

import typer

from pipelines.input_options import plain_folder

editor_app = typer.Typer(no_args_is_help=True, help="Editors from released weights.")


@editor_app.callback()
def _editor_commands() -> None:
    """Keep `add` a command of its own: a single command would take the name of its group."""


@editor_app.command("add")
def add_editor_command(
    folder: Annotated[
        Path, typer.Argument(callback=plain_folder, help="The pipeline's folder, with its model_index.json.")
    ],
) -> None:
    """Check a downloaded editor's folder, and write its manifest into it. Nothing is copied.

    Files, types and values of all weights are checked. From then on the folder is compared with the manifest whenever
    it is opened. Call it again after a change of its editor.json.

    For example: editloop editor add models/FLUX.1-Kontext-dev
    """
    from editloop.models.editors.opening import add_editor

    print(f"content {add_editor(folder)}")
    print(folder)
