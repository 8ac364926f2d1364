"""Supervised training of an editor by flow matching: what fine-tuning on target edits and learning from pairs share.

A unit has a conditioning and one or more pictures, as latents. Units are encoded before the first step, each by one
rank of a machine; from then on only the network is needed. A batch may hold images of several sizes, which go through
the network size by size. The noise of a unit depends on the step and the unit alone, so that a training that continues
from a checkpoint repeats no draw and skips none.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import ClassVar, NamedTuple

import numpy as np
import torch
import torch.distributed as distributed
from safetensors.torch import load_file
from torch import Tensor, nn

from editloop.content import sha256_json, write_json
from editloop.models.backbones.spreading import is_spread
from editloop.models.editors.opening import open_editor
from editloop.models.editors.protocol import Conditioning, Editor, join_conditions
from editloop.models.editors.settings import Size
from editloop.models.editors.sources import SourceSizes
from editloop.training.distributed import all_reduce_max, rank_on_machine, ranks_on_machine
from editloop.training.editor_opening import encoding_dtype, frozen_dtype, open_encoding_store, open_to_train
from editloop.training.encoding_store import EncodingStore
from editloop.training.engine import put_state, spread_of, uses_bf16
from editloop.training.flow_matching import logit_normal_levels, shifted, uniform_levels
from editloop.training.flow_settings import FlowJob, FlowSettings
from editloop.training.job import HISTORY_FILE
from editloop.training.loop import train
from editloop.training.schedule import TrainingSchedule
from editloop.training.settings import TrainingSettings
from editloop.training.training_task import Batch, ParameterGroup, Split, TrainingTask

LEVELS = 4
"""Number of evenly spread noise levels at which a held-out unit is measured, the same at every evaluation."""
UNITS = "units"
"""Name under which a batch has the numbers of its units."""


class EncodedUnits(NamedTuple):
    """Units of one size of the source and of each reference, on the rank's device."""

    units: list[int]
    pictures: dict[str, Tensor]
    """Latents of the units' pictures by name, each (B, S, C)."""
    condition: Conditioning


class EncodedUnit(NamedTuple):
    """A unit as the store has it: all tensors have a first dimension of 1."""

    pictures: dict[str, Tensor]
    condition: Conditioning


class FlowTrainingTask(TrainingTask, ABC):
    """An editor and the units that it learns from."""

    pictures: ClassVar[tuple[str, ...]]
    """Names of a unit's pictures."""

    def __init__(
        self,
        editor: Editor,
        settings: FlowSettings,
        trained: list[nn.Parameter],
        store: EncodingStore,
        dtype: torch.dtype | None = None,
    ):
        """Take the editor.

        Args:
            editor: The editor to train.
            settings: The training's settings.
            trained: The parameters to train, as the editor's `add_adapter` or `train_whole` returned them.
            store: Where encodings are kept.
            dtype: Type in which encodings are kept; None for that in which they were computed.
        """
        self.editor, self.settings, self.trained = editor, settings, trained
        self.store, self.dtype = store, dtype

    @property
    def model(self) -> nn.Module:
        return self.editor.network

    def parameter_groups(self) -> list[ParameterGroup]:
        return [ParameterGroup(self.trained, 1.0)]

    @abstractmethod
    def encode(self, units: Mapping[Split, Sequence[int]], *, rank: int, ranks: int) -> None:
        """Encode this rank's share of the units that are not encoded yet.

        Args:
            units: The units of each split that the training reads.
            rank: The rank's number on its machine, from 0.
            ranks: The machine's number of ranks.
        """

    @abstractmethod
    def encoded(self, split: Split, unit: int) -> EncodedUnit:
        """Return a unit's encoding from the store.

        Args:
            split: The split.
            unit: A unit that was encoded.
        """

    def batch(self, split: Split, units: Sequence[int]) -> Batch:
        units_by_size: dict[SourceSizes, list[tuple[int, EncodedUnit]]] = {}
        for unit in units:
            encoded = self.encoded(split, unit)
            sizes = SourceSizes(encoded.condition.size, encoded.condition.references)
            units_by_size.setdefault(sizes, []).append((unit, encoded))
        tensors: dict[str, Tensor] = {}
        for sizes, members in units_by_size.items():
            parts = {
                UNITS: torch.tensor([unit for unit, _ in members]),
                **{name: torch.cat([encoded.pictures[name] for _, encoded in members]) for name in self.pictures},
                **join_conditions([encoded.condition for _, encoded in members]).parts,
            }
            label = "+".join(f"{height}x{width}" for height, width in (sizes.source, *sizes.references))
            tensors |= {f"{label} {name}": part for name, part in parts.items()}
        return Batch(tensors, float(len(units)), len(units) * len(self.pictures))

    def parts(self, batch: Batch) -> list[EncodedUnits]:
        """Return the units of a batch, those of one size of source and references together.

        Args:
            batch: A batch that `batch` made.
        """
        tensors_by_size: dict[SourceSizes, dict[str, Tensor]] = {}
        for key, value in batch.tensors.items():
            label, _, part = key.partition(" ")
            tensors_by_size.setdefault(_read_sizes(label), {})[part] = value
        return [
            EncodedUnits(
                tensors.pop(UNITS).tolist(),
                {name: tensors.pop(name) for name in self.pictures},
                Conditioning(sizes.source, tensors, sizes.references),
            )
            for sizes, tensors in tensors_by_size.items()
        ]

    def passes(self, batch: Batch) -> list[EncodedUnits]:
        """Return the units of a batch, one pass through the network each.

        Where weights are spread over the ranks, all must make the same number of passes: a rank with fewer sizes than
        another repeats its first, which then counts nothing.

        Args:
            batch: A batch that `batch` made.
        """
        passes = self.parts(batch)
        if is_spread(next(self.model.parameters())):
            passes += passes[:1] * (all_reduce_max(len(passes)) - len(passes))
        return passes

    def drawn_levels(self, generators: Sequence[torch.Generator]) -> Tensor:
        """Draw a noise level in 0..1 for each unit, as the settings say, (B,).

        Args:
            generators: Each unit's source of random numbers, which is used before its noise is drawn.
        """
        draw = uniform_levels if self.settings.noise_levels == "uniform" else logit_normal_levels
        return shifted(torch.cat([draw(1, generator) for generator in generators]), self.settings.shift)

    def noise(self, size: Size, generators: Sequence[torch.Generator]) -> Tensor:
        """Return standard normal latents (B, S, C), those of each unit from its own generator.

        Args:
            size: (height, width) of the pictures.
            generators: Each unit's source of random numbers.
        """
        return torch.cat([self.editor.noise(1, size, generator) for generator in generators])


def _read_sizes(label: str) -> SourceSizes:
    """Return the sizes of source and references that begin the names of a batch's tensors."""
    sides = [[int(side) for side in size.split("x")] for size in label.split("+")]
    source, *references = ((height, width) for height, width in sides)
    return SourceSizes(source, tuple(references))


def unit_generators(draw: int, units: Sequence[int]) -> list[torch.Generator]:
    """Return a source of random numbers for each unit, which depends on the draw and the unit alone.

    Args:
        draw: Number of the draw, such as the step.
        units: The units.
    """
    return [torch.Generator().manual_seed(int(sha256_json([draw, unit])[:15], 16)) for unit in units]


def measuring_levels(units: Sequence[int]) -> Iterator[tuple[Tensor, list[torch.Generator]]]:
    """Yield the noise levels (B,) at which units are measured, each with the sources of the units' noise.

    Args:
        units: The B units.
    """
    for level in range(LEVELS):
        yield torch.full((len(units),), (level + 0.5) / LEVELS), unit_generators(level, units)


def units_read(task: FlowTrainingTask, training: TrainingSettings) -> dict[Split, list[int]]:
    """Return the units of each split that a training reads, sorted: without those that its steps do not reach.

    Args:
        task: The editor and its data.
        training: The training's settings.
    """
    schedule = TrainingSchedule.of(training, task.count("train"), distributed.get_world_size())
    units = list(range(schedule.units))
    if schedule.total <= schedule.epoch:
        units = np.unique([schedule.units_of(step, training.seed) for step in range(schedule.total)]).tolist()
    return {"train": units, "validation": list(range(task.count("validation")))}


OpenTask = Callable[[Editor, list[nn.Parameter], EncodingStore, torch.dtype | None], FlowTrainingTask]
"""Returns the training task of an opened editor: the editor, its trained parameters, the store of encodings, and the
type in which these are kept."""


def train_by_flow_matching(
    job: FlowJob,
    settings: FlowSettings,
    open_task: OpenTask,
    *,
    with_base: bool,
    show: Callable[[Editor, FlowTrainingTask], None] = lambda editor, task: None,
) -> None:
    """Train on this rank, within a job that has started. Rank 0 writes the editor, its adapter merged, and the history.

    Args:
        job: The training to run.
        settings: Its settings.
        open_task: Returns the training task of the opened editor.
        with_base: Whether the training asks the frozen editor.
        show: Called on rank 0 with the editor in its best state and the task, before the history is written.

    Raises:
        EditLoopError: The editor or its data cannot be used, or a loss is not finite.
        SystemExit: The job was asked to stop and has saved a checkpoint.
    """
    training = settings.training
    bf16 = uses_bf16(training)
    whole_dtype = torch.bfloat16 if bf16 else torch.float32  # the engine has fp32 masters
    spread = spread_of(training)
    editor, trained = open_to_train(
        job.editor, training, settings, whole_dtype=whole_dtype, bf16=bf16, with_base=with_base, spread=spread
    )
    store = open_encoding_store(job.checkpoints, job.editor, job.facts, training, settings)
    task = open_task(editor, trained, store, encoding_dtype(training))
    task.encode(units_read(task, training), rank=rank_on_machine(), ranks=ranks_on_machine())
    distributed.barrier()  # what other ranks encode is there
    finished = train(task, training, job.checkpoints, facts=job.facts)
    if distributed.get_rank() == 0:
        if spread:  # it is written from main memory, where it is whole
            editor = open_editor(job.editor, device="cpu", dtype=whole_dtype, encoder_dtype=frozen_dtype(training))
        put_state(editor.network, load_file(finished.state))
        editor.save(job.output / "editor")
        show(editor, task)
        write_json(job.output / HISTORY_FILE, finished.history)
        write_json(job.output / "evaluations.json", finished.history["evaluations"])
