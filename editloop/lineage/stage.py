"""What a stage of the loop is: its parameters, what it reads and writes, and the pipelines that it is a step of.

A stage is declared once, in `components/NAME/declaration.py`. Its KFP component, its part of a pipeline's run form,
`editloop stage NAME`, the schema of params.yaml and its entry in docs/stages.md follow from the declaration.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Literal

from pydantic import ConfigDict

from editloop.settings_file import FrozenModel


class StageParameters(FrozenModel):
    """Base of a stage's parameters. The string below a field is its help wherever users meet it."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    @classmethod
    def choices(cls) -> dict[str, Sequence[str]]:
        """Return the names that ship with EditLoop, by parameter that takes such a name or a path."""
        return {}

    def check(self) -> None:
        """Check what a value refers to, before anything runs.

        Raises:
            EditLoopError: There is no such preset, gate or the like.
        """


@dataclass(frozen=True)
class StageFile:
    """A file or folder that a stage reads or writes."""

    argument: str
    """Name in the stage's function, and of the option of `editloop stage`. `output` is the stage's main result."""
    help: str
    """What it is, as KFP and `--help` show it."""
    artifact: str = ""
    """Name of KFP's artifact; empty for `argument`."""
    type: Literal["Artifact", "Dataset", "Model"] = "Dataset"
    """Class of KFP's artifact."""
    skip: tuple[str, ...] = ()
    """Input only: shell patterns of files that the stage does not read. They are not fetched from object storage."""
    is_optional: bool = False
    """Output only: whether a call of the stage may do without it."""

    @property
    def artifact_name(self) -> str:
        """Name of KFP's artifact."""
        return self.artifact or self.argument


@dataclass(frozen=True)
class Stage:
    """A stage of the loop. Its function is `run_NAME` in `stage.py` beside the class of its parameters."""

    name: str
    title: str
    """What it does in a few words, as KFP's graph shows it."""
    summary: str
    """What the stage does, in one sentence."""
    parameters: type[StageParameters]
    inputs: tuple[StageFile, ...]
    outputs: tuple[StageFile, ...]
    pipelines: tuple[str, ...]
    """Pipelines that contain the stage, the main one first."""
    takes_run: bool = False
    """Whether the function takes the pipeline run's name as `pipeline_run`, because it registers a model."""
    dataset_use: Literal["", "training", "evaluation"] = ""
    """What the input `dataset` is used for, as MLflow's pages show it."""
    parts: tuple[str, ...] = ()
    """Folders inside the output that are registered on their own, so that their sha256 is recorded too."""
    tags: frozenset[str] = frozenset()
    """Parameters that later steps read as tags of the MLflow run; the stage itself does not use them."""

    @property
    def function(self) -> Callable[..., dict[str, float]]:
        """The function that does the work, imported when it is first asked for."""
        package = self.parameters.__module__.rpartition(".")[0]
        function: Callable[..., dict[str, float]] = getattr(import_module(f"{package}.stage"), f"run_{self.name}")
        return function
