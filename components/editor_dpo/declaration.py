"""What stage editor_dpo is."""

from collections.abc import Sequence

from pydantic import Field

from editloop.datasets.splits import unread_shards
from editloop.lineage.stage import Stage, StageFile, StageParameters
from editloop.training.editor_dpo.settings import dpo_preset_names, read_dpo_preset


class EditorDpoParameters(StageParameters):
    """Parameters of stage editor_dpo."""

    editor: str = "tiny-editor"
    """The editor to start from: a diffusers folder, a shipped name, models:/editor@champion, or in a run form the name
    of a registered editor, which means its champion."""
    preset: str = "tiny"
    """Preset of the training: one shipped with `editloop.training.editor_dpo`, or the path of a YAML file."""
    updates: int = Field(0, ge=0)
    """Updates of the editor; 0 for the preset's."""
    learning_rate: float = Field(0.0, ge=0)
    """Peak learning rate; 0 for the preset's."""
    processes: int = Field(2, ge=1)
    """Processes (GPUs) that share the training."""
    seed: int = 0
    """Seed of batches and noise."""

    @classmethod
    def choices(cls) -> dict[str, Sequence[str]]:
        return {"preset": dpo_preset_names()}

    def check(self) -> None:
        read_dpo_preset(self.preset)


EDITOR_DPO = Stage(
    name="editor_dpo",
    title="Learn from the pairs",
    summary="Train the editor on the experts' pairs directly, by Diffusion-DPO.",
    parameters=EditorDpoParameters,
    inputs=(
        StageFile("dataset", "Preference pairs that stage dataset wrote.", skip=unread_shards("train", "validation")),
        StageFile("version", "The version that stage dataset wrote with them, a JSON file.", type="Artifact"),
    ),
    outputs=(StageFile("output", "The tuned editor and its curves.", "tuned", "Model"),),
    pipelines=("learn-from-pairs",),
    dataset_use="training",
    parts=("editor",),
)
