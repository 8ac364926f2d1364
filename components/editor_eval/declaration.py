"""What stage editor_eval is."""

from collections.abc import Sequence

from pydantic import Field

from editloop.evaluation.gates.settings import read_gate
from editloop.lineage.stage import Stage, StageFile, StageParameters


class EditorEvalParameters(StageParameters):
    """Parameters of stage editor_eval."""

    base: str = "tiny-editor"
    """The editor to compare with: a pipeline's folder, a shipped name, models:/editor@champion, or in a run form the
    name of a registered editor, which means its champion."""
    samples: int = Field(1, ge=1)
    """Edits per task and editor, with the same noise for both editors."""
    steps: int = Field(8, ge=1)
    """Denoising steps of an edit."""
    gate: str = "editor"
    """The gate that an editor must pass to be promoted: a shipped one (editor, open), or the path of a YAML file."""
    name: str = "editor"
    """Name in the registry."""
    seed: int = 0
    """Seed of the noise and of the bootstrap."""

    @classmethod
    def choices(cls) -> dict[str, Sequence[str]]:
        return {"gate": ("editor", "open")}

    def check(self) -> None:
        read_gate(self.gate)


EDITOR_EVAL = Stage(
    name="editor_eval",
    title="Compare with the base editor",
    summary="Compare the tuned editor with its base on held-out tasks, and register it as its gate says.",
    parameters=EditorEvalParameters,
    inputs=(
        StageFile("edits", "Edits folder of held-out tasks, which the editor never saw.", "heldout"),
        StageFile(
            "editor", "The tuned editor, as stage editor_sft, editor_dpo or editor_rl wrote it.", "tuned", "Model"
        ),
    ),
    outputs=(
        StageFile("output", "Base against tuned editor, and the gate's verdict.", "evaluation", "Artifact"),
        StageFile("promotion", "What the registry did, a JSON file.", type="Artifact", is_optional=True),
    ),
    pipelines=("improve-editor", "curate-editor", "learn-from-pairs"),
    takes_run=True,
)
