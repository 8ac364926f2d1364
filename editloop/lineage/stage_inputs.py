"""Kinds of folders that stages pass to each other, by the names of stage inputs and command options."""

from pathlib import Path

from editloop.content import MANIFEST, read_manifest
from editloop.errors import EditLoopError
from editloop.input_paths import FolderKind, check_complete_folder, check_file, check_file_or_folder
from editloop.lineage.stage import StageFile

FOLDERS = {
    "benchmark": FolderKind("stage benchmark", ("gate.json",)),
    "campaign": FolderKind("stage annotate", ("campaign.json", "pages.jsonl")),
    "candidates": FolderKind("stage candidates", ("tasks.jsonl", "images")),
    "dataset": FolderKind("stage dataset or `editloop teacher import`"),
    "editor": FolderKind("stage editor_sft, editor_dpo or editor_rl", ("editor",)),
    "judgements": FolderKind("stage collect or `editloop ratings import`", ("judgements.jsonl", "summary.json")),
    "model": FolderKind("stage reward"),
}
"""Complete folders. Shards and weights have several names, so the code that reads a dataset or a model checks for
them."""
FILES = ("version",)
"""Inputs that are one file."""
EDITS = ("edits",)
"""Inputs that users may write themselves: an edits.jsonl, or a folder of them, with or without a manifest."""


def check_stage_input(stage: str, file: StageFile, path: Path) -> None:
    """Check that an input of a stage is of its kind, and that a folder holds what its manifest says.

    Lineage records the manifest's sha256, so files that were changed later would be used under the name of others.

    Args:
        stage: Name of the stage, for the message.
        file: The input; its argument is a key of FOLDERS or a member of FILES or EDITS.
        path: Where the input is.

    Raises:
        EditLoopError: It is missing, of another kind, or was changed. The message names the stage and the input.
    """
    parameter = f"stage {stage}: --{file.argument}"
    if file.argument in FILES:
        check_file(parameter, path)
    elif file.argument in EDITS:
        check_file_or_folder(parameter, path)
    else:
        check_complete_folder(parameter, path, FOLDERS[file.argument])
    if (path / MANIFEST).is_file():
        try:
            read_manifest(path, check=True, skip=file.skip)
        except EditLoopError as error:
            raise EditLoopError(f"{parameter} {error}") from None
