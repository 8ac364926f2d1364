"""The dataset stage: turn judgements into preference pairs, and commit them to the dataset repository."""

from pathlib import Path

from editloop.content import write_json
from editloop.datasets.build import publish_dataset, write_dataset
from editloop.datasets.settings import DatasetSettings
from editloop.datasets.shards import MEGABYTES
from editloop.datasets.withdrawal import read_withdrawn


def run_dataset(
    judgements: Path,
    candidates: Path,
    output: Path,
    version: Path,
    *,
    seed: int = 0,
    shard_megabytes: int = MEGABYTES,
    withdrawn_sha256: str = "",
) -> dict[str, float]:
    """Build the preference dataset (`write_dataset`) and commit it to the dataset repository.

    The annotators and tasks on the repository's list of withdrawals are left out.

    Args:
        judgements: Folder that stage collect or `editloop ratings import` wrote.
        candidates: Candidates folder with the judged tasks.
        output: Dataset folder to write.
        version: JSON file to write: the version in the dataset repository.
        seed: Seed of the splits.
        shard_megabytes: Largest size of a shard's images, in MiB.
        withdrawn_sha256: Content address of the withdrawals that concern these judgements. It only keeps a cached step
            from being reused after a further withdrawal: the list itself is always read as it is now.

    Returns:
        The figures of `write_dataset`.

    Raises:
        EditLoopError: No task has a judged pair, the dataset repository is not set, or git or DVC refuses.
    """
    withdrawn = read_withdrawn(DatasetSettings().require("dataset_repo"))
    figures = write_dataset(
        judgements, candidates, output, seed=seed, withdrawn=withdrawn, shard_megabytes=shard_megabytes
    )
    write_json(version, publish_dataset(output))
    return figures
