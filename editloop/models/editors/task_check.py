"""The check, before any edit is made or learnt, that an editor can take every task."""

from collections.abc import Iterable
from typing import NamedTuple

from editloop.data.edits_file import EditRow
from editloop.errors import EditLoopError
from editloop.models.editors.protocol import Editor
from editloop.models.editors.sources import references_fault

MOST_NAMED = 10
"""Most tasks that a message names."""


class AskedTask(NamedTuple):
    """What an editor is asked, without images."""

    name: str
    instruction: str
    references: int = 0
    """Number of reference images."""


def check_tasks(editor: Editor, tasks: Iterable[AskedTask]) -> None:
    """Check that an editor can take all tasks. It may be one of `outline_editor`, without weights.

    Args:
        editor: The editor.
        tasks: The tasks.

    Raises:
        EditLoopError: It cannot take some of them: one line per task, with the reason.
    """
    faults = []
    total = 0
    for task in tasks:
        total += 1
        if fault := references_fault(editor, task.references):
            faults.append(f"task {task.name}: {fault}")
        if fault := editor.instruction_fault(task.instruction):
            faults.append(f"task {task.name}: instruction {task.instruction[:60]!r}: {fault}")
    if faults:
        more = [f"and {len(faults) - MOST_NAMED:,} more"] if len(faults) > MOST_NAMED else []
        title = f"this editor cannot take some of the {total:,} tasks; {len(faults):,} faults:"
        raise EditLoopError("\n".join([title, *faults[:MOST_NAMED], *more]))


def check_rows(editor: Editor, rows: Iterable[EditRow]) -> None:
    """Check that an editor can take the tasks of an edits file; see `check_tasks`.

    Args:
        editor: The editor.
        rows: The rows.

    Raises:
        EditLoopError: It cannot take some of them: one line per task, with the reason.
    """
    check_tasks(editor, (AskedTask(row.id, row.instruction, len(row.references)) for row in rows))
