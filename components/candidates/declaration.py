"""What stage candidates is."""

from pydantic import Field

from editloop.lineage.stage import Stage, StageFile, StageParameters


class CandidatesParameters(StageParameters):
    """Parameters of stage candidates."""

    editor: str = "tiny-editor"
    """The editor: a diffusers folder, a shipped name, models:/editor@champion, or in a run form the name of a
    registered editor, which means its champion."""
    per_task: int = Field(4, ge=0)
    """Edits per task. They are compared with each other, so the number of pairs grows with the square. 0 asks no
    editor: the candidates are the edits that the input brings along."""
    steps: int = Field(8, ge=1)
    """Denoising steps of an edit."""
    seed: int = 0
    """Seed of the noise."""


CANDIDATES = Stage(
    name="candidates",
    title="Make candidate edits",
    summary="Make several edits of each source image and instruction, beside those that the input brings along.",
    parameters=CandidatesParameters,
    inputs=(StageFile("edits", "An edits.jsonl, or a folder of them, with the images."),),
    outputs=(StageFile("output", "Tasks and candidate edits.", "candidates"),),
    pipelines=("collect-preferences",),
)
