"""Where the services are: read from the environment, so that no stage knows a laptop's path or a cluster's name.

MLflow's own variables (MLFLOW_TRACKING_URI, MLFLOW_TRACKING_USERNAME, MLFLOW_TRACKING_PASSWORD) are read by MLflow.
"""

from pathlib import Path
from typing import TypeVar

from pydantic import SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from infra.errors import EditLoopError

PREFIX = "EDITLOOP_"


class ServiceSettings(BaseSettings):
    """Addresses and credentials of the services that stages use."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, env_ignore_empty=True, frozen=True)

    label_studio_url: str | None = None
    """Address of Label Studio, such as http://127.0.0.1:8080."""
    label_studio_token: SecretStr | None = None
    """API token of the account that owns the campaigns."""
    annotators_file: Path | None = None
    """JSON file (mode 600) of the accounts that EditLoop makes for annotators. Without it annotators are people who
    joined Label Studio on their own, and EditLoop knows no password of theirs."""
    pictures: str | None = None
    """Where Label Studio finds the pictures of campaigns: the folder that is its LOCAL_FILES_DOCUMENT_ROOT, or
    s3://bucket/prefix (endpoint and credentials: AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY)."""
    dataset_repo: str | None = None
    """Folder or git address of the repository that holds the dataset's versions."""
    dataset_remote: str | None = None
    """DVC remote of that repository: a folder, or s3://bucket/prefix."""
    image: str = "editloop:latest"
    """Container image that has the project installed; what KFP's pods run."""

    def require(self, name: str) -> str:
        """The text of setting `name`. Raises EditLoopError that names the variable where it is not set."""
        value = getattr(self, name)
        if value is None:
            raise EditLoopError(
                f"{PREFIX}{name.upper()} is not set. Start the services with `editloop up`, which prints it, or set it "
                "to your own service's."
            )
        return str(value.get_secret_value() if isinstance(value, SecretStr) else value)


class LocalServiceSettings(BaseSettings):
    """How `editloop up` starts the services on this machine."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, env_ignore_empty=True, frozen=True)

    label_studio_command: Path | None = None
    """The `label-studio` executable; else the one in .venv-label-studio beside the loop's environment, else PATH's."""
    label_studio_port: int | None = None
    """A fixed port for Label Studio; else the last one used, or a free one."""
    mlflow_port: int | None = None
    """A fixed port for MLflow; else the last one used, or a free one."""
    start_seconds: float = 240
    """How long a service may take to answer."""
    service_templates: Path | None = None
    """Folder, writable by you alone, of the services' empty databases, made once and copied at each first start; else
    editloop/services in XDG_CACHE_HOME or ~/.cache."""


Settings = TypeVar("Settings", bound=BaseSettings)


def service_settings() -> ServiceSettings:
    """The services' settings as the environment has them now."""
    return _read(ServiceSettings)


def local_service_settings() -> LocalServiceSettings:
    """The local start's settings as the environment has them now."""
    return _read(LocalServiceSettings)


def _read(kind: type[Settings]) -> Settings:
    try:
        return kind()
    except ValidationError as error:
        wrong = "; ".join(f"{PREFIX}{str(item['loc'][0]).upper()}: {item['msg']}" for item in error.errors())
        raise EditLoopError(f"A setting in the environment cannot be used: {wrong}. Correct or unset it.") from error
