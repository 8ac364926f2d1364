"""What stage curate is."""

from typing import Literal

from pydantic import Field

from editloop.lineage.stage import Stage, StageFile, StageParameters


class CurateParameters(StageParameters):
    """Parameters of stage curate."""

    judge: str = "models:/edit-reward@champion"
    """The reward model that chooses: a registered one, or the address of a server that serves it."""
    order: Literal["best", "random"] = "best"
    """best: the edits with the highest scores; random: the control that shows how much the scores are worth."""
    best: int = Field(0, ge=0)
    """Number of edits to keep, at most one per task; 0 for all."""
    threshold: float = 0.0
    """Lowest score to keep, on the scale of the judge's `overall`; 0 for no limit."""
    uncertainty: float = Field(0.0, ge=0)
    """Number of standard deviations to subtract from each score."""
    most_missing: float = Field(0.1, ge=0, le=1)
    """Largest share of the edits that may have no score, 0 to 1."""
    seed: int = 0
    """Seed of the random order."""


CURATE = Stage(
    name="curate",
    title="Choose the best edits",
    summary="Keep the edits that a registered reward model scores best, as a dataset version to fine-tune on.",
    parameters=CurateParameters,
    inputs=(
        StageFile("edits", "Noisy edits: an edits folder's candidates, or its targets where no row has any.", "noisy"),
    ),
    outputs=(
        StageFile("output", "The kept edits, each as the target of a row.", "curated"),
        StageFile("version", "The version in the dataset repository, a JSON file.", type="Artifact"),
    ),
    pipelines=("curate-editor",),
)
