"""How a model is trained: the same settings for EditReward and EditScore. Light: no torch."""

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from editloop.models.lora_settings import LoraSettings


class TrainingSettings(BaseModel):
    """One training, whatever the model. A unit is what the model's lesson counts: a group for EditReward, a row for
    EditScore."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    epochs: int | None = Field(None, ge=1)
    """Passes over the training units. Give this or `steps`."""
    steps: int | None = Field(None, ge=1)
    """Optimiser steps. Give this or `epochs`."""
    batch: int = Field(8, ge=1)
    """Units an optimiser step, over all ranks; a step's gradient does not depend on how many ranks share it."""
    micro_batch: int | None = Field(None, ge=1)
    """Units that a rank takes through the model at a time; gradients are accumulated until the batch is whole.
    null: a rank's whole share at once."""

    learning_rate: float = Field(gt=0)
    """Peak; a group of parameters may take a share of it."""
    backbone_share: float = Field(1.0, gt=0, le=1)
    """The backbone's learning rate as a share of the peak, where heads that start from nothing are trained with it."""
    schedule: Literal["cosine", "constant"] = "cosine"
    """After the warm-up: down to 0 along half a cosine, or level."""
    warmup: float = Field(0.1, ge=0, lt=1)
    """Share of the steps in which the learning rate rises linearly to its peak."""
    weight_decay: float = Field(0.0, ge=0)
    clip: float = Field(1.0, gt=0)
    """Largest norm of the gradient over all parameters; a larger one is scaled down."""
    adapter: LoraSettings | None = None
    """Train a low-rank adapter; null trains all weights."""

    zero_stage: Literal[0, 1, 2, 3] = 2
    """What DeepSpeed's ZeRO spreads over the ranks: 1 the optimiser's states, 2 also gradients, 3 also weights."""
    offload: Literal["none", "optimizer", "parameters"] = "none"
    """What lies in main memory instead of the GPU's: the optimiser's states, or these and the weights."""
    precision: Literal["fp32", "bf16", "auto"] = "auto"
    """Of the pass through the model; masters and optimiser states are fp32. auto: bf16 on a GPU, fp32 on a CPU."""
    gradient_checkpointing: bool = False
    """Keep only the layers' inputs and compute the rest anew on the way back: less memory, about a third more time."""

    evaluate_every: int | None = Field(None, ge=1)
    """Steps between two looks at the validation units; null: once an epoch. The best state is what is kept."""
    patience: int | None = Field(None, ge=1)
    """Stop after this many looks without a lower validation loss; null: never."""
    checkpoint_every: int | None = Field(None, ge=1)
    """Steps between two checkpoints; null: once an epoch."""
    keep: int = Field(2, ge=1)
    """Checkpoints kept; older ones go."""
    seed: int = 0
    """Of the order of units, of dropout and of new weights."""

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if (self.epochs is None) == (self.steps is None):
            raise ValueError(f"epochs {self.epochs} and steps {self.steps}: give exactly one of them")
        if self.micro_batch is not None and self.micro_batch > self.batch:
            raise ValueError(f"micro_batch {self.micro_batch} is above batch {self.batch}: at most the batch's units")
        if self.offload == "optimizer" and self.zero_stage == 0:
            raise ValueError(
                "offload optimizer with zero_stage 0: ZeRO moves states that it manages; take stage 1 to 3"
            )
        if self.offload == "parameters" and self.zero_stage != 3:
            raise ValueError(f"offload parameters with zero_stage {self.zero_stage}: only stage 3 spreads weights")
        return self

    def accumulation(self, ranks: int, units: int) -> tuple[int, int]:
        """(micro batch, passes a rank makes for one step) for `ranks` ranks and `units` training units in all."""
        share = -(-min(self.batch, units) // ranks)
        micro = min(self.micro_batch or share, share)
        return micro, -(-share // micro)
