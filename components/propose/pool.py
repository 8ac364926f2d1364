"""The pool that is chosen from: the tasks of a candidates folder, as a reward model's backbone sees them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from rich.progress import track
from torch import Tensor

from annotation.campaigns.campaign import read_tasks
from annotation.simulation.oracle import shrink
from annotation.vocabulary import EditTask
from components.reward.data import Group
from components.reward.model import BATCH, RewardModel


@dataclass(frozen=True)
class Pool:
    """N tasks, with the backbone's states of their candidates."""

    tasks: list[EditTask]
    hidden: list[Tensor]
    """A task: (K, A, width)."""

    def features(self) -> NDArray[np.float32]:
        """(N, A * width): the mean of a task's candidates, by which tasks are told apart for diversity."""
        return np.stack([one.mean(dim=0).flatten().numpy() for one in self.hidden])


def askable(folder: Path) -> list[EditTask]:
    """The tasks of a candidates folder that have two candidates or more: others compare nothing."""
    return [task for task in read_tasks(folder) if len(task.candidates) > 1]


def read_pool(folder: Path, tasks: list[EditTask], model: RewardModel) -> Pool:
    """Tasks of a candidates folder as a pool; pictures are scaled to what the model reads."""
    hidden: list[Tensor] = []
    for task in track(tasks, description="reading the pool", transient=True):
        images = [one.image for one in task.candidates]
        pictures = pixels(folder, (task.source, *images), model.settings.side)
        hidden.append(states(model, task.instruction, pictures[0], pictures[1:]))
    return Pool(tasks, hidden)


def states_of(groups: list[Group], model: RewardModel) -> list[Tensor]:
    """The backbone's states of judged groups, (K, A, width) each."""
    return [
        states(model, group.instruction, group.source, group.edits)
        for group in track(groups, description="reading the dataset", transient=True)
    ]


@torch.no_grad()
def states(model: RewardModel, instruction: str, source: NDArray[np.uint8], edits: NDArray[np.uint8]) -> Tensor:
    """States at the reward tokens, (K, A, width), of K edits, uint8 (K, side, side, 3), of one source."""
    parts = []
    for start in range(0, len(edits), BATCH):
        part = edits[start : start + BATCH]
        parts.append(
            model.hidden(model.prepare([instruction] * len(part), np.broadcast_to(source, part.shape), part)).float()
        )
    return torch.cat(parts)


def pixels(folder: Path, digests: Sequence[str], side: int) -> NDArray[np.uint8]:
    """Pictures of a candidates folder as a model or the oracle reads them, (N, side, side, 3)."""
    found = []
    for sha256 in digests:
        with Image.open(folder / "images" / f"{sha256}.png") as picture:
            found.append(shrink(picture, side))
    return np.stack(found)
