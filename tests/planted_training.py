"""RL trainings, one after the other, with rewards of our own in a judge's place: starting a process is what takes time.

    torchrun --nproc-per-node 1 -m tests.planted_training job.json ...

A judge's address is `planted:KIND`, or `http://planted:KIND` for one that counts as being elsewhere. What ends a
training with an error is written beside its job, as `job.error`.
"""

import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar
from unittest.mock import patch
from zlib import crc32

import numpy as np
import torch.distributed as distributed

from editloop.data.edits_file import read_edits
from editloop.data.picture_file import load_image
from editloop.errors import EditLoopError
from editloop.models.judge_protocol import AxisScore, EditGroup, Judge, JudgeUnavailableError, Score
from editloop.scoring.opening import open_judge
from editloop.training.distributed import end_rank, start_rank
from editloop.training.editor_rl import evaluator as watch
from editloop.training.editor_rl import scoring, train
from editloop.training.editor_rl.settings import RlJob
from tests.editor_trainings import within_one_rank

PAUSE = "PLANTED_PAUSE"
"""Seconds that each call takes, in the environment."""
LEAVES_AFTER = 6
"""Calls."""


def chosen(task: str) -> bool:
    """About half of all tasks."""
    return crc32(task.encode()) % 2 == 0


class Planted:
    """`closeness` is an honest reward: the distance from the right result, by another measure than the oracle's. The
    same with faults: `gaps` gives no finite number for one edit of four and for the whole of some tasks; `easy` is
    pleased with half of the tasks, whatever was made, and never quite with the others; `leaving` is away after some
    calls, until it is opened again.
    `silent` gives none at all, `brightness` likes bright pictures, whatever was asked, `alike` likes all the same.
    """

    axes = ("one",)
    left: ClassVar[set[Path]] = set()
    """Edits whose `leaving` judge has left once."""

    def __init__(self, kind: str, edits: Path):
        self.name, self.version, self.kind, self.edits, self.calls = kind, f"{kind} 1", kind, edits, 0
        rows = read_edits(edits)
        self.targets = {row.id: np.asarray(load_image(row.target)) for row in rows if row.target}
        self.stays = kind != "leaving" or edits in self.left

    def judge(self, groups: Sequence[EditGroup]) -> list[list[Score]]:
        time.sleep(float(os.environ.get(PAUSE, "0")))
        self.calls += 1
        if self.calls > LEAVES_AFTER and not self.stays:
            self.left.add(self.edits)
            raise JudgeUnavailableError("nobody answers.")
        return [[self._score(group, edit) for edit in group.edits] for group in groups]

    def _score(self, group: EditGroup, edit: np.ndarray) -> Score:
        value = self._value(group, edit)
        if (self.kind == "gaps" and (chosen(group.key) or crc32(edit.tobytes()) % 4 == 0)) or self.kind == "silent":
            value = float("nan")
        belief = AxisScore(value, 0.0)
        return Score({"one": belief}, belief, value, value)

    def _value(self, group: EditGroup, edit: np.ndarray) -> float:
        if self.kind == "brightness":
            return float(edit.mean()) / 255
        if self.kind == "alike":
            return 0.5
        if self.kind == "easy" and chosen(group.key):
            return 0.95
        distance = float(np.abs(edit.astype(float) - self.targets[group.key]).mean()) / 64
        return min(max(1 - distance, 0.0), 1.0) * (0.8 if self.kind == "easy" else 1.0)


def run(path: Path) -> None:
    """One training, in a rank that has started."""
    job = RlJob.model_validate_json(path.read_text())

    def opened(address: str, **more: Any) -> Judge:
        kind = address.rpartition("planted:")[2]
        return open_judge(address, **more) if kind == address else Planted(kind, job.edits)

    page = watch.training_page if job.watch else lambda *_: ""  # its plots take longer than a tiny training
    with (
        patch.object(scoring, "open_judge", opened),
        patch.object(watch, "open_judge", opened),
        patch.object(watch, "training_page", page),
    ):
        try:
            within_one_rank(train, job)
        except EditLoopError as error:
            if distributed.get_rank() == 0:
                path.with_suffix(".error").write_text(str(error))


if __name__ == "__main__":
    start_rank()
    for told in sys.argv[1:]:
        run(Path(told))
    end_rank()
