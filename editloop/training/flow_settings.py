"""Settings that supervised trainings of an editor by flow matching share: on target edits, and on pairs. No torch."""

from typing import Any, Literal, Self

from pydantic import Field, model_validator

from editloop.models.lora_settings import check_editor_adapter
from editloop.training.editor_settings import EditorTrainingSettings
from editloop.training.job import JobFile
from editloop.training.settings import TrainingSettings


class FlowSettings(EditorTrainingSettings):
    """Settings of a training by flow matching."""

    training: TrainingSettings
    noise_levels: Literal["uniform", "logit-normal"] = "uniform"
    """Distribution of noise levels: uniform, or with more weight in the middle (arXiv 2403.03206)."""
    shift: float = Field(1.0, gt=0)
    """Factor that shifts noise levels towards noise, as larger images need; 1 leaves them as drawn."""
    guidance: float = Field(1.0, ge=1)
    """Guidance scale that an editor with embedded guidance receives during training."""

    @model_validator(mode="after")
    def _adapter_fits(self) -> Self:
        check_editor_adapter(self.training.adapter, self.targets)
        if self.training.zero_stage == 3 and self.training.adapter:
            raise ValueError("zero_stage 3 with an adapter: it is for all weights; take 0 to 2, or adapter: null")
        return self

    def changed(self, *, steps: int = 0, learning_rate: float = 0.0, seed: int = 0) -> Self:
        """Return the settings with a stage's parameters in them.

        Args:
            steps: Optimiser steps in place of the preset's `epochs` or `steps`; 0 keeps the preset's.
            learning_rate: Learning rate in place of the preset's; 0 keeps the preset's.
            seed: Seed, always in place of the preset's.
        """
        changes: dict[str, Any] = {"seed": seed}
        if steps:
            changes |= {"epochs": None, "steps": steps}
        if learning_rate:
            changes["learning_rate"] = learning_rate
        training = TrainingSettings.model_validate(self.training.model_dump() | changes)
        return self.model_copy(update={"training": training})


class FlowJob(JobFile):
    """Job file of a training by flow matching. `output` gets `editor/` and `training.json`."""

    editor: str
    """Editor that the training starts from: a pipeline's folder, or the name of a shipped editor."""
    facts: dict[str, Any]
    """What the editor is trained on. A checkpoint with other facts belongs to another training."""
