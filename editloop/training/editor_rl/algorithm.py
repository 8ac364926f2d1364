"""Protocol through which the loop of online RL sees an algorithm, such as DiffusionNFT or Flow-GRPO.

An iteration samples edits, has them scored and computes advantages. The algorithm says with which weights and steps it
samples, and what the losses of the sampled edits are. Settings of each algorithm are in `algorithm_settings`.
"""

from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple, Protocol

from torch import Tensor

from editloop.training.editor_rl.rollout import Rollout, SamplingPlan


class Losses(NamedTuple):
    """Losses of n edits, (n,) each."""

    loss: Tensor
    figures: dict[str, Tensor]
    """Detached figures by name: those of `RlAlgorithm.figure_names`, and `kl` where the frozen editor was used."""


class UpdateLevel(Protocol):
    """A rollout at one level of an update: a noise level, or a step of the trajectory."""

    edits: Tensor | None
    """Which of the edits are trained at this level, bool (N,); None: all."""

    def losses(self, part: Tensor, advantage: Tensor) -> Losses:
        """Return the losses of some of the edits, with gradient.

        Args:
            part: Indices of the edits, (n,).
            advantage: Advantages of these edits, (n,).
        """


class RlAlgorithm(Protocol):
    """An RL algorithm in one training, on one rank. It is built around the editor and its trained weights.

    An algorithm that inherits from it samples with the trained weights along the ODE, and keeps nothing beside them.
    """

    levels: int
    """Number of levels of an update."""
    levels_per_edit: int
    """Number of those that each edit is trained at."""
    figure_names: tuple[str, ...] = ()
    """Names of the figures that its losses have, besides `kl`."""

    def sampling_plan(self, iteration: int) -> SamplingPlan:
        """Return how the edits of an iteration are sampled. Every rank gets the same.

        Args:
            iteration: The iteration, from 0.
        """
        return SamplingPlan()

    def sampling_weights(self) -> AbstractContextManager[None]:
        """Put the weights that edits are sampled with in the editor, for the time of the context."""
        return nullcontext()

    def update_levels(self, rollout: Rollout, iteration: int, *, with_base: bool) -> list[UpdateLevel]:
        """Return the levels of a rollout's update in order.

        A level computes what it needs besides the rewards when it is made, so that this can be done while they are
        awaited.

        Args:
            rollout: The edits, sampled by `sampling_plan` of the same iteration.
            iteration: The iteration, from 0.
            with_base: Whether to compute the distance to the frozen editor. Without it losses have no KL term, and no
                `kl` among their figures.
        """

    def finished_figures(self, means: dict[str, float]) -> dict[str, float]:
        """Return the figures of an update.

        Args:
            means: Means of the losses' figures over all edits and levels, by name.
        """
        return means

    def end_iteration(self, steps: int) -> None:
        """Do what follows the optimiser steps of each iteration.

        Args:
            steps: Optimiser steps of the training so far, those of iterations that taught nothing included.
        """
        return

    def state(self) -> dict[str, Tensor]:
        """Return the tensors that a checkpoint must hold besides the trained weights, by name.

        A training that continues copies the saved values into them.
        """
        return {}
