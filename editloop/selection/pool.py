"""The pool to select from: the tasks of a candidates folder, as a reward model's backbone sees them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from editloop.data.candidates_folder import read_tasks
from editloop.data.picture_size import shrink
from editloop.data.vocabulary import EditTask
from editloop.models.edit_reward.inputs import EditGroupLike
from editloop.models.edit_reward.model import RewardModel
from editloop.models.judge_protocol import EditGroup, Picture
from editloop.progress import track


@dataclass(frozen=True)
class CandidatePool:
    """N tasks, with the backbone's states of their candidates."""

    tasks: list[EditTask]
    hidden: list[Tensor]
    """One tensor per task, (K, A, width)."""

    def features(self) -> NDArray[np.float32]:
        """Return each task's mean state over its candidates, (N, A * width): the features for diversity."""
        return np.stack([states.mean(dim=0).flatten().numpy() for states in self.hidden])


def comparable_tasks(folder: Path) -> list[EditTask]:
    """Return the tasks with two candidates or more; the others allow no comparison.

    Args:
        folder: The candidates folder.
    """
    return [task for task in read_tasks(folder) if len(task.candidates) > 1]


def read_pool(folder: Path, tasks: list[EditTask], model: RewardModel) -> CandidatePool:
    """Compute the backbone's states of the tasks' candidates.

    Args:
        folder: The candidates folder.
        tasks: Tasks of the folder.
        model: The reward model; images are scaled to the size that it reads.

    Returns:
        The tasks with their states.
    """
    hidden: list[Tensor] = []
    for task in track(tasks, description="reading the pool"):
        images = [candidate.image for candidate in task.candidates]
        side = model.settings.side
        source, *references = load_pictures(folder, (task.source, *task.references), side)
        edits = load_pictures(folder, images, side)
        hidden += model.states([EditGroup(task.instruction, source, edits, task.name, references)])
    return CandidatePool(tasks, hidden)


def backbone_states(groups: Sequence[EditGroupLike], model: RewardModel) -> list[Tensor]:
    """Return the backbone's states of judged groups, (K, A, width) each.

    Args:
        groups: The groups.
        model: The reward model.
    """
    tracked = track(groups, description="reading the dataset")
    return [state for group in tracked for state in model.states([group])]


def load_pictures(folder: Path, digests: Sequence[str], side: int | None) -> list[Picture]:
    """Load images of a candidates folder.

    Args:
        folder: The candidates folder.
        digests: sha256 of each image.
        side: Side, in pixels, of the squares to scale them to; None keeps their size.

    Returns:
        The images, uint8 (height, width, 3) each.
    """
    loaded = []
    for sha256 in digests:
        with Image.open(folder / "images" / f"{sha256}.png") as picture:
            loaded.append(np.asarray(picture.convert("RGB")) if side is None else shrink(picture, side))
    return loaded
