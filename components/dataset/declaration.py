"""What stage dataset is."""

from pydantic import Field

from editloop.lineage.stage import Stage, StageFile, StageParameters


class DatasetParameters(StageParameters):
    """Parameters of stage dataset."""

    withdrawn_sha256: str = ""
    """Content address of the withdrawals that concern the judgements. It only keeps a cached step from being reused
    after a further withdrawal: the list itself is in the dataset repository, and is always read as it is now."""
    seed: int = 0
    """Seed of the splits."""
    shard_megabytes: int = Field(256, ge=1)
    """Largest size of a shard's images, in MiB."""


DATASET = Stage(
    name="dataset",
    title="Build the dataset",
    summary="Turn judgements into preference pairs, split by shared images, and version them in DVC.",
    parameters=DatasetParameters,
    inputs=(
        StageFile("judgements", "Judgements that stage collect wrote, or `editloop ratings import`."),
        StageFile("candidates", "Tasks and candidate edits, as stage candidates wrote them."),
    ),
    outputs=(
        StageFile("output", "Preference pairs, versioned.", "dataset"),
        StageFile("version", "The version in the dataset repository, a JSON file.", type="Artifact"),
    ),
    pipelines=("train-reward", "learn-from-pairs"),
)
