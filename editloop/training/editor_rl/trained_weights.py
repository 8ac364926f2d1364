"""The trained parameters of an editor, their moving averages, and the exchange of their values with others."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from torch import Tensor, nn


class TrainedWeights:
    """The trained parameters, and the exchange of their values with others."""

    def __init__(self, trained: Sequence[nn.Parameter]):
        """Take the parameters.

        Args:
            trained: The trained parameters.
        """
        self.trained = list(trained)

    def copy(self) -> list[Tensor]:
        """Return a copy of the parameters' values."""
        return [parameter.detach().clone() for parameter in self.trained]

    def swap(self, others: list[Tensor]) -> None:
        """Exchange the parameters' values with others, in place. A second call restores both.

        Args:
            others: A value per parameter.
        """
        for index, parameter in enumerate(self.trained):
            parameter.data, others[index] = others[index], parameter.data

    @contextmanager
    def swapped(self, others: list[Tensor]) -> Iterator[None]:
        """Exchange the parameters' values with others for the time of the context.

        Args:
            others: A value per parameter.
        """
        self.swap(others)
        try:
            yield
        finally:
            self.swap(others)

    def ema_update(self, averages: list[Tensor], decay: float) -> None:
        """Update moving averages in place: decay * average + (1 - decay) * parameter.

        Args:
            averages: An average per parameter.
            decay: Decay, 0..1.
        """
        for average, parameter in zip(averages, self.trained, strict=True):
            average.lerp_(parameter.detach(), 1 - decay)
