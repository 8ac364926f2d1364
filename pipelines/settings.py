"""Settings of one turn of the loop. Their values are in `params.yaml`, which `dvc repro` reads too."""

from pathlib import Path
from typing import Any, Self

from pydantic import Field, model_validator

from components.annotate.declaration import AnnotateParameters
from components.benchmark.declaration import BenchmarkParameters
from components.candidates.declaration import CandidatesParameters
from components.curate.declaration import CurateParameters
from components.editor_dpo.declaration import EditorDpoParameters
from components.editor_eval.declaration import EditorEvalParameters
from components.editor_rl.declaration import EditorRlParameters
from components.editor_sft.declaration import EditorSftParameters
from components.reward.declaration import RewardParameters
from editloop.lineage.stage import StageParameters
from editloop.settings_file import read_settings

PARAMS = Path(__file__).with_name("params.yaml")
"""The project's params.yaml, by a link that is part of the installed package."""


class Scenes(StageParameters):
    """Numbers of drawn scenes in a demo without an edits file."""

    train: int = Field(ge=1)
    """Tasks that experts judge."""
    stand_ins: int = Field(ge=1)
    """Edits by simulated third-party editors, beside the editor's own, in each task that experts judge."""
    prompts: int = Field(ge=1)
    """Tasks that the editor practises on."""
    heldout: int = Field(ge=1)
    """Tasks on which base and tuned editor are compared; the interval is narrow enough to be useful from 600 on."""


class LoopSettings(StageParameters):
    """All settings of a turn of the loop. A stage's parameters are under its name; those left out have defaults."""

    seed: int
    """Seed of every stage."""
    scenes: Scenes
    candidates: CandidatesParameters
    annotate: AnnotateParameters
    reward: RewardParameters
    benchmark: BenchmarkParameters
    curate: CurateParameters
    editor_sft: EditorSftParameters
    editor_dpo: EditorDpoParameters
    editor_rl: EditorRlParameters
    editor_eval: EditorEvalParameters

    @model_validator(mode="after")
    def _one_seed(self) -> Self:
        for name in type(self).model_fields:
            part = getattr(self, name)
            if isinstance(part, StageParameters) and "seed" in part.model_fields_set:
                raise ValueError(f"{name}.seed: all stages share one seed; set `seed` at the top instead")
        return self

    def stage_values(self, stage: str) -> dict[str, Any]:
        """Return the values that the settings give for a stage, with the turn's seed.

        Args:
            stage: A stage that has a section.
        """
        values: dict[str, Any] = getattr(self, stage).model_dump(mode="json", exclude_unset=True)
        return values | {"seed": self.seed}


def read_params(path: Path = PARAMS) -> LoopSettings:
    """Read the settings of a turn of the loop.

    Args:
        path: A YAML file with the sections of `LoopSettings`.

    Raises:
        EditLoopError: The file cannot be read, or a key is missing, unknown or out of its range.
    """
    return read_settings(LoopSettings, path, "parameters")


def _changed(settings: LoopSettings, **parts: dict[str, Any]) -> LoopSettings:
    """Return the settings with some values of some parts replaced."""
    values = settings.model_dump(exclude_unset=True)
    return LoopSettings.model_validate(values | {name: values[name] | change for name, change in parts.items()})


DEMO = read_params()
SMALLEST = _changed(
    DEMO,
    scenes={"train": 24, "prompts": 16, "heldout": 24},
    candidates={"per_task": 3, "steps": 4},
    annotate={"annotators": ["ada", "bo"], "gold_share": 0.05, "repeat_share": 0.05, "alpha_if": -1, "alpha_vq": -1},
    reward={"epochs": 1},
    benchmark={"gate": "open"},
    curate={"best": 16},
    editor_sft={"preset": "smallest", "processes": 1},
    editor_dpo={"preset": "smallest", "processes": 1},
    editor_rl={"preset": "smallest", "processes": 1},
    editor_eval={"steps": 4, "gate": "open"},
)
PRESETS = {"demo": DEMO, "smallest": SMALLEST}
"""Sizes of a turn. `smallest` checks that all parts work together; its gates let every model pass."""
