"""Callbacks for options and arguments that take an input path. They check the path while it is parsed."""

from collections.abc import Callable
from pathlib import Path

import typer

from editloop.input_paths import check_complete_folder, check_file, check_file_or_folder, check_folder
from editloop.lineage.stage_inputs import FOLDERS

Callback = Callable[[typer.CallbackParam, Path | None], Path | None]


def input_folder(kind: str) -> Callback:
    """Return a callback that checks for a complete folder of one kind.

    Args:
        kind: A key of `editloop.lineage.stage_inputs.FOLDERS`.
    """
    return _checked(lambda name, path: check_complete_folder(name, path, FOLDERS[kind]))


def _checked(check: Callable[[str, Path], None]) -> Callback:
    """Return a callback that checks a path and names the option, or the argument as the help shows it."""

    def callback(parameter: typer.CallbackParam, path: Path | None) -> Path | None:
        if path is not None:
            option = parameter.opts[0]
            check(option if option.startswith("-") else option.upper(), path)
        return path

    return callback


input_file = _checked(check_file)
input_file_or_folder = _checked(check_file_or_folder)
plain_folder = _checked(check_folder)
