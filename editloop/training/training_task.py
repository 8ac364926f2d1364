"""What the training loop asks of a model and its data: one protocol for EditReward and EditScore."""

from collections.abc import Iterable, Sequence
from typing import Any, Literal, NamedTuple, Protocol

from torch import Tensor, nn

Split = Literal["train", "validation"]


class Batch(NamedTuple):
    """What goes through the model at once. Made on the CPU by a thread beside the training."""

    tensors: dict[str, Tensor]
    """Moved to the rank's device before `loss` and `measure` see them."""
    weight: float
    """How much the batch's mean loss counts beside other batches of the same step: its pairs, or answer tokens."""
    edits: int
    """Edits in it, for the throughput."""


class ParameterGroup(NamedTuple):
    """Trainable parameters that share a learning rate."""

    parameters: Iterable[nn.Parameter]
    share: float
    """Their learning rate as a share of the settings' peak, 0..1."""


class TrainingTask(Protocol):
    """A model and what it learns from. The same on every rank; nothing in it depends on the rank.

    `batch` must give the same for the same units, whenever it is called: a resumed training repeats no draw.
    """

    model: nn.Module
    """Frozen parameters have requires_grad False."""

    def parameter_groups(self) -> list[ParameterGroup]:
        """All trainable parameters, each once."""
        ...

    def count(self, split: Split) -> int:
        """Units of the split."""
        ...

    def name(self, split: Split, unit: int) -> str:
        """What people know a unit by: stands in errors."""
        ...

    def batch(self, split: Split, units: Sequence[int]) -> Batch:
        """The units, at least one, as one batch. Called by a thread: no collective, no use of the model's device."""
        ...

    def loss(self, engine: Any, batch: Batch) -> Tensor:
        """Mean loss of the batch, a scalar. `engine(...)` runs the model's forward (DeepSpeed's engine around it)."""
        ...

    def measure(self, engine: Any, batch: Batch) -> dict[str, float]:
        """Sums over a batch of the validation split, without gradient, the same keys every time."""
        ...

    def figures(self, sums: dict[str, float]) -> dict[str, float]:
        """Figures of the whole split from the sums over all its batches and ranks. `loss` is what training lowers."""
        ...
