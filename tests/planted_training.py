"""An RL training with rewards of our own in a judge's place: `torchrun -m tests.planted_training job.json`.

`planted:brightness` likes bright pictures, whatever was asked; `planted:closeness` is an honest reward, the distance
from the right result, by another measure than the oracle's.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from annotation.formats.edits_file import read_edits
from annotation.formats.picture_file import load_image
from components.editor_rl import scoring, train, watch
from components.editor_rl.settings import RlJob
from components.judges.opening import open_judge
from components.judges.protocol import AxisScore, EditGroup, Judge, Score


class Planted:
    axes = ("one",)

    def __init__(self, kind: str, edits: Path):
        self.name, self.version, self.kind = kind, f"{kind} 1", kind
        self.targets = {row.id: np.asarray(load_image(row.target)) for row in read_edits(edits) if row.target}

    def judge(self, groups: Sequence[EditGroup]) -> list[list[Score]]:
        return [[self._score(group, edit) for edit in group.edits] for group in groups]

    def _score(self, group: EditGroup, edit: np.ndarray) -> Score:
        value = float(edit.mean()) / 255
        if self.kind == "closeness":
            value = 1 - float(np.abs(edit.astype(float) - self.targets[group.key]).mean()) / 64
        value = min(max(value, 0.0), 1.0)
        belief = AxisScore(value, 0.0)
        return Score({"one": belief}, belief, value, value)


def main(job: RlJob) -> None:
    def opened(address: str, **more: Any) -> Judge:
        kind = address.removeprefix("planted:")
        return open_judge(address, **more) if kind == address else Planted(kind, job.edits)

    scoring.open_judge = watch.open_judge = opened  # type: ignore[assignment]
    train.main(job)


if __name__ == "__main__":
    main(RlJob.model_validate_json(Path(sys.argv[1]).read_text()))
