"""Settings of the claims' measurements: sizes and training presets. The module does not import torch."""

from collections.abc import Callable
from typing import Any

from pydantic import BaseModel, Field

from editloop.settings_file import FrozenModel
from editloop.training.editor_dpo.settings import read_dpo_preset
from editloop.training.editor_rl.settings import read_rl_preset
from editloop.training.editor_sft.settings import read_sft_preset

PRESETS: dict[str, Callable[[str], BaseModel]] = {
    "rl_preset": read_rl_preset,
    "sft_preset": read_sft_preset,
    "dpo_preset": read_dpo_preset,
}
"""Settings that name a preset or a YAML file, with the functions that read them."""


class ClaimsSettings(FrozenModel):
    """Settings of the measurements. With the defaults, an hour on two cores is enough for three seeds."""

    tasks: int = Field(430, ge=20)
    """Drawn tasks that experts rate: 70 % for training, 10 % for validation, 20 % held out."""
    few_tasks: int = Field(12, ge=10)
    """Tasks of the weak reward of few labels, the first ones; more if the training or validation split has no pairs."""
    reward_epochs: int = Field(4, ge=1)
    """Epochs of every EditReward training; the preset has 8."""
    score_epochs: int = Field(2, ge=1)
    """Epochs of the EditScore training; the preset has 4."""
    passes: int = Field(4, ge=2)
    """K of Avg@K."""
    prompts: int = Field(400, ge=4)
    """Training tasks of RL."""
    held_out: int = Field(1000, ge=4)
    """Held-out tasks on which editors are compared."""
    steps: int = Field(8, ge=1)
    """Sampling steps wherever an editor is measured."""
    rl_preset: str = "claims"
    """Preset of every RL run: a shipped name or a YAML file."""
    rl_iterations: int = Field(0, ge=0)
    """Iterations of an RL run; 0: the preset's."""
    disagreeing_tasks: int = Field(1000, ge=20)
    """Drawn tasks of the world whose axes disagree, split like `tasks`."""
    disagreeing_labels: int = Field(120, ge=10)
    """Of these, the first ones: the tasks that experts label for training."""
    disagreeing_epochs: int = Field(12, ge=1)
    """Epochs of the trainings on them. With few labels, four epochs leave every design half trained."""
    first_labels: int = Field(40, ge=10)
    """Tasks that teach the first round's reward."""
    second_labels: int = Field(160, ge=10)
    """Tasks that experts label for the second round."""
    second_pool: int = Field(320, ge=10)
    """Tasks with edits of the tuned editor, of which the second round's are chosen."""
    round_iterations: int = Field(20, ge=0)
    """Iterations of the RL of a round; 0: the preset's."""
    best_of_tasks: int = Field(200, ge=4)
    """Held-out tasks of the best-of-N curves, 16 edits each."""
    triples: int = Field(1200, ge=16)
    """Noisy triples from which curation selects."""
    sft_preset: str = "tiny"
    """Preset of every supervised fine-tuning: a shipped name or a YAML file."""
    dpo_preset: str = "tiny"
    """Preset of every training on pairs: a shipped name or a YAML file."""

    def of(self, names: tuple[str, ...]) -> dict[str, Any]:
        """Return settings as JSON values, for a piece's content address. Presets are given by their content.

        Args:
            names: Names of the settings.
        """
        return {name: self._as_json(name) for name in names}

    def _as_json(self, name: str) -> Any:
        if name in PRESETS:
            preset: BaseModel = PRESETS[name](getattr(self, name))
            return preset.model_dump(mode="json", exclude_unset=True)
        return getattr(self, name)


STANDARD = ClaimsSettings()
SMALLEST = ClaimsSettings(
    tasks=60,
    few_tasks=12,
    reward_epochs=1,
    score_epochs=1,
    passes=2,
    prompts=16,
    held_out=24,
    rl_preset="smallest",
    disagreeing_tasks=60,
    disagreeing_labels=20,
    disagreeing_epochs=1,
    first_labels=12,
    second_labels=20,
    second_pool=30,
    round_iterations=2,
    best_of_tasks=8,
    triples=32,
    sft_preset="smallest",
    dpo_preset="smallest",
)
"""The smallest settings: they check that all parts work, and measure nothing."""
SIZES = {"standard": STANDARD, "smallest": SMALLEST}
