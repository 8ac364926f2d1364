"""What stage reward is."""

from collections.abc import Sequence

from pydantic import Field

from editloop.datasets.splits import unread_shards
from editloop.lineage.stage import Stage, StageFile, StageParameters
from editloop.training.presets import load_preset, reward_presets


class RewardParameters(StageParameters):
    """Parameters of stage reward."""

    preset: str = "editreward-tiny"
    """Preset of model and training: a shipped name (`editloop plan` lists them), or the path of a YAML file."""
    base: str = ""
    """Model to start from, a folder or a shipped name; empty for the preset's."""
    epochs: int = Field(0, ge=0)
    """Passes over the training pairs; 0 for the preset's. The state that is best on the validation pairs is kept."""
    learning_rate: float = Field(0.0, ge=0)
    """Peak learning rate; 0 for the preset's."""
    processes: int = Field(2, ge=1)
    """Processes (GPUs) that share the training."""
    seed: int = 0
    """Seed of the order and of new weights."""

    @classmethod
    def choices(cls) -> dict[str, Sequence[str]]:
        return {"preset": reward_presets()}

    def check(self) -> None:
        load_preset(self.preset)


REWARD = Stage(
    name="reward",
    title="Train the reward model",
    summary="Train the reward model on the preferences.",
    parameters=RewardParameters,
    inputs=(
        StageFile(
            "dataset",
            "Preference pairs that stage dataset wrote, or `editloop teacher import`.",
            skip=unread_shards("train", "validation"),
        ),
    ),
    outputs=(StageFile("output", "The trained reward model.", "model", "Model"),),
    pipelines=("train-reward",),
    dataset_use="training",
)
