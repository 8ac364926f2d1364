"""What people took back: a list in the dataset repository that every later build of a dataset honours.

An annotator who withdraws takes all of their ratings and decisions back, a withdrawn task goes with all that was said
of it. Versions made before stay as they are, for the models that were trained on them; `editloop dataset withdraw`
makes the next version and names those models.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from annotation.vocabulary import Decision, EditTask, Judgement
from infra.errors import EditLoopError

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

    def judgements(self, given: Iterable[Judgement]) -> list[Judgement]:
        """Those that stay, in their order."""
        return [one for one in given if one.task_id not in self.tasks and one.annotator not in self.annotators]

    def decisions(self, given: Iterable[Decision]) -> list[Decision]:
        """Those of the lead's decisions that stay: a lead who withdrew takes them back like ratings."""
        return [one for one in given if one.task_id not in self.tasks and one.lead not in self.annotators]

    def open_tasks(self, given: Iterable[EditTask]) -> list[EditTask]:
        """Those that stay, in their order."""
        return [task for task in given if task.task_id not in self.tasks]


def withdrawn_by(withdrawals: Sequence[Withdrawal]) -> Withdrawn:
    """What a list of withdrawals takes out."""
    names = {kind: frozenset(one.name for one in withdrawals if one.kind == kind) for kind in ("annotator", "task")}
    return Withdrawn(names["annotator"], names["task"])


def read_withdrawn(repo: str) -> Withdrawn:
    """What is withdrawn according to the dataset repository (a folder or a git address); nothing where there is no
    list, or no repository yet. EditLoopError for a list that is broken, with its lines."""
    return withdrawn_by(read_withdrawals(repo))


def read_withdrawals(repo: str) -> list[Withdrawal]:
    """The list of the dataset repository, the oldest first."""
    raise NotImplementedError


def parse_withdrawals(text: str, place: str) -> list[Withdrawal]:
    """The withdrawals of a list's text; EditLoopError that names every faulty line of `place`."""
    found, faults = [], []
    for number, line in enumerate(text.splitlines(), 1):
        try:
            found.append(Withdrawal.model_validate(json.loads(line)))
        except (ValidationError, ValueError) as error:
            faults.append(f"line {number}: {str(error).splitlines()[0]}")
    if faults:
        raise EditLoopError(f"{place}: {'; '.join(faults)}. Restore the list from its git history.")
    return found
