"""Settings and job file of an editor's supervised fine-tuning on target edits. Imports no torch."""

from pathlib import Path

from pydantic import Field

from editloop.settings_file import find_preset, preset_names, read_settings
from editloop.training.flow_settings import FlowJob, FlowSettings

PRESETS = Path(__file__).with_name("presets")
"""Those that ship."""


class SftSettings(FlowSettings):
    """Settings of one supervised fine-tuning by flow matching. A unit is a task with its target."""

    held_out: float = Field(0.05, gt=0, lt=0.5)
    """Share of the tasks that is held out to choose the best state, by whole source images."""


class SftJob(FlowJob):
    """Job file of a fine-tuning, which its ranks read. `output` gets `editor/` and `training.json`."""

    edits: Path
    """Edits folder whose targets are learnt."""
    settings: SftSettings


def sft_preset_names() -> list[str]:
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
