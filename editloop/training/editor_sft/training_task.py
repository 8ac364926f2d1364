"""Training task of an editor's supervised fine-tuning. A unit is a task with its target, the loss flow matching's."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from editloop.data.edits_file import EditRow
from editloop.data.held_out import hold_out
from editloop.data.picture_file import load_image, load_images
from editloop.data.picture_size import resampled
from editloop.errors import EditLoopError
from editloop.models.editors.protocol import Conditioning, Editor
from editloop.models.editors.sampling import working_picture
from editloop.models.editors.sources import (
    SourceSizes,
    encode_tasks,
    group_by_size,
    working_references,
    working_sizes,
)
from editloop.training.distributed import step_seed
from editloop.training.editor_sft.settings import SftSettings
from editloop.training.encoding_store import EncodingStore, encoding_key
from editloop.training.flow_matching import flow_matching_loss, noised
from editloop.training.flow_training import (
    LEVELS,
    EncodedUnit,
    EncodedUnits,
    FlowTrainingTask,
    measuring_levels,
    unit_generators,
)
from editloop.training.training_task import Batch, Split

TARGETS = "targets"
"""Name of a unit's picture."""


class StoredTask(NamedTuple):
    """Where a task's encoding is found."""

    sizes: SourceSizes
    key: str


class EditTrainingTask(FlowTrainingTask):
    """An editor and the edits that it learns."""

    pictures: ClassVar[tuple[str, ...]] = (TARGETS,)

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
        super().__init__(editor, settings, trained, store, dtype)
        self.splits = splits
        self._stored_tasks: dict[str, StoredTask] = {}

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

    def encoded(self, split: Split, unit: int) -> EncodedUnit:
        sizes, key = self._stored(self.splits[split][unit])
        tensors = dict(self.store.get(key))
        return EncodedUnit({TARGETS: tensors.pop(TARGETS)}, Conditioning(sizes.source, tensors, sizes.references))

    def loss(self, engine: Any, batch: Batch) -> Tensor:
        """Return the mean loss over the batch's tasks. Each task's noise depends on the step and the task alone.

        Args:
            engine: DeepSpeed's engine. Not used directly: the editor calls its network.
            batch: A batch of the train split.
        """
        seed = step_seed()
        losses = []
        for part in self.passes(batch):
            generators = unit_generators(seed, part.units)
            losses.append(self._losses(part, self.drawn_levels(generators), generators))
        every, tasks = torch.cat(losses), sum(len(part.units) for part in self.parts(batch))
        return every[:tasks].mean() + 0.0 * every[tasks:].sum()

    def measure(self, engine: Any, batch: Batch) -> Mapping[str, Tensor | float]:
        total = torch.zeros((), dtype=torch.float64, device=self.editor.device)
        sizes = len(self.parts(batch))
        for index, part in enumerate(self.passes(batch)):
            for sigma, generators in measuring_levels(part.units):
                losses = self._losses(part, sigma, generators)
                total += losses.sum() if index < sizes else 0.0
        return {"loss": total / LEVELS, "edits": float(batch.edits)}

    def figures(self, sums: dict[str, float]) -> dict[str, float]:
        """Return `loss`, the mean over all held-out tasks and noise levels.

        Args:
            sums: Sums of `measure` over the split.
        """
        return {"loss": sums["loss"] / sums["edits"]}

    def _losses(self, part: EncodedUnits, sigma: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
        """Return the losses (B,) of tasks of one size at noise levels sigma (B,).

        Each task's noise comes from its own generator.
        """
        picture = part.pictures[TARGETS].float()
        noise, sigma = self.noise(part.condition.size, generators), sigma.to(picture.device)
        velocity = self.editor.velocity(noised(picture, noise, sigma), sigma, part.condition, self.settings.guidance)
        return flow_matching_loss(velocity, picture, noise)

    def _encode(self, rows: Sequence[EditRow]) -> None:
        area = self.settings.area
        sources = [working_picture(self.editor, load_image(row.source), area) for row in rows]
        references = [working_references(self.editor, load_images(row.references), area) for row in rows]
        for sizes, indices in group_by_size(sources, references).items():
            chosen = [rows[index] for index in indices]
            targets = np.stack([resampled(load_image(_target(row)), sizes.source) for row in chosen])
            latents = self.editor.latents(targets).to("cpu", self.dtype)
            instructions, shown = [row.instruction for row in chosen], [sources[at] for at in indices]
            condition = encode_tasks(self.editor, instructions, shown, [references[at] for at in indices])
            condition = condition.to("cpu", self.dtype)
            for index, row in enumerate(chosen):
                parts = condition.select(torch.tensor([index])).parts
                target = latents[index : index + 1].clone()
                self.store.add(self._stored(row).key, parts | {TARGETS: target})

    def _stored(self, row: EditRow) -> StoredTask:
        if row.id not in self._stored_tasks:
            (sizes,) = working_sizes([row], self.editor, self.settings.area)
            pictures = [row.source, _target(row), *row.references]
            key = encoding_key(row.instruction, sizes.source, pictures, sizes.references)
            self._stored_tasks[row.id] = StoredTask(sizes, key)
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
