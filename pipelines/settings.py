"""Settings of one turn of the loop. Their values are in `params.yaml`, which `dvc repro` reads too."""

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from editloop.settings_file import read_settings

PARAMS = Path(__file__).with_name("params.yaml")
"""The project's params.yaml, by a link that is part of the installed package."""


class _StrictModel(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Scenes(_StrictModel):
    """Numbers of drawn scenes in a demo without an edits file."""

    train: int = Field(ge=1)
    """Tasks that experts judge."""
    stand_ins: int = Field(ge=1)
    """Edits by simulated third-party editors, beside the editor's own, in each task that experts judge."""
    prompts: int = Field(ge=1)
    """Tasks that the editor practises on."""
    heldout: int = Field(ge=1)
    """Tasks on which base and tuned editor are compared; the interval is narrow enough to be useful from 600 on."""


class Candidates(_StrictModel):
    """Settings of stage candidates."""

    editor: str
    """The editor: a diffusers folder, a shipped name, or models:/editor@champion."""
    per_task: int = Field(ge=1)
    """Edits per task. They are compared with each other, so the number of pairs grows with the square."""
    steps: int = Field(ge=1)
    """Denoising steps of an edit."""


class Annotate(_StrictModel):
    """Settings of stage annotate."""

    annotators: tuple[str, ...]
    """Account names of the experts."""
    overlap: int = Field(ge=1)
    """Number of experts who judge each task; agreement needs two or more."""
    lead: str
    """Account name of the lead, who decides tasks in conflict; empty for none."""
    candidates_per_task: int = Field(ge=0)
    """Candidates on a page, 2 to 7; 0 shows all."""
    gold_share: float = Field(ge=0, le=0.5)
    """Gold pages (pages with a known answer) per task, made where tasks have a target."""
    repeat_share: float = Field(ge=0, le=0.5)
    """Pages per task that are repeated, with the candidates in another order."""
    guidelines: str
    """Guidelines for annotators, in Markdown; empty for the default ones."""
    alpha_if: float = Field(ge=-1, le=1)
    """Lowest agreement on instruction following at which a campaign closes by itself; 0 for no gate."""
    alpha_vq: float = Field(ge=-1, le=1)
    """The same for visual quality."""


class Reward(_StrictModel):
    """Settings of stage reward."""

    preset: str
    """Preset of model and training: a shipped name (`editloop plan` lists them), or the path of a YAML file."""
    base: str
    """Model to start from, a folder or a shipped name; empty for the preset's."""
    epochs: int = Field(ge=0)
    """Passes over the training pairs; 0 for the preset's. The state that is best on the validation pairs is kept."""
    learning_rate: float = Field(ge=0)
    """Peak learning rate; 0 for the preset's."""
    processes: int = Field(ge=1)
    """Processes (GPUs) that share the training."""


class Benchmark(_StrictModel):
    """Settings of stage benchmark."""

    gate: str
    """The gate that a model must pass to be promoted: a shipped one (reward, open), or the path of a YAML file."""


class Curate(_StrictModel):
    """Settings of stage curate."""

    order: str
    """best: the edits with the highest scores; random: the control that shows how much the scores are worth."""
    best: int = Field(ge=0)
    """Number of edits to keep, at most one per task; 0 for all."""
    threshold: float
    """Lowest score to keep, on the scale of the judge's `overall`; 0 for no limit."""
    uncertainty: float = Field(ge=0)
    """Number of standard deviations to subtract from each score."""


class EditorSft(_StrictModel):
    """Settings of stage editor_sft."""

    editor: str
    """The editor to start from."""
    preset: str
    """Preset of the training: one shipped with `editloop.training.editor_sft`, or the path of a YAML file."""
    steps: int = Field(ge=0)
    """Updates of the editor; 0 for the preset's."""
    learning_rate: float = Field(ge=0)
    """Peak learning rate; 0 for the preset's."""
    processes: int = Field(ge=1)
    """Processes (GPUs) that share the training."""


class EditorRl(_StrictModel):
    """Settings of stage editor_rl."""

    editor: str
    """The editor to start from."""
    preset: str
    """Preset of the training: one shipped with `editloop.training.editor_rl`, or the path of a YAML file."""
    iterations: int = Field(ge=0)
    """Updates of the editor; 0 for the preset's."""
    tasks: int = Field(ge=0)
    """Tasks per update; 0 for the preset's."""
    members: int = Field(ge=0)
    """Edits per task, which are compared with each other; 0 for the preset's."""
    learning_rate: float = Field(ge=0)
    """Learning rate; 0 for the preset's."""
    watch: str
    """Addresses of judges that do not give rewards, separated by spaces; `oracle` where every task has a target. Empty
    for none. The training stops when their scores fall while the reward rises."""
    processes: int = Field(ge=1)
    """Processes (GPUs) that share the training."""


class EditorEval(_StrictModel):
    """Settings of stage editor_eval."""

    samples: int = Field(ge=1)
    """Edits per task and editor, with the same noise for both editors."""
    steps: int = Field(ge=1)
    """Denoising steps of an edit."""
    gate: str
    """The gate that an editor must pass to be promoted: a shipped one (editor, open), or the path of a YAML file."""


class LoopSettings(_StrictModel):
    """All settings of a turn of the loop. The settings of a stage are under its name."""

    seed: int
    """Seed of every stage."""
    scenes: Scenes
    candidates: Candidates
    annotate: Annotate
    reward: Reward
    benchmark: Benchmark
    curate: Curate
    editor_sft: EditorSft
    editor_rl: EditorRl
    editor_eval: EditorEval


def read_params(path: Path = PARAMS) -> LoopSettings:
    """Read the settings of a turn of the loop.

    Args:
        path: A YAML file with every key of `LoopSettings`.

    Raises:
        EditLoopError: The file cannot be read, or a key is missing, unknown or out of its range.
    """
    return read_settings(LoopSettings, path, "parameters")


def _changed(settings: LoopSettings, **parts: dict[str, Any]) -> LoopSettings:
    """Return the settings with some values of some parts replaced."""
    values = settings.model_dump()
    return LoopSettings.model_validate(values | {name: values[name] | change for name, change in parts.items()})


DEMO = read_params()
SMALLEST = _changed(
    DEMO,
    scenes={"train": 24, "prompts": 16, "heldout": 24},
    candidates={"per_task": 3, "steps": 4},
    annotate={"annotators": ("ada", "bo"), "gold_share": 0.05, "repeat_share": 0.05, "alpha_if": 0.0, "alpha_vq": 0.0},
    reward={"epochs": 1},
    benchmark={"gate": "open"},
    curate={"best": 16},
    editor_sft={"preset": "smallest", "processes": 1},
    editor_rl={"preset": "smallest", "processes": 1},
    editor_eval={"steps": 4, "gate": "open"},
)
PRESETS = {"demo": DEMO, "smallest": SMALLEST}
"""Sizes of a turn. `smallest` checks that all parts work together; its gates let every model pass."""
