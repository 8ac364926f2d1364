"""What stage promote is."""

from editloop.datasets.splits import unread_shards
from editloop.lineage.stage import Stage, StageFile, StageParameters


class PromoteParameters(StageParameters):
    """Parameters of stage promote."""

    name: str = ""
    """Name in the registry; empty for that of the model's kind, edit-reward or edit-score."""


PROMOTE = Stage(
    name="promote",
    title="Register and promote",
    summary="Register the reward model as challenger, and as champion when its gate says so.",
    parameters=PromoteParameters,
    inputs=(
        StageFile("model", "The reward model, as stage reward wrote it.", type="Model"),
        StageFile("benchmark", "Figures and verdict, as stage benchmark wrote them.", type="Artifact"),
        StageFile(
            "dataset",
            "The pairs or the teacher's rows that the model was trained on.",
            skip=unread_shards(),
        ),
        StageFile("version", "The version that was written with them, a JSON file.", type="Artifact"),
    ),
    outputs=(StageFile("output", "What the registry did.", "promotion", "Artifact"),),
    pipelines=("train-reward",),
    takes_run=True,
    dataset_use="evaluation",
)
