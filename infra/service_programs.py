"""How Label Studio and MLflow are started on this machine: programs, versions, arguments, environment."""

import os
import shutil
import sys
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Literal

import requests

from editloop.content import write_file
from editloop.errors import EditLoopError
from infra.settings import LocalServiceSettings

ServiceName = Literal["label-studio", "mlflow"]
NAMES: tuple[ServiceName, ...] = ("label-studio", "mlflow")
HOST = "127.0.0.1"
AUTH_SECONDS = 60
DATABASES: dict[ServiceName, tuple[str, ...]] = {
    "label-studio": ("label_studio.sqlite3",),
    "mlflow": ("mlflow.db", "auth.db"),
}
"""The database files of each service, the one that holds people's work first."""
LABEL_STUDIO_OFFLINE = {
    "COLLECT_ANALYTICS": "false",
    "LATEST_VERSION_CHECK": "false",
    "SENTRY_DSN": "",
    "FRONTEND_SENTRY_DSN": "",
}
"""With these Label Studio asks nothing of the internet."""
MLFLOW_OFFLINE = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
"""One server process, and nothing asked of the internet."""


@dataclass(frozen=True)
class Service:
    """A service of this machine. `secret` is Label Studio's API token, or MLflow's password."""

    name: ServiceName
    home: Path
    port: int
    user: str
    password: str = field(repr=False)
    secret: str = field(repr=False)

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}"

    @property
    def log(self) -> Path:
        return self.home / f"{self.name}.log"

    @property
    def data(self) -> Path:
        return self.home / self.name

    @property
    def ready(self) -> Path:
        """The mark of a service that has answered with its account: from then on its data are somebody's."""
        return self.home / f"{self.name}.ready"

    @property
    def pictures(self) -> Path:
        """The folder below which Label Studio serves pictures to those who are logged in."""
        return self.home / "pictures"

    def healthy(self) -> bool:
        """Whether it answers, and answers to our credentials."""
        try:
            if self.name == "label-studio":
                reply = requests.get(
                    f"{self.url}/api/current-user/whoami", headers={"Authorization": f"Token {self.secret}"}, timeout=10
                )
            else:
                reply = requests.get(
                    f"{self.url}/api/2.0/mlflow/experiments/search?max_results=1",
                    auth=(self.user, self.secret),
                    timeout=10,
                )
        except requests.RequestException:
            return False
        return reply.status_code == 200


def program_command(name: ServiceName, settings: LocalServiceSettings) -> list[str]:
    """The service's program. EditLoopError where it is not installed."""
    if name == "label-studio":
        return [str(label_studio_command(settings))]
    return [sys.executable, "-m", "mlflow"]


def label_studio_command(settings: LocalServiceSettings) -> Path:
    """The `label-studio` executable: the setting's, the one beside this environment, or PATH's. EditLoopError: none."""
    if settings.label_studio_command:
        if not os.access(settings.label_studio_command, os.X_OK):
            raise EditLoopError(f"EDITLOOP_LABEL_STUDIO_COMMAND={settings.label_studio_command}: no such program.")
        return settings.label_studio_command
    beside = Path(sys.prefix).parent / ".venv-label-studio" / "bin" / "label-studio"
    program = str(beside) if os.access(beside, os.X_OK) else shutil.which("label-studio")
    if not program:
        raise EditLoopError(f"Label Studio is not installed ({beside} is not there). Run `make setup`.")
    return Path(program)


def program_arguments(service: Service) -> list[str]:
    """What follows the program on the command line; no secret among it."""
    if service.name == "label-studio":
        return ["start", "--no-browser", "--internal-host", HOST, "--port", str(service.port)]
    return [
        *("server", "--host", HOST, "--port", str(service.port), "--workers", "1", "--app-name", "basic-auth"),
        *("--backend-store-uri", f"sqlite:///{service.data / 'mlflow.db'}"),
        *("--artifacts-destination", str(service.data / "artifacts"), "--serve-artifacts"),
    ]


def program_environment(service: Service) -> dict[str, str]:
    """Secrets go through the environment, which other users cannot read, not through the command line."""
    if service.name == "label-studio":
        return {
            "LABEL_STUDIO_BASE_DATA_DIR": str(service.data),
            "LABEL_STUDIO_USERNAME": service.user,
            "LABEL_STUDIO_PASSWORD": service.password,
            "LABEL_STUDIO_USER_TOKEN": service.secret,
            "LABEL_STUDIO_ENABLE_LEGACY_API_TOKEN": "true",
            "LABEL_STUDIO_DISABLE_SIGNUP_WITHOUT_LINK": "true",
            "LABEL_STUDIO_LOCAL_FILES_SERVING_ENABLED": "true",
            "LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT": str(service.pictures),
            # Label Studio reaches a server of a private network by this name alone, never by a project's own setting.
            "LABEL_STUDIO_S3_ENDPOINT": os.environ.get("AWS_ENDPOINT_URL", ""),
            **LABEL_STUDIO_OFFLINE,
        }
    return {
        "MLFLOW_AUTH_CONFIG_PATH": str(service.home / "mlflow-auth.ini"),
        "MLFLOW_FLASK_SERVER_SECRET_KEY": service.password,
        **MLFLOW_OFFLINE,
    }


def migration_commands(name: ServiceName, settings: LocalServiceSettings, folder: Path) -> list[list[str]]:
    """Commands that make the service's databases in `folder`, one after another: tables, and no account."""
    program = program_command(name, settings)
    if name == "label-studio":
        return [[*program, "version"]]  # migrates first, as each of its commands does
    return [
        [*program, "db", "upgrade", f"sqlite:///{folder / 'mlflow.db'}"],
        [sys.executable, "-m", "mlflow.server.auth", "db", "upgrade", "--url", f"sqlite:///{folder / 'auth.db'}"],
    ]


def migration_environment(name: ServiceName, folder: Path) -> dict[str, str]:
    """What the migration commands find in their environment: no secret among it."""
    if name == "label-studio":
        return {"LABEL_STUDIO_BASE_DATA_DIR": str(folder), **LABEL_STUDIO_OFFLINE}
    return MLFLOW_OFFLINE


def program_version(name: ServiceName, settings: LocalServiceSettings) -> str | None:
    """The version of the service's program; None where its environment cannot be found, as behind a wrapper script."""
    if name == "mlflow":
        return metadata.version("mlflow")
    environment = label_studio_command(settings).resolve().parent.parent
    packages = [str(path) for path in environment.glob("lib/python*/site-packages")]
    return next((package.version for package in metadata.distributions(name="label-studio", path=packages)), None)


def write_mlflow_auth(service: Service) -> None:
    """MLflow's settings for log-ins, in a file that is the user's alone.

    A password that was right is remembered for AUTH_SECONDS: to check it anew takes a tenth of a second of a core, on
    every request. The server has one worker, so a changed password or a removed user counts at once all the same.
    """
    lines = [
        "[mlflow]",
        "default_permission = NO_PERMISSIONS",
        f"database_uri = sqlite:///{service.data / 'auth.db'}",
        f"admin_username = {service.user}",
        f"admin_password = {service.secret}",
        f"auth_cache_ttl_seconds = {AUTH_SECONDS}",
        "authorization_function = mlflow.server.auth:authenticate_request_basic_auth",
    ]
    write_file(service.home / "mlflow-auth.ini", "\n".join(lines) + "\n")
