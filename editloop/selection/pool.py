"""The pool that is chosen from: the tasks of a candidates folder, as a reward model's backbone sees them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from rich.progress import track
from torch import Tensor

from editloop.data.candidates_folder import read_tasks
from editloop.data.picture_size import shrink
from editloop.data.vocabulary import EditTask
from editloop.models.edit_reward.inputs import EditGroupLike
from editloop.models.edit_reward.model import RewardModel
from editloop.models.judge_protocol import EditGroup, Picture


@dataclass(frozen=True)
class CandidatePool:
    """N tasks, with the backbone's states of their candidates."""

    tasks: list[EditTask]
    hidden: list[Tensor]
    """A task: (K, A, width)."""

    def features(self) -> NDArray[np.float32]:
        """(N, A * width): the mean of a task's candidates, by which tasks are told apart for diversity."""
        return np.stack([states.mean(dim=0).flatten().numpy() for states in self.hidden])


def comparable_tasks(folder: Path) -> list[EditTask]:
    """The tasks of a candidates folder that have two candidates or more: others compare nothing."""
    return [task for task in read_tasks(folder) if len(task.candidates) > 1]


def read_pool(folder: Path, tasks: list[EditTask], model: RewardModel) -> CandidatePool:
    """Tasks of a candidates folder as a pool; pictures are scaled to what the model reads."""
    hidden: list[Tensor] = []
    for task in track(tasks, description="reading the pool", transient=True):
        images = [candidate.image for candidate in task.candidates]
        source, *edits = load_pictures(folder, (task.source, *images), model.settings.side)
        hidden += model.states([EditGroup(task.instruction, source, edits)])
    return CandidatePool(tasks, hidden)


def backbone_states(groups: Sequence[EditGroupLike], model: RewardModel) -> list[Tensor]:
    """The backbone's states of judged groups, (K, A, width) each."""
    return [
        state
        for group in track(groups, description="reading the dataset", transient=True)
        for state in model.states([group])
    ]


def load_pictures(folder: Path, digests: Sequence[str], side: int | None) -> list[Picture]:
    """Pictures of a candidates folder, as squares of `side` pixels or as they are."""
    loaded = []
    for sha256 in digests:
        with Image.open(folder / "images" / f"{sha256}.png") as picture:
            loaded.append(np.asarray(picture.convert("RGB")) if side is None else shrink(picture, side))
    return loaded
