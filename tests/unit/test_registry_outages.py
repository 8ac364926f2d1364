"""A registry that is away is not taken for one without a version's files."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import mlflow
import pytest
import requests
from mlflow.exceptions import MlflowException

from editloop.errors import EditLoopError
from editloop.lineage import registry

VERSION: Any = SimpleNamespace(name="edit-reward", version="3", source="mlflow-artifacts:/1/model")


def wrapped(cause: Exception) -> MlflowException:
    """As MLflow's client wraps what requests raises."""
    error = MlflowException("API request failed")
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("read", "words"),
    [
        (lambda folder: registry.cached_folder(VERSION), r"models:/edit-reward/3: the registry has no manifest\.json"),
        (
            lambda folder: registry._fetch_signature(VERSION, folder / "signature"),
            "models:/edit-reward/3 is not signed",
        ),
    ],
    ids=["manifest", "signature"],
)
def test_an_outage_is_passed_on_and_a_missing_file_is_named(
    read: Callable[[Path], Path], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def download(raised: Exception) -> Callable[..., str]:
        def refuse(**_: object) -> str:
            raise raised

        return refuse

    for number, outage in enumerate((requests.ConnectionError("refused"), wrapped(requests.Timeout("silent")))):
        monkeypatch.setattr(mlflow.artifacts, "download_artifacts", download(outage))
        (tmp_path / f"{number}").mkdir()
        with pytest.raises(type(outage)):
            read(tmp_path / f"{number}")
    monkeypatch.setattr(mlflow.artifacts, "download_artifacts", download(MlflowException("404: not found")))
    with pytest.raises(EditLoopError, match=words):
        read(tmp_path)
