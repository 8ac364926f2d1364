"""What stage collect is."""

from editloop.lineage.stage import Stage, StageFile, StageParameters


class CollectParameters(StageParameters):
    """Parameters of stage collect."""

    answers_sha256: str = ""
    """Content address of the answers that the campaign was closed with; empty takes the present answers."""


COLLECT = Stage(
    name="collect",
    title="Collect the answers",
    summary="Export the judgements of a complete campaign, and measure how good they are.",
    parameters=CollectParameters,
    inputs=(
        StageFile("campaign", "The campaign, as stage annotate wrote it.", type="Artifact"),
        StageFile("candidates", "Tasks and candidate edits, as stage candidates wrote them."),
    ),
    outputs=(StageFile("output", "The experts' judgements.", "judgements"),),
    pipelines=("train-reward", "learn-from-pairs"),
)
