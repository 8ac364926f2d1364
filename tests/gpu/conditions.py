"""What every row gets, and what it gives back."""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import torch

from tests.gpu.machine import device

Figures = dict[str, float | str | None]
"""A row's figures by the names of `tests.gpu.page.LABELS`."""


class Conditions(NamedTuple):
    """Where a row runs."""

    tiny: bool
    """Tiny sizes, for any CPU."""
    folder: Path
    """Scratch space of the row's own."""

    @property
    def device(self) -> torch.device:
        return device()

    @property
    def dtype(self) -> torch.dtype:
        """Of the models."""
        return torch.bfloat16


class OutOfBoundsError(Exception):
    """A row was measured, and figures of it differ more than they may."""

    def __init__(self, figures: Figures, bounds: Mapping[str, float]):
        """figures: all of the row's; bounds: the largest that those named may be."""
        self.figures = figures
        wrong = [f"{name} is {figures[name]:.2g}, more than {bounds[name]:g}" for name in broken(figures, bounds)]
        super().__init__("; ".join(wrong))


def broken(figures: Figures, bounds: Mapping[str, float]) -> list[str]:
    """Names of the figures that are above their bounds, or not numbers."""
    return [name for name, bound in bounds.items() if not _within(figures[name], bound)]


def checked(figures: Figures, bounds: Mapping[str, float]) -> Figures:
    """The figures; OutOfBoundsError where one is above its bound."""
    if broken(figures, bounds):
        raise OutOfBoundsError(figures, bounds)
    return figures


def _within(value: float | str | None, bound: float) -> bool:
    return isinstance(value, float) and value <= bound
