"""Protocol through which the training loop sees a model and its data."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple, Protocol

from torch import Tensor, nn

Split = Literal["train", "validation"]


class Batch(NamedTuple):
    """Units that go through the model at once. Threads make them on the CPU while the model trains."""

    tensors: dict[str, Tensor]
    """Tensors by name. The loop moves them to the rank's device before it calls `loss` and `measure`."""
    weight: float
    """Weight of the batch's mean loss among the batches of the same step, such as its number of pairs or answer
    tokens."""
    edits: int
    """Number of edits in the batch, for the throughput. 0 where the batch only fills a pass."""


class ParameterGroup(NamedTuple):
    """Trainable parameters that share a learning rate."""

    parameters: Iterable[nn.Parameter]
    share: float
    """Learning rate as a share of the settings' peak, 0..1."""


class TrainingTask(Protocol):
    """A model and its data. It is the same on every rank, and nothing in it depends on the rank.

    `batch` must always return the same for the same units, so that a resumed training repeats the same draws.
    """

    @property
    def model(self) -> nn.Module:
        """The model. Frozen parameters have requires_grad False."""

    def parameter_groups(self) -> list[ParameterGroup]:
        """Return all trainable parameters, each in one group."""

    def count(self, split: Split) -> int:
        """Return the number of units in a split.

        Args:
            split: The split.
        """

    def name(self, split: Split, unit: int) -> str:
        """Return a unit's name for error messages.

        Args:
            split: The split.
            unit: The unit, 0..count - 1.
        """

    def batch(self, split: Split, units: Sequence[int]) -> Batch:
        """Return units as one batch.

        Several threads call it at once, so it must make no collective call and must not use the model's device.

        Args:
            split: The split.
            units: The units, at least one.
        """

    def loss(self, engine: Any, batch: Batch) -> Tensor:
        """Return the mean loss of a batch, a scalar with gradient.

        Args:
            engine: DeepSpeed's engine; calling it runs the model's forward pass.
            batch: A batch of the train split, on the rank's device.
        """

    def measure(self, engine: Any, batch: Batch) -> Mapping[str, Tensor | float]:
        """Return sums over a batch, by name, with the same names every time. Called without gradient.

        What was computed on the device stays there, as scalar tensors: the loop fetches the sums of all batches at
        once.

        Args:
            engine: DeepSpeed's engine; calling it runs the model's forward pass.
            batch: A batch of the validation split, on the rank's device.
        """

    def figures(self, sums: dict[str, float]) -> dict[str, float]:
        """Return figures of the whole validation split. `loss` is what the training lowers.

        Args:
            sums: Sums of `measure` over all batches and ranks.
        """
