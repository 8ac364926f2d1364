"""The check, before any edit is made or learnt, that an editor can take every instruction."""

from collections.abc import Iterable

from editloop.errors import EditLoopError
from editloop.models.editors.protocol import Editor

MOST_NAMED = 10
"""Most instructions that a message names."""


def check_instructions(editor: Editor, instructions: Iterable[tuple[str, str]]) -> None:
    """Check that an editor can take all instructions. It may be one of `outline_editor`, without weights.

    Args:
        editor: The editor.
        instructions: The task's name, and the instruction, for each task.

    Raises:
        EditLoopError: It cannot take some of them: one line per task, with the reason.
    """
    faults = []
    total = 0
    for name, instruction in instructions:
        total += 1
        if fault := editor.instruction_fault(instruction):
            faults.append(f"task {name}: instruction {instruction[:60]!r}: {fault}")
    if faults:
        more = [f"and {len(faults) - MOST_NAMED:,} more"] if len(faults) > MOST_NAMED else []
        title = f"{len(faults):,} of {total:,} tasks have instructions that this editor cannot take:"
        raise EditLoopError("\n".join([title, *faults[:MOST_NAMED], *more]))
