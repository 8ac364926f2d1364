"""MLflow's client, to which no secret of an address is written: tags, parameters and descriptions hide them.

Importing this module also sets where artifacts may lie (`editloop.lineage.artifact_addresses`).
"""

from collections.abc import Sequence
from typing import Any

from mlflow.entities import Metric, Param, Run, RunTag
from mlflow.entities.model_registry import ModelVersion
from mlflow.tracking import MlflowClient
from mlflow.tracking._model_registry import DEFAULT_AWAIT_MAX_SLEEP_SECONDS
from mlflow.utils.async_logging.run_operations import RunOperations

from editloop.addresses import value_without_secrets, without_secrets
from editloop.lineage.artifact_addresses import refuse_foreign_artifacts

refuse_foreign_artifacts()


class SecretFreeClient(MlflowClient):
    """An MlflowClient whose texts are without secrets. Addresses of artifacts stay as they are: MLflow reads them."""

    def create_run(
        self,
        experiment_id: str,
        start_time: int | None = None,
        tags: dict[str, Any] | None = None,
        run_name: str | None = None,
    ) -> Run:
        tags = value_without_secrets(tags)
        return super().create_run(experiment_id, start_time=start_time, tags=tags, run_name=run_name)

    def set_tag(self, run_id: str, key: str, value: Any, synchronous: bool | None = None) -> RunOperations | None:
        return super().set_tag(run_id, key, value_without_secrets(value), synchronous)

    def log_batch(
        self,
        run_id: str,
        metrics: Sequence[Metric] = (),
        params: Sequence[Param] = (),
        tags: Sequence[RunTag] = (),
        synchronous: bool | None = None,
    ) -> RunOperations | None:
        return super().log_batch(
            run_id,
            metrics,
            [Param(param.key, without_secrets(param.value)) for param in params],
            [RunTag(tag.key, without_secrets(tag.value)) for tag in tags],
            synchronous,
        )

    def log_text(self, run_id: str, text: str, artifact_file: str) -> None:
        super().log_text(run_id, without_secrets(text), artifact_file)

    def create_model_version(
        self,
        name: str,
        source: str,
        run_id: str | None = None,
        tags: dict[str, Any] | None = None,
        run_link: str | None = None,
        description: str | None = None,
        await_creation_for: int = DEFAULT_AWAIT_MAX_SLEEP_SECONDS,
        model_id: str | None = None,
    ) -> ModelVersion:
        return super().create_model_version(
            name, source, run_id, value_without_secrets(tags), run_link, description, await_creation_for, model_id
        )

    def set_model_version_tag(
        self, name: str, version: str | None = None, key: str | None = None, value: Any = None, stage: str | None = None
    ) -> None:
        super().set_model_version_tag(name, version, key, value_without_secrets(value), stage)
