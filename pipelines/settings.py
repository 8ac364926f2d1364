"""The settings of one turn of the loop. Their values stand in `params.yaml`, which `dvc repro` reads too."""

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from editloop.settings_file import read_settings

PARAMS = Path(__file__).with_name("params.yaml")
"""The project's params.yaml, by a link that a package carries along."""


class _StrictModel(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Scenes(_StrictModel):
    """How many drawn scenes a demo without an input file works on."""

    train: int = Field(ge=1)
    """Tasks that experts judge."""
    stand_ins: int = Field(ge=1)
    """Edits of simulated third-party editors beside the editor's own, in each task that experts judge."""
    prompts: int = Field(ge=1)
    """Tasks that the editor practises on."""
    heldout: int = Field(ge=1)
    """Tasks that base and tuned editor are compared on; 600 and more give an interval worth reading."""


class Candidates(_StrictModel):
    editor: str
    """Who makes the edits: a diffusers folder, a shipped name, or models:/editor@champion."""
    per_task: int = Field(ge=1)
    """Edits a task; they are compared with each other, so pairs grow with the square."""
    steps: int = Field(ge=1)
    """Denoising steps of an edit."""


class Annotate(_StrictModel):
    annotators: tuple[str, ...]
    """Account names of the experts."""
    overlap: int = Field(ge=1)
    """How many of them judge each task; agreement needs two or more."""
    lead: str
    """Account name of who decides tasks in conflict; empty: nobody does."""
    candidates_per_task: int = Field(ge=0)
    """Candidates on a page, 2 to 7; 0 shows all."""
    gold_share: float = Field(ge=0, le=0.5)
    """Pages with a known answer for each task, made where tasks have a target."""
    repeat_share: float = Field(ge=0, le=0.5)
    """Pages asked a second time for each task, in another order."""
    guidelines: str
    """What annotators read first, Markdown; empty for the usual guidelines."""
    alpha_if: float = Field(ge=-1, le=1)
    """Lowest agreement on instruction following at which a campaign closes by itself; 0 for no gate."""
    alpha_vq: float = Field(ge=-1, le=1)
    """The same for visual quality."""


class Reward(_StrictModel):
    preset: str
    """Model and training: a name (`editloop plan` lists them), or the path of a YAML file."""
    base: str
    """Model to start from, a folder or a shipped name; empty for the preset's."""
    epochs: int = Field(ge=0)
    """Passes over the training pairs; 0 for the preset's. What is best on the validation pairs is kept."""
    learning_rate: float = Field(ge=0)
    """Peak learning rate; 0 for the preset's."""
    processes: int = Field(ge=1)
    """Processes (GPUs) that share the training."""


class Benchmark(_StrictModel):
    gate: str
    """What is asked before a model is promoted: a shipped gate (reward, open), or the path of a YAML file."""


class Curate(_StrictModel):
    order: str
    """best: the edits with the highest scores; random: the control that shows what scores are worth."""
    best: int = Field(ge=0)
    """How many edits to keep, one a task; 0 for as many as there are."""
    threshold: float
    """The lowest score to keep, on the scale of the judge's `overall`; 0 for none."""
    uncertainty: float = Field(ge=0)
    """How many standard deviations are taken off each score."""


class EditorSft(_StrictModel):
    editor: str
    """The editor to start from."""
    preset: str
    """How it is trained: a shipped preset of components/editor_sft, or the path of a YAML file."""
    steps: int = Field(ge=0)
    """Updates of the editor; 0 for the preset's."""
    learning_rate: float = Field(ge=0)
    """Peak learning rate; 0 for the preset's."""
    processes: int = Field(ge=1)
    """Processes (GPUs) that share the training."""


class EditorRl(_StrictModel):
    editor: str
    """The editor to start from."""
    preset: str
    """How it is trained: a shipped preset of components/editor_rl, or the path of a YAML file."""
    iterations: int = Field(ge=0)
    """Updates of the editor; 0 for the preset's."""
    tasks: int = Field(ge=0)
    """Tasks an update; 0 for the preset's."""
    members: int = Field(ge=0)
    """Edits a task, which are compared with each other; 0 for the preset's."""
    learning_rate: float = Field(ge=0)
    """Learning rate; 0 for the preset's."""
    watch: str
    """Judges that do not teach, addresses with spaces between, `oracle` where every task has a target; empty for none.
    The training is stopped when they fall while the reward rises."""
    processes: int = Field(ge=1)
    """Processes (GPUs) that share the training."""


class EditorEval(_StrictModel):
    samples: int = Field(ge=1)
    """Edits a task, with the same noise for both editors."""
    steps: int = Field(ge=1)
    """Denoising steps of an edit."""
    gate: str
    """What is asked before an editor is promoted: a shipped gate (editor, open), or the path of a YAML file."""


class LoopSettings(_StrictModel):
    """Everything that a run of the loop can be told; the key of a part is its stage's name."""

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
    """The settings with some values of some parts changed."""
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
"""Sizes of a turn. `smallest` shows that all parts work together; its gates pass whatever comes."""
