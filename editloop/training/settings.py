"""Settings of trainings: those that every training has, and those of supervised training. Imports no torch."""

from typing import Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from editloop.models.lora_settings import LoraSettings
from editloop.settings_file import FrozenModel


class RunSettings(FrozenModel):
    """Settings that every training has, supervised or online RL."""

    SAME_RESULT: ClassVar[frozenset[str]] = frozenset(
        {"checkpoints_kept", "checkpoint_every", "gradient_checkpointing", "zero_stage"}
    )
    """Settings that are not part of a training's identity, because they do not change its result. Between a stopped
    call and the one that continues it, all but `zero_stage` may change; checkpoints refuse another ZeRO stage."""

    learning_rate: float = Field(gt=0)
    """Peak learning rate. A group of parameters may take a share of it."""
    weight_decay: float = Field(0.0, ge=0)
    gradient_clip: float = Field(1.0, gt=0)
    """Largest norm of the gradient over all parameters. A larger gradient is scaled down to it."""
    adapter: LoraSettings | None = None
    """Low-rank adapter to train; null trains all weights."""
    zero_stage: Literal[0, 1, 2, 3] = 2
    """What DeepSpeed's ZeRO spreads over the ranks: 1 optimiser states, 2 also gradients, 3 also weights."""
    precision: Literal["fp32", "bf16", "auto"] = "auto"
    """Precision of the passes through the model. Masters and optimiser states are fp32. auto: bf16 on a GPU, fp32 on a
    CPU."""
    gradient_checkpointing: bool = False
    """Keep only the layers' inputs and recompute the rest in the backward pass: less memory, about a third more
    time."""
    evaluate_every: int | None = Field(None, ge=1)
    """Steps between two evaluations on the validation units; null: once per epoch. The best state is the one that is
    kept."""
    checkpoint_every: int | None = Field(None, ge=1)
    """Steps between two checkpoints; null: once per epoch."""
    checkpoints_kept: int = Field(2, ge=1)
    """Number of newest checkpoints to keep."""
    seed: int = 0
    """Seed of the order of units, of dropout and of new weights."""

    def identity(self) -> dict[str, Any]:
        """Return the settings that change the training's result, as JSON."""
        return self.model_dump(mode="json", exclude=set(self.SAME_RESULT))


class TrainingSettings(RunSettings):
    """Settings of one supervised training.

    A unit is what the model's training task counts: a group for EditReward, a row for EditScore, a task for supervised
    fine-tuning of an editor.
    """

    SAME_RESULT: ClassVar[frozenset[str]] = RunSettings.SAME_RESULT | {"micro_batch", "offload", "loader_threads"}

    epochs: int | None = Field(None, ge=1)
    """Passes over the training units. Give either this or `steps`."""
    steps: int | None = Field(None, ge=1)
    """Optimiser steps. Give either this or `epochs`."""
    batch: int = Field(8, ge=1)
    """Units per optimiser step, over all ranks. A step's gradient does not depend on the number of ranks."""
    micro_batch: int | None = Field(None, ge=1)
    """Units that a rank takes through the model at a time. Gradients are accumulated until the batch is complete. null:
    a rank's whole share at once."""
    backbone_share: float = Field(1.0, gt=0, le=1)
    """The backbone's learning rate as a share of the peak, where new heads are trained with it."""
    schedule: Literal["cosine", "constant"] = "cosine"
    """Learning rate after the warm-up: half a cosine down to 0, or constant."""
    warmup: float = Field(0.1, ge=0, lt=1)
    """Share of the steps in which the learning rate rises linearly to its peak."""
    offload: Literal["none", "optimizer", "parameters"] = "none"
    """What is kept in main memory instead of the GPU's: the optimiser states, or these and the weights."""
    loader_threads: int | None = Field(None, ge=1)
    """Threads of a rank that read, decode and scale images while the model trains. null: the rank's share of the
    machine's processors, at most 4."""
    frozen_embeddings: bool = False
    """Leave a judge's token embeddings as they are when all weights are trained, and the output layer that is tied to
    them. The optimiser then has no states for them: 12 bytes for each of their weights."""
    patience: int | None = Field(None, ge=1)
    """Evaluations without a lower validation loss after which the training stops; null: it never stops early."""

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if (self.epochs is None) == (self.steps is None):
            raise ValueError(f"epochs {self.epochs} and steps {self.steps}: give exactly one of them")
        if self.micro_batch is not None and self.micro_batch > self.batch:
            raise ValueError(f"micro_batch {self.micro_batch} is above batch {self.batch}: at most the batch's units")
        if self.frozen_embeddings and self.adapter is not None:
            raise ValueError("frozen_embeddings with an adapter: an adapter freezes them anyway; leave it out")
        if self.offload == "optimizer" and self.zero_stage == 0:
            raise ValueError(
                "offload optimizer with zero_stage 0: ZeRO moves states that it manages; take stage 1 to 3"
            )
        if self.offload == "parameters" and self.zero_stage != 3:
            raise ValueError(f"offload parameters with zero_stage {self.zero_stage}: only stage 3 spreads weights")
        return self

    def accumulation(self, ranks: int, units: int) -> tuple[int, int]:
        """Return how a step is split into passes.

        Args:
            ranks: Number of ranks.
            units: Number of training units.

        Returns:
            The units per pass, and the passes that a rank makes for a step.
        """
        share = -(-min(self.batch, units) // ranks)
        micro = min(self.micro_batch or share, share)
        return micro, -(-share // micro)
