"""What calls share that score in parts and go on where they stopped: a progress bar, and a check of what is saved."""

from collections.abc import Mapping
from typing import Any

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from editloop.errors import EditLoopError


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
