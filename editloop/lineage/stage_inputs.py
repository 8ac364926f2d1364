"""The kinds of folders that steps pass on to each other, by the names that stages and commands have for them."""

from pathlib import Path

from editloop.input_paths import FolderKind, check_complete_folder, check_file, check_file_or_folder

FOLDERS = {
    "benchmark": FolderKind("stage benchmark", ("gate.json",)),
    "campaign": FolderKind("stage annotate", ("campaign.json", "pages.jsonl")),
    "candidates": FolderKind("stage candidates", ("tasks.jsonl", "images")),
    "dataset": FolderKind("stage dataset or `editloop teacher import`"),
    "editor": FolderKind("stage editor_sft or editor_rl", ("editor",)),
    "judgements": FolderKind("stage collect or `editloop ratings import`", ("judgements.jsonl", "summary.json")),
    "model": FolderKind("stage reward"),
}
"""Complete folders. A dataset's shards and a model's weights have names of several kinds: who reads them checks."""
FILES = ("version",)
"""Inputs that are a file."""
EDITS = ("edits",)
"""Inputs that a team may have written itself: an edits.jsonl, or a folder of them, with or without a manifest."""


def check_stage_input(stage: str, name: str, path: Path) -> None:
    """Check an input of a stage by its kind; EditLoopError, with the stage and the input's name, for a wrong one."""
    parameter = f"stage {stage}: --{name}"
    if name in FILES:
        check_file(parameter, path)
    elif name in EDITS:
        check_file_or_folder(parameter, path)
    else:
        check_complete_folder(parameter, path, FOLDERS[name])
