"""Settings of the services: addresses, credentials, and how to start them on this machine."""

from pathlib import Path
from typing import Annotated

from pydantic import Field, SecretStr

from editloop.environment import EnvironmentSettings, PublicAddress

DEFAULT_IMAGE = "editloop:latest"
"""Container image of pods where no other is named. It has the project installed."""

Port = Annotated[int, Field(ge=1, le=65535)]


class ServiceSettings(EnvironmentSettings):
    """Addresses and credentials of the services that stages use."""

    label_studio_url: PublicAddress | None = None
    """Address of Label Studio, such as http://127.0.0.1:8080."""
    label_studio_public_url: PublicAddress | None = None
    """Address of Label Studio in people's browsers, for the links that they follow; else label_studio_url."""
    label_studio_token: SecretStr | None = None
    """API token of the account that owns the campaigns."""
    annotators_file: Path | None = None
    """JSON file (mode 600) with the accounts that EditLoop creates for annotators. Without it, annotators join Label
    Studio on their own, and EditLoop has no passwords of theirs."""
    pictures: PublicAddress | None = None
    """Where Label Studio finds the images of campaigns: the folder that is its LOCAL_FILES_DOCUMENT_ROOT, or
    s3://bucket/prefix (endpoint and credentials: AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY)."""

    @property
    def label_studio_link(self) -> str:
        """Address of Label Studio that people follow."""
        return (self.label_studio_public_url or self.require("label_studio_url")).rstrip("/")

    def project_link(self, project_id: int) -> str:
        """Return the address at which people answer the pages of a project.

        Args:
            project_id: Label Studio's id of the project.
        """
        return f"{self.label_studio_link}/projects/{project_id}/data?labeling=1"


class LocalServiceSettings(EnvironmentSettings):
    """How `editloop up` starts the services on this machine."""

    label_studio_command: Path | None = None
    """The `label-studio` executable; else the one in .venv-label-studio beside this environment, else PATH's."""
    label_studio_port: Port | None = None
    """A fixed port for Label Studio; else the last one used, or a free one."""
    mlflow_port: Port | None = None
    """A fixed port for MLflow; else the last one used, or a free one."""
    start_seconds: float = Field(240, gt=0)
    """Seconds within which a service must answer after its start."""
    service_templates: Path | None = None
    """Folder of the services' empty databases, made once and copied at each first start; only you may write to it. Else
    editloop/services in XDG_CACHE_HOME or ~/.cache."""


def service_settings() -> ServiceSettings:
    """Read the services' settings from the environment."""
    return ServiceSettings()
