"""Training task of an editor's supervised fine-tuning. A unit is a task with its target; the loss is flow matching's.

A batch may hold images of several sizes. They go through the network size by size. Tasks are encoded before the first
step, each by one rank of a machine. From then on only the network is needed.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from editloop.content import sha256_json
from editloop.data.edits_file import EditRow
from editloop.data.held_out import hold_out
from editloop.data.picture_file import load_image, upright_size
from editloop.data.picture_size import resampled
from editloop.errors import EditLoopError
from editloop.models.backbones.spreading import is_spread
from editloop.models.editors.protocol import Conditioning, Editor, join_conditions
from editloop.models.editors.sampling import group_by_size, working_picture
from editloop.models.editors.settings import Size
from editloop.training.distributed import all_reduce_max, step_seed
from editloop.training.editor_sft.settings import SftSettings
from editloop.training.encoding_store import EncodingStore, encoding_key
from editloop.training.flow_matching import flow_matching_loss, logit_normal_levels, noised, shifted, uniform_levels
from editloop.training.training_task import Batch, ParameterGroup, Split

LEVELS = 4
"""Number of evenly spread noise levels at which a held-out task is measured, the same at every evaluation."""


UNITS, TARGETS = "units", "targets"
"""Names under which a batch and a stored encoding have more than the parts of the conditioning."""


class EncodedTasks(NamedTuple):
    """Tasks of one size, on the rank's device."""

    units: list[int]
    targets: Tensor
    """Latents of the targets, (B, S, C)."""
    condition: Conditioning


class StoredTask(NamedTuple):
    """Where a task's encoding is found."""

    size: Size
    key: str


class EditTrainingTask:
    """An editor and the edits that it learns."""

    def __init__(
        self,
        editor: Editor,
        splits: dict[Split, list[EditRow]],
        settings: SftSettings,
        trained: list[nn.Parameter],
        store: EncodingStore,
        dtype: torch.dtype | None = None,
    ):
        """Take the editor and its data.

        Args:
            editor: The editor to train.
            splits: Tasks of each split.
            settings: The training's settings.
            trained: The parameters to train, as the editor's `add_adapter` or `train_whole` returned them.
            store: Where encodings are kept.
            dtype: Type in which encodings are kept; None for that in which they were computed.
        """
        self.editor, self.splits, self.settings, self.trained = editor, splits, settings, trained
        self.store, self.dtype = store, dtype
        self.model = editor.network
        self._stored_tasks: dict[str, StoredTask] = {}

    def parameter_groups(self) -> list[ParameterGroup]:
        return [ParameterGroup(self.trained, 1.0)]

    def count(self, split: Split) -> int:
        return len(self.splits[split])

    def name(self, split: Split, unit: int) -> str:
        return f"task {self.splits[split][unit].id}"

    def encode(self, units: Mapping[Split, Sequence[int]], *, rank: int, ranks: int) -> None:
        """Encode this rank's share of the tasks that are not encoded yet.

        Args:
            units: The units of each split that the training reads.
            rank: The rank's number on its machine, from 0.
            ranks: The machine's number of ranks.
        """
        rows = [self.splits[split][unit] for split in units for unit in units[split]]
        new = [row for row in rows[rank::ranks] if self._stored(row).key not in self.store]
        if not new:
            return
        most = self.settings.training.micro_batch or self.settings.training.batch
        with self.editor.encoders_at_hand():
            for start in range(0, len(new), most):
                self._encode(new[start : start + most])

    def batch(self, split: Split, units: Sequence[int]) -> Batch:
        rows = [self.splits[split][unit] for unit in units]
        indices_by_size: dict[Size, list[int]] = {}
        for index, row in enumerate(rows):
            indices_by_size.setdefault(self._stored(row).size, []).append(index)
        tensors: dict[str, Tensor] = {}
        for size, indices in indices_by_size.items():
            tasks = [dict(self.store.get(self._stored(rows[index]).key)) for index in indices]
            parts = {
                UNITS: torch.tensor([units[index] for index in indices]),
                TARGETS: torch.cat([task.pop(TARGETS) for task in tasks]),
                **join_conditions([Conditioning(size, task) for task in tasks]).parts,
            }
            tensors |= {f"{size[0]}x{size[1]} {name}": part for name, part in parts.items()}
        return Batch(tensors, float(len(units)), len(units))

    def loss(self, engine: Any, batch: Batch) -> Tensor:
        """Return the mean loss over the batch's tasks. Each task's noise depends on the step and the task alone.

        Args:
            engine: DeepSpeed's engine. Not used directly: the editor calls its network.
            batch: A batch of the train split.
        """
        seed = step_seed()
        losses = []
        for size, part in self._passes(batch):
            drawn = [torch.Generator().manual_seed(_seed(seed, unit)) for unit in part.units]
            draw = uniform_levels if self.settings.noise_levels == "uniform" else logit_normal_levels
            sigma = torch.cat([draw(1, generator) for generator in drawn])
            losses.append(self._losses(size, part, shifted(sigma, self.settings.shift), drawn))
        every, tasks = torch.cat(losses), sum(len(part.units) for part in _parts(batch).values())
        return every[:tasks].mean() + 0.0 * every[tasks:].sum()

    def measure(self, engine: Any, batch: Batch) -> Mapping[str, Tensor | float]:
        total = torch.zeros((), dtype=torch.float64, device=self.editor.device)
        sizes = len(_parts(batch))
        for index, (size, part) in enumerate(self._passes(batch)):
            for level in range(LEVELS):
                drawn = [torch.Generator().manual_seed(_seed(level, unit)) for unit in part.units]
                sigma = torch.full((len(part.units),), (level + 0.5) / LEVELS)
                losses = self._losses(size, part, sigma, drawn)
                total += losses.sum() if index < sizes else 0.0
        return {"loss": total / LEVELS, "edits": float(batch.edits)}

    def figures(self, sums: dict[str, float]) -> dict[str, float]:
        """Return the mean squared error of the velocity on held-out tasks, over evenly spread noise levels.

        Args:
            sums: Sums of `measure` over the split.
        """
        return {"loss": sums["loss"] / sums["edits"]}

    def _passes(self, batch: Batch) -> list[tuple[Size, EncodedTasks]]:
        """Return the tasks of a batch by their size, one pass through the network each.

        Where weights are spread over the ranks, all must make the same number of passes: a rank with fewer sizes than
        another repeats its first, which then counts nothing.
        """
        passes = list(_parts(batch).items())
        if is_spread(next(self.model.parameters())):
            passes += passes[:1] * (all_reduce_max(len(passes)) - len(passes))
        return passes

    def _losses(self, size: Size, tasks: EncodedTasks, sigma: Tensor, drawn: Sequence[torch.Generator]) -> Tensor:
        """Return the losses (B,) of tasks of one size at noise levels sigma (B,).

        Each task's noise comes from its own generator.
        """
        picture = tasks.targets.float()
        noise = torch.cat([self.editor.noise(1, size, generator) for generator in drawn])
        sigma = sigma.to(picture.device)
        velocity = self.editor.velocity(noised(picture, noise, sigma), sigma, tasks.condition, self.settings.guidance)
        return flow_matching_loss(velocity, picture, noise)

    def _encode(self, rows: Sequence[EditRow]) -> None:
        sources = [working_picture(self.editor, load_image(row.source), self.settings.area) for row in rows]
        for size, indices in group_by_size(sources).items():
            chosen = [rows[index] for index in indices]
            targets = np.stack([resampled(load_image(_target(row)), size) for row in chosen])
            latents = self.editor.latents(targets).to("cpu", self.dtype)
            condition = self.editor.encode(
                [row.instruction for row in chosen], np.stack([sources[at] for at in indices])
            )
            condition = condition.to("cpu", self.dtype)
            for index, row in enumerate(chosen):
                parts = condition.select(torch.tensor([index])).parts
                target = latents[index : index + 1].clone()
                self.store.add(self._stored(row).key, parts | {TARGETS: target})

    def _stored(self, row: EditRow) -> StoredTask:
        if row.id not in self._stored_tasks:
            size = self.editor.size_for(*upright_size(row.source), self.settings.area)
            key = encoding_key(row.instruction, size, [row.source, _target(row)])
            self._stored_tasks[row.id] = StoredTask(size, key)
        return self._stored_tasks[row.id]


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


def _parts(batch: Batch) -> dict[Size, EncodedTasks]:
    """Return the tasks of a batch by their size."""
    parts_by_size: dict[Size, dict[str, Tensor]] = {}
    for key, value in batch.tensors.items():
        name, _, part = key.partition(" ")
        height, width = (int(side) for side in name.split("x"))
        parts_by_size.setdefault((height, width), {})[part] = value
    return {
        size: EncodedTasks(parts.pop(UNITS).tolist(), parts.pop(TARGETS), Conditioning(size, parts))
        for size, parts in parts_by_size.items()
    }


def _seed(draw: int, unit: int) -> int:
    """Return the seed of a task's noise in a draw, below 2^60."""
    return int(sha256_json([draw, unit])[:15], 16)
