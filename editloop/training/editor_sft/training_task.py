"""Training task of an editor's supervised fine-tuning. A unit is a task with its target; the loss is flow matching's.

A batch may hold images of several sizes. They go through the network size by size. Text and images are encoded anew at
each step. That takes a few percent of a step, and memory does not grow with the dataset.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from editloop.content import sha256_json
from editloop.data.edits_file import EditRow
from editloop.data.held_out import hold_out
from editloop.data.picture_file import load_image
from editloop.data.picture_size import resized
from editloop.errors import EditLoopError
from editloop.models.editors.protocol import Editor
from editloop.models.editors.sampling import group_by_size, working_picture
from editloop.models.editors.settings import Size
from editloop.training.distributed import step_seed
from editloop.training.editor_sft.settings import SftSettings
from editloop.training.flow_matching import flow_matching_loss, logit_normal_levels, noised, shifted, uniform_levels
from editloop.training.training_task import Batch, ParameterGroup, Split

LEVELS = 4
"""Number of evenly spread noise levels at which a held-out task is measured, the same at every evaluation."""


class TaskPictures(NamedTuple):
    """Tasks of one size: their units, and sources and targets, each uint8 (B, height, width, 3)."""

    units: list[int]
    sources: NDArray[np.uint8]
    targets: NDArray[np.uint8]


class EditTrainingTask:
    """An editor and the edits that it learns."""

    def __init__(
        self, editor: Editor, splits: dict[Split, list[EditRow]], settings: SftSettings, trained: list[nn.Parameter]
    ):
        """Take the editor and its data.

        Args:
            editor: The editor to train.
            splits: Tasks of each split.
            settings: The training's settings.
            trained: The parameters to train, as the editor's `add_adapter` or `train_whole` returned them.
        """
        self.editor, self.splits, self.settings, self.trained = editor, splits, settings, trained
        self.model = editor.network

    def parameter_groups(self) -> list[ParameterGroup]:
        return [ParameterGroup(self.trained, 1.0)]

    def count(self, split: Split) -> int:
        return len(self.splits[split])

    def name(self, split: Split, unit: int) -> str:
        return f"task {self.splits[split][unit].id}"

    def batch(self, split: Split, units: Sequence[int]) -> Batch:
        rows = [self.splits[split][unit] for unit in units]
        sources = [working_picture(self.editor, load_image(row.source)) for row in rows]
        tensors: dict[str, Tensor] = {}
        for size, indices in group_by_size(sources).items():
            targets = [resized(load_image(_target(rows[index])), size) for index in indices]
            parts = TaskPictures(
                [units[index] for index in indices], np.stack([sources[at] for at in indices]), np.stack(targets)
            )
            name = f"{size[0]}x{size[1]}"
            tensors |= {f"{name} {key}": torch.as_tensor(value) for key, value in parts._asdict().items()}
        return Batch(tensors, float(len(units)), len(units))

    def loss(self, engine: Any, batch: Batch) -> Tensor:
        """Return the mean loss over the batch's tasks. Each task's noise depends on the step and the task alone.

        Args:
            engine: DeepSpeed's engine. Not used directly: the editor calls its network.
            batch: A batch of the train split.
        """
        seed = step_seed()
        losses = []
        for size, part in _parts(batch).items():
            drawn = [torch.Generator().manual_seed(_seed(seed, unit)) for unit in part.units]
            draw = uniform_levels if self.settings.noise_levels == "uniform" else logit_normal_levels
            sigma = torch.cat([draw(1, generator) for generator in drawn])
            losses.append(self._losses("train", size, part, shifted(sigma, self.settings.shift), drawn))
        return torch.cat(losses).mean()

    def measure(self, engine: Any, batch: Batch) -> Mapping[str, Tensor | float]:
        total = torch.zeros((), dtype=torch.float64, device=self.editor.device)
        for size, part in _parts(batch).items():
            for level in range(LEVELS):
                drawn = [torch.Generator().manual_seed(_seed(level, unit)) for unit in part.units]
                sigma = torch.full((len(part.units),), (level + 0.5) / LEVELS)
                total += self._losses("validation", size, part, sigma, drawn).sum()
        return {"loss": total / LEVELS, "edits": float(batch.edits)}

    def figures(self, sums: dict[str, float]) -> dict[str, float]:
        """Return the mean squared error of the velocity on held-out tasks, over evenly spread noise levels.

        Args:
            sums: Sums of `measure` over the split.
        """
        return {"loss": sums["loss"] / sums["edits"]}

    def _losses(
        self, split: Split, size: Size, part: TaskPictures, sigma: Tensor, drawn: Sequence[torch.Generator]
    ) -> Tensor:
        """Return the losses (B,) of tasks of one size at noise levels sigma (B,).

        Each task's noise comes from its own generator.
        """
        editor = self.editor
        condition = editor.encode([self.splits[split][unit].instruction for unit in part.units], part.sources)
        picture = editor.latents(part.targets)
        noise = torch.cat([editor.noise(1, size, generator) for generator in drawn])
        sigma = sigma.to(picture.device)
        velocity = editor.velocity(noised(picture, noise, sigma), sigma, condition, self.settings.guidance)
        return flow_matching_loss(velocity, picture, noise)


def split_rows(rows: Sequence[EditRow], held_out: float) -> dict[Split, list[EditRow]]:
    """Split tasks into those to train on and those to choose the best state by.

    No source image is in both. The split depends on the images' content alone.

    Args:
        rows: Tasks of at least two source images.
        held_out: Least share of the tasks to hold out, 0..1. Fewer are held out only where one source image would
            remain for training.

    Raises:
        EditLoopError: All tasks have the same source image.
    """
    train, held = hold_out(rows, held_out * len(rows), "held out")
    if not held:
        raise EditLoopError(
            f"{len(rows)} edits of one source picture: some must be held out. Give edits of others too."
        )
    return {"train": train, "validation": held}


def _target(row: EditRow) -> Any:
    if row.target is None:
        raise EditLoopError(f"task {row.id}: it has no target; an edit to learn has its right result as `target`.")
    return row.target


def _parts(batch: Batch) -> dict[Size, TaskPictures]:
    """Return the tasks of a batch by their size."""
    pictures_by_size: dict[Size, TaskPictures] = {}
    for key, value in batch.tensors.items():
        name, _, what = key.partition(" ")
        if what == "units":
            height, width = (int(side) for side in name.split("x"))
            sources, targets = (batch.tensors[f"{name} {role}"].cpu().numpy() for role in ("sources", "targets"))
            pictures_by_size[height, width] = TaskPictures(value.tolist(), sources, targets)
    return pictures_by_size


def _seed(draw: int, unit: int) -> int:
    """Return the seed of a task's noise in a draw, below 2^60."""
    return int(sha256_json([draw, unit])[:15], 16)
