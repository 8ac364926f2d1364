"""The dataset stage: turn judgements into preference pairs, and commit them to the dataset repository."""

from pathlib import Path

from components.dataset.declaration import DatasetParameters
from editloop.content import write_json
from editloop.datasets.build import publish_dataset, write_dataset
from editloop.datasets.settings import DatasetSettings
from editloop.datasets.withdrawal import read_withdrawn


def run_dataset(
    judgements: Path, candidates: Path, output: Path, version: Path, parameters: DatasetParameters
) -> dict[str, float]:
    """Build the preference dataset (`write_dataset`) and commit it to the dataset repository.

    The annotators and tasks on the repository's list of withdrawals are left out.

    Args:
        judgements: Folder that stage collect or `editloop ratings import` wrote.
        candidates: Candidates folder with the judged tasks.
        output: Dataset folder to write.
        version: JSON file to write: the version in the dataset repository.
        parameters: The stage's parameters.

    Returns:
        The figures of `write_dataset`.

    Raises:
        EditLoopError: No task has a judged pair, the dataset repository is not set, or git or DVC refuses.
    """
    withdrawn = read_withdrawn(DatasetSettings().require("dataset_repo"))
    choices = parameters.model_dump(exclude={"withdrawn_sha256"})
    figures = write_dataset(judgements, candidates, output, withdrawn=withdrawn, **choices)
    write_json(version, publish_dataset(output))
    return figures
