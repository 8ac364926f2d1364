"""What calls share that score in parts and go on where they stopped: a progress bar, and a check of what is saved."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from editloop.content import write_json
from editloop.errors import EditLoopError
from editloop.file_lock import file_lock
from editloop.json_file import read_json_object


def scoring_progress(**options: Any) -> Progress:
    """Return the bar of a scoring, whose field `missing` counts the edits without a score.

    Args:
        **options: Options of rich's Progress.
    """
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[missing]} missing"),
        TimeRemainingColumn(),
        **options,
    )


@contextmanager
def locked_folder(folder: Path, name: str, facts: Mapping[str, Any], holds: str, advice: str) -> Iterator[None]:
    """Lock a folder of saved scores within the block; it is created if it does not exist.

    Args:
        folder: The folder.
        name: Name of the file in it that says what the scores depend on.
        facts: What they must depend on.
        holds: As for `check_facts`.
        advice: As for `check_facts`.

    Raises:
        EditLoopError: Another call holds the folder, or its scores depend on something else.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with file_lock(folder / "lock", f"{folder}: another call is writing there; wait for it or stop it."):
        if (folder / name).is_file():
            stored = read_json_object(folder / name, f"Remove {folder} to score anew.")
            check_facts(stored, facts, holds, advice)
        else:
            write_json(folder / name, facts)
        yield


def check_facts(stored: Mapping[str, Any], facts: Mapping[str, Any], holds: str, advice: str) -> None:
    """Check that saved scores are of the same judge, input and settings.

    Args:
        stored: What the saved scores depend on.
        facts: What they must depend on.
        holds: The file or folder and what it holds, for the message.
        advice: What to do, for the message.

    Raises:
        EditLoopError: They depend on something else.
    """
    if differing := [key for key in facts if stored.get(key) != facts[key]]:
        differences = "; ".join(f"{key} {stored.get(key)} there, {facts[key]} now" for key in differing)
        raise EditLoopError(f"{holds} of something else ({differences}). They are not mixed: {advice}.")
