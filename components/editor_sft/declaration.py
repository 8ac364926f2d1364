"""What stage editor_sft is."""

from collections.abc import Sequence

from pydantic import Field

from editloop.lineage.stage import Stage, StageFile, StageParameters
from editloop.training.editor_sft.settings import read_sft_preset, sft_preset_names


class EditorSftParameters(StageParameters):
    """Parameters of stage editor_sft."""

    editor: str = "tiny-editor"
    """The editor to start from: a diffusers folder, a shipped name, models:/editor@champion, or in a run form the name
    of a registered editor, which means its champion."""
    preset: str = "tiny"
    """Preset of the training: one shipped with `editloop.training.editor_sft`, or the path of a YAML file."""
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
        return {"preset": sft_preset_names()}

    def check(self) -> None:
        read_sft_preset(self.preset)


EDITOR_SFT = Stage(
    name="editor_sft",
    title="Fine-tune the editor",
    summary="Fine-tune the editor on curated edits by flow matching.",
    parameters=EditorSftParameters,
    inputs=(
        StageFile("edits", "The edits to learn, as stage curate wrote them.", "curated"),
        StageFile("version", "The version that stage curate wrote with them, a JSON file.", type="Artifact"),
    ),
    outputs=(StageFile("output", "The fine-tuned editor and its curves.", "tuned", "Model"),),
    pipelines=("curate-editor",),
    parts=("editor",),
)
