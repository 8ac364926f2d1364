"""Withdrawals: a list in the dataset repository, which every later build of a dataset applies.

An annotator's withdrawal removes all of their ratings and decisions; a task's removes all votes on it. Earlier versions
stay as they are, for the models trained on them. `editloop dataset withdraw` builds the next version and names those
models.
"""

import json
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Literal

from pydantic import ValidationError

from editloop.content import write_file
from editloop.datasets.checkout import checkout, is_repository, is_url
from editloop.datasets.git_command import git, git_objects
from editloop.errors import EditLoopError
from editloop.settings_file import FrozenModel

LIST = "withdrawals.jsonl"
"""Name of the list at the top of the dataset repository, tracked by git: one Withdrawal per line, oldest first."""


class Withdrawal(FrozenModel):
    """One line of the list."""

    kind: Literal["annotator", "task"]
    name: str
    """The annotator's name in the judgements, or the task's id."""
    reason: str
    at: datetime


@dataclass(frozen=True)
class Withdrawn:
    """Withdrawn annotators and tasks."""

    annotators: frozenset[str] = frozenset()
    """Names, as in the judgements."""
    tasks: frozenset[str] = frozenset()
    """Task ids."""


def read_withdrawn(repo: str) -> Withdrawn:
    """Return the annotators and tasks that the dataset repository's list withdraws.

    Args:
        repo: Folder or git address. Without a repository or a list, nothing is withdrawn.

    Raises:
        EditLoopError: The list is broken, with its faulty lines, or git refuses.
    """
    names: dict[str, set[str]] = {"annotator": set(), "task": set()}
    for withdrawal in read_withdrawals(repo):
        names[withdrawal.kind].add(withdrawal.name)
    return Withdrawn(frozenset(names["annotator"]), frozenset(names["task"]))


def read_withdrawals(repo: str) -> list[Withdrawal]:
    """Return the dataset repository's list of withdrawals, oldest first.

    Args:
        repo: Folder or git address. Without a repository or a list, the result is empty.

    Raises:
        EditLoopError: The list is broken, with its faulty lines, or git refuses.
    """
    if not is_url(repo) and not is_repository(repo):
        return []
    with checkout(repo) as work:
        return _read_list(work.folder, repo)


def add_withdrawal(repo: str, new: Withdrawal) -> Withdrawal:
    """Add a withdrawal to the list, in its own commit.

    Args:
        repo: Folder or git address of the dataset repository.
        new: The withdrawal.

    Returns:
        The line on the list: `new`, or the earlier one where the same annotator or task is withdrawn already.

    Raises:
        EditLoopError: git refuses, or the list is broken.
    """
    with checkout(repo) as work:
        while True:
            listed = _read_list(work.folder, repo)
            before = next((line for line in listed if (line.kind, line.name) == (new.kind, new.name)), None)
            if before is not None:
                return before
            write_file(work.folder / LIST, "".join(f"{line.model_dump_json()}\n" for line in (*listed, new)))
            git(work.folder, "add", "--force", "--", LIST)
            git(work.folder, "commit", "--quiet", "--message", f"One {new.kind} is withdrawn", "--", LIST)
            if work.push():
                return new


def _read_list(folder: Path, repo: str) -> list[Withdrawal]:
    """Read the list of the last commit. An EditLoopError names its faulty lines."""
    (content,) = git_objects(folder, [f"HEAD:{LIST}"])
    withdrawals, faults = [], []
    for number, line in enumerate((content or b"").splitlines(), 1):
        try:
            withdrawals.append(Withdrawal.model_validate(json.loads(line)))
        except (ValidationError, ValueError, RecursionError) as error:
            faults.append(f"line {number}: {str(error).splitlines()[0]}")
    if faults:
        raise EditLoopError(f"{repo}: {LIST}: {'; '.join(faults)}. Restore the list from its git history.")
    return withdrawals
