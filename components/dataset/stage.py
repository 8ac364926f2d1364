"""The dataset stage: judgements to preference pairs, and their version in DVC."""

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
    """Build the preference dataset (`write_dataset`) and put it into the dataset repository.

    What the repository's list says is withdrawn is left out. `version` is a JSON file that says where DVC has the
    dataset. `shard_megabytes` is the size of a parquet file. `withdrawn_sha256` is the content address of what is
    withdrawn of these judgements: with it a longer list makes another step, which no cache answers; the list counts as
    it is now. Raises EditLoopError without any judged pair.
    """
    withdrawn = read_withdrawn(DatasetSettings().require("dataset_repo"))
    figures = write_dataset(
        judgements, candidates, output, seed=seed, withdrawn=withdrawn, shard_megabytes=shard_megabytes
    )
    write_json(version, publish_dataset(output))
    return figures
