"""What stage editor_rl is."""

from collections.abc import Sequence

from pydantic import Field

from editloop.lineage.stage import Stage, StageFile, StageParameters
from editloop.training.editor_rl.settings import read_rl_preset, rl_preset_names


class EditorRlParameters(StageParameters):
    """Parameters of stage editor_rl."""

    editor: str = "tiny-editor"
    """The editor to start from: a diffusers folder, a shipped name, models:/editor@champion, or in a run form the name
    of a registered editor, which means its champion."""
    reward: str = "models:/edit-reward@champion"
    """The reward model that scores the edits: a champion, or the address of a server that serves it."""
    preset: str = "tiny"
    """Preset of the training: one shipped with `editloop.training.editor_rl`, or the path of a YAML file."""
    iterations: int = Field(0, ge=0)
    """Updates of the editor; 0 for the preset's."""
    tasks: int = Field(0, ge=0)
    """Tasks per update; 0 for the preset's."""
    members: int = Field(0, ge=0)
    """Edits per task, which are compared with each other; 0 for the preset's."""
    learning_rate: float = Field(0.0, ge=0)
    """Learning rate; 0 for the preset's."""
    watch: str = ""
    """Addresses of judges that do not give rewards, separated by spaces; `oracle` where every task has a target. Empty
    for none. The training stops when their scores fall while the reward rises, and its best state is kept."""
    processes: int = Field(2, ge=1)
    """Processes (GPUs) that share the training."""
    seed: int = 0
    """Seed of prompts and noise."""

    @classmethod
    def choices(cls) -> dict[str, Sequence[str]]:
        return {"preset": rl_preset_names()}

    def check(self) -> None:
        read_rl_preset(self.preset)


EDITOR_RL = Stage(
    name="editor_rl",
    title="Improve the editor by RL",
    summary="Improve the editor by online RL with the champion reward model.",
    parameters=EditorRlParameters,
    inputs=(StageFile("edits", "Edits folder of the tasks to practise on.", "prompts"),),
    outputs=(StageFile("output", "The tuned editor and its curves.", "tuned", "Model"),),
    pipelines=("improve-editor",),
    parts=("editor",),
)
