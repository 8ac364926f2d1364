"""Settings of the dataset repository."""

from editloop.environment import EnvironmentSettings, PublicAddress


class DatasetSettings(EnvironmentSettings):
    """Where the dataset repository and the content of its versions are."""

    dataset_repo: str | None = None
    """Folder or git address of the repository that holds the dataset's versions."""
    dataset_remote: PublicAddress | None = None
    """DVC remote of that repository: a folder, or s3://bucket/prefix."""
