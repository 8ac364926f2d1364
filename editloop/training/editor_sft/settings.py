"""How an editor is fine-tuned on edits that are taken for right, and what the ranks are told. Light: no torch."""

from importlib.resources import files
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from editloop.settings_file import find_preset, preset_names, read_settings
from editloop.training.job import JobFile
from editloop.training.settings import TrainingSettings

PRESETS = Path(str(files("editloop.training.editor_sft"))) / "presets"
"""Those that ship."""


class SftSettings(BaseModel):
    """One supervised fine-tuning by flow matching. A unit of its training is a task with its right edit."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    training: TrainingSettings
    targets: tuple[str, ...] = ()
    """Ends of the names of the layers that the adapter goes to; none: the editor's own."""
    levels: Literal["uniform", "logit-normal"] = "uniform"
    """How noise levels are drawn: each alike, or the middle more often (arXiv 2403.03206)."""
    shift: float = Field(1.0, gt=0)
    """Noise levels are moved towards noise by this factor, as larger pictures ask for; 1: as drawn."""
    guidance: float = Field(1.0, ge=1)
    """Guidance that an editor with embedded guidance is told while it is trained."""
    held_out: float = Field(0.05, gt=0, lt=0.5)
    """Share of the source pictures that the best state is chosen by."""

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.training.adapter is None and self.targets:
            raise ValueError(f"targets {', '.join(self.targets)} without an adapter: all weights are trained; drop one")
        if self.training.adapter is not None and self.training.adapter.dropout:
            raise ValueError(
                f"adapter.dropout {self.training.adapter.dropout}: editors' adapters have none; set it to 0"
            )
        if self.training.zero_stage == 3:
            raise ValueError("zero_stage 3 spreads weights that are saved whole here; take 0 to 2")
        if self.training.gradient_checkpointing:
            raise ValueError("gradient_checkpointing: not for editors; set it to false and take a smaller micro_batch")
        return self

    def changed(self, *, steps: int = 0, learning_rate: float = 0.0, seed: int = 0) -> "SftSettings":
        """With a stage's own words in them; 0 leaves what the preset says."""
        changes: dict[str, Any] = {"seed": seed}
        if steps:
            changes |= {"epochs": None, "steps": steps}
        if learning_rate:
            changes["learning_rate"] = learning_rate
        training = TrainingSettings.model_validate(self.training.model_dump() | changes)
        return self.model_copy(update={"training": training})


class SftJob(JobFile):
    """What the ranks are told, by file; `output` gets `editor/` and `training.json`."""

    edits: Path
    """Edits folder whose targets are learnt."""
    editor: str
    """What it starts from: a pipeline's folder, or the name of an editor that ships."""
    settings: SftSettings
    facts: dict[str, Any]
    """What it is trained on: a checkpoint of other facts is another training's."""


def sft_presets() -> list[str]:
    """Return the names of the presets that ship, sorted."""
    return preset_names(PRESETS)


def read_sft_preset(name: str) -> SftSettings:
    """Read a preset of supervised fine-tuning.

    Args:
        name: The name of a shipped preset, or the path of a YAML file.

    Raises:
        EditLoopError: There is no such preset, or it is not valid.
    """
    return read_settings(SftSettings, find_preset(name, PRESETS, "preset"), "preset")
