"""Settings and job file of an editor's training on pairs of edits, by Diffusion-DPO. Imports no torch."""

from pathlib import Path
from typing import Self

from pydantic import Field, model_validator

from editloop.settings_file import find_preset, preset_names, read_settings
from editloop.training.flow_settings import FlowJob, FlowSettings

PRESETS = Path(__file__).with_name("presets")
"""Those that ship."""


class DpoSettings(FlowSettings):
    """Settings of one training on pairs. A unit is a pair: a task, the edit that experts prefer, and the other one."""

    beta: float = Field(2000.0, gt=0)
    """Strength of the tie to the frozen base. The larger, the smaller the change that satisfies a pair. It multiplies
    mean squared errors of velocities, and so is in the thousands."""
    sft_weight: float = Field(0.0, ge=0)
    """Weight of the flow-matching loss of the preferred edit beside the pair's loss. Pairs alone may be satisfied by an
    editor that makes both edits less likely (arXiv 2410.08847); this term keeps it at the preferred ones."""
    least_confidence: float = Field(0.5, ge=0.5, le=1)
    """Lowest probability of a pair's order, as the dataset has it; pairs below are left out."""
    evaluation_pairs: int = Field(64, ge=1)
    """Most held-out pairs that an evaluation measures, and most pairs of the training beside them."""
    sheet_tasks: int = Field(8, ge=0)
    """Held-out tasks on the contact sheet; 0 for no sheet."""
    sheet_steps: int = Field(8, ge=1)
    """Denoising steps of an edit on the contact sheet."""

    @model_validator(mode="after")
    def _reference_at_hand(self) -> Self:
        if self.training.zero_stage == 3:
            raise ValueError(
                "zero_stage 3: every step also asks the frozen base, whose weights each rank needs whole; take 0 to 2"
            )
        return self


class DpoJob(FlowJob):
    """Job file of a training on pairs, which its ranks read. `output` gets `editor/` and `training.json`."""

    dataset: Path
    """Dataset folder of preferences."""
    settings: DpoSettings


def dpo_preset_names() -> list[str]:
    """Return the names of the presets that ship, sorted."""
    return preset_names(PRESETS)


def read_dpo_preset(name: str) -> DpoSettings:
    """Read a preset of training on pairs.

    Args:
        name: The name of a shipped preset, or the path of a YAML file.

    Raises:
        EditLoopError: There is no such preset, or it is not valid.
    """
    return read_settings(DpoSettings, find_preset(name, PRESETS, "preset"), "preset")
