"""What people took back: a list in the dataset repository that every later build of a dataset honours.

An annotator who withdraws takes all of their ratings and decisions back, a withdrawn task goes with all that was said
of it. Versions made before stay as they are, for the models that were trained on them; `editloop dataset withdraw`
makes the next version and names those models.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from editloop.content import write_file
from editloop.datasets.checkout import checkout, is_repository, is_url
from editloop.datasets.git_command import git, git_objects
from editloop.errors import EditLoopError

LIST = "withdrawals.jsonl"
"""The list's name at the top of the dataset repository, in git: one Withdrawal a line, the oldest first."""


class Withdrawal(BaseModel):
    """One line of the list."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["annotator", "task"]
    name: str
    """The annotator's name in the judgements, or the task's id."""
    reason: str
    at: datetime


@dataclass(frozen=True)
class Withdrawn:
    """All that is withdrawn. Empty, it withdraws nothing."""

    annotators: frozenset[str] = frozenset()
    tasks: frozenset[str] = frozenset()
    """Task ids."""


def withdrawn_by(withdrawals: Sequence[Withdrawal]) -> Withdrawn:
    """What a list of withdrawals takes out."""
    names = {
        kind: frozenset(withdrawal.name for withdrawal in withdrawals if withdrawal.kind == kind)
        for kind in ("annotator", "task")
    }
    return Withdrawn(names["annotator"], names["task"])


def read_withdrawn(repo: str) -> Withdrawn:
    """What is withdrawn according to the dataset repository (a folder or a git address); nothing where there is no
    list, or no repository yet. EditLoopError for a list that is broken, with its lines."""
    return withdrawn_by(read_withdrawals(repo))


def read_withdrawals(repo: str) -> list[Withdrawal]:
    """The list of the dataset repository, the oldest first; EditLoopError where it is broken."""
    if not is_url(repo) and not is_repository(repo):
        return []
    with checkout(repo) as work:
        return _read_list(work.folder, repo)


def add_withdrawal(repo: str, new: Withdrawal) -> Withdrawal:
    """Put a line on the list, in a commit of its own, and return it; what is withdrawn already keeps its first line.

    EditLoopError where git refuses; then nothing is listed.
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
    (text,) = git_objects(folder, [f"HEAD:{LIST}"])
    return parse_withdrawals(text.decode(errors="replace"), f"{repo}: {LIST}") if text else []


def parse_withdrawals(text: str, source: str) -> list[Withdrawal]:
    """The withdrawals of a list's text; EditLoopError that names every faulty line of `place`."""
    withdrawals, faults = [], []
    for number, line in enumerate(text.splitlines(), 1):
        try:
            withdrawals.append(Withdrawal.model_validate(json.loads(line)))
        except (ValidationError, ValueError) as error:
            faults.append(f"line {number}: {str(error).splitlines()[0]}")
    if faults:
        raise EditLoopError(f"{source}: {'; '.join(faults)}. Restore the list from its git history.")
    return withdrawals
