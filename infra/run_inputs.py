"""Which dataset a run read, as MLflow's own pages show it."""

from pathlib import Path


def log_dataset(run_id: str, dataset: Path, context: str) -> None:
    """Name a complete dataset folder as an input of a run: "Datasets" of the run's page, and searchable.

    context: what it was used for, "training" or "evaluation". The digest is the manifest's sha256 (its first 36
    characters, MLflow's limit); the source names the dataset repository (EDITLOOP_DATASET_REPO) and the version's tag.
    """
    raise NotImplementedError
