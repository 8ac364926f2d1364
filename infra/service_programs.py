"""How to start Label Studio and MLflow on this machine: programs, versions, arguments and environment."""

import os
import shutil
import sys
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

import httpx

from editloop.certificates import shared_certificates
from editloop.content import sha256_bytes, write_file
from editloop.errors import EditLoopError
from infra.settings import LocalServiceSettings

ServiceName = Literal["label-studio", "mlflow"]
NAMES: tuple[ServiceName, ...] = ("label-studio", "mlflow")
HOST = "127.0.0.1"
AUTH_SECONDS = 60
"""Seconds for which MLflow remembers that a password was correct."""
DATABASES: dict[ServiceName, tuple[str, ...]] = {
    "label-studio": ("label_studio.sqlite3",),
    "mlflow": ("mlflow.db", "auth.db"),
}
"""Database files of each service; the first one holds people's work."""
LABEL_STUDIO_OFFLINE = {
    "COLLECT_ANALYTICS": "false",
    "LATEST_VERSION_CHECK": "false",
    "SENTRY_DSN": "",
    "FRONTEND_SENTRY_DSN": "",
}
"""Variables that keep Label Studio from using the internet."""
LABEL_STUDIO_PAGE = {
    "DJANGO_SETTINGS_MODULE": "editloop_settings",
    "PYTHONPATH": str(Path(__file__).parent / "label_studio"),
    "EDITLOOP_LABELLING_SCRIPT": str(Path(__file__).parents[1] / "annotation" / "campaigns" / "labelling.js"),
}
"""Variables by which Label Studio's own server adds the labelling page's script (infra/label_studio)."""
MLFLOW_OFFLINE = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
"""Variables for a single server process that does not use the internet."""


@dataclass(frozen=True)
class Service:
    """A service of this machine."""

    name: ServiceName
    home: Path
    """Folder of the services' data, logs and credentials."""
    port: int
    user: str
    """Name of the account; for Label Studio its email address."""
    password: str = field(repr=False)
    """Password of the account."""
    secret: str = field(repr=False)
    """What programs log in with: Label Studio's API token, or MLflow's password again."""

    @property
    def url(self) -> str:
        """Address of the service."""
        return f"http://{HOST}:{self.port}"

    @property
    def log(self) -> Path:
        """File of the service's output."""
        return self.home / f"{self.name}.log"

    @property
    def data(self) -> Path:
        """Folder of the service's databases and files."""
        return self.home / self.name

    @property
    def ready(self) -> Path:
        """File that exists once the service has answered to its account.

        From then on an existing database is never replaced.
        """
        return self.home / f"{self.name}.ready"

    @property
    def pictures(self) -> Path:
        """Folder of images that Label Studio serves to users who are logged in."""
        return self.home / "pictures"

    def healthy(self) -> bool:
        """Return whether the service answers and accepts its credentials."""
        account: dict[str, Any] = {"auth": (self.user, self.secret)}
        path = "/api/2.0/mlflow/experiments/search?max_results=1"
        if self.name == "label-studio":
            path, account = "/api/current-user/whoami", {"headers": {"Authorization": f"Token {self.secret}"}}
        try:
            reply = httpx.get(f"{self.url}{path}", timeout=10, verify=shared_certificates(), **account)
            return reply.status_code == 200
        except httpx.HTTPError:
            return False


def program_command(name: ServiceName, settings: LocalServiceSettings) -> list[str]:
    """Return the command that starts a service's program, without the service's arguments.

    Args:
        name: The service.
        settings: Settings of the local services.

    Raises:
        EditLoopError: Label Studio is not installed.
    """
    if name == "label-studio":
        return [str(label_studio_command(settings))]
    return [sys.executable, "-m", "mlflow"]


def label_studio_command(settings: LocalServiceSettings) -> Path:
    """Return the `label-studio` executable: the setting's, else the one beside this environment, else PATH's.

    Args:
        settings: Settings of the local services.

    Raises:
        EditLoopError: There is none, or the setting's is not executable.
    """
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
    """Return the arguments of a service's program. They contain no secret.

    Args:
        service: The service.
    """
    if service.name == "label-studio":
        return ["start", "--no-browser", "--internal-host", HOST, "--port", str(service.port)]
    return [
        *("server", "--host", HOST, "--port", str(service.port), "--workers", "1", "--app-name", "basic-auth"),
        *("--backend-store-uri", f"sqlite:///{service.data / 'mlflow.db'}"),
        *("--artifacts-destination", str(service.data / "artifacts"), "--serve-artifacts"),
    ]


def program_environment(service: Service) -> dict[str, str]:
    """Return the variables for a service's program, secrets included.

    Other users can read a command line, but not the environment, so secrets go here.

    Args:
        service: The service.
    """
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
            # Label Studio uses an S3 server in a private network only from here, never from a project's settings.
            "LABEL_STUDIO_S3_ENDPOINT": os.environ.get("AWS_ENDPOINT_URL", ""),
            **LABEL_STUDIO_OFFLINE,
            **LABEL_STUDIO_PAGE,
        }
    return {
        "MLFLOW_AUTH_CONFIG_PATH": str(service.home / "mlflow-auth.ini"),
        "MLFLOW_FLASK_SERVER_SECRET_KEY": sha256_bytes(f"sessions {service.secret}".encode()),
        **MLFLOW_OFFLINE,
    }


def migration_commands(name: ServiceName, settings: LocalServiceSettings, folder: Path) -> list[list[str]]:
    """Return the commands, to run in order, that create a service's databases in a folder: tables without an account.

    Args:
        name: The service.
        settings: Settings of the local services.
        folder: Folder for the databases.
    """
    program = program_command(name, settings)
    if name == "label-studio":
        return [[*program, "version"]]  # every command of Label Studio migrates first
    return [
        [*program, "db", "upgrade", f"sqlite:///{folder / 'mlflow.db'}"],
        [sys.executable, "-m", "mlflow.server.auth", "db", "upgrade", "--url", f"sqlite:///{folder / 'auth.db'}"],
    ]


def migration_environment(name: ServiceName, folder: Path) -> dict[str, str]:
    """Return the variables for the migration commands. They contain no secret.

    Args:
        name: The service.
        folder: Folder for the databases.
    """
    if name == "label-studio":
        return {"LABEL_STUDIO_BASE_DATA_DIR": str(folder), **LABEL_STUDIO_OFFLINE}
    return MLFLOW_OFFLINE


def program_version(name: ServiceName, settings: LocalServiceSettings) -> str | None:
    """Return the version of a service's program; None where its environment is not found, as behind a wrapper script.

    Args:
        name: The service.
        settings: Settings of the local services.

    Raises:
        EditLoopError: Label Studio is not installed.
    """
    if name == "mlflow":
        return metadata.version("mlflow")
    environment = label_studio_command(settings).resolve().parent.parent
    packages = [str(path) for path in environment.glob("lib/python*/site-packages")]
    return next((package.version for package in metadata.distributions(name="label-studio", path=packages)), None)


def write_mlflow_auth(service: Service) -> None:
    """Write MLflow's authentication settings to a file that only the user can read.

    MLflow remembers a correct password for AUTH_SECONDS, because a check takes a tenth of a second of a core on every
    request. The server has a single worker, so a changed password or a removed user takes effect at once all the same.

    Args:
        service: The MLflow service.
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
