"""Start, find and stop Label Studio and MLflow on this machine.

Everything lies below one `home` folder: databases, logs, images, `credentials.json` and the key that signs models (both
mode 600). A mark in its environment identifies a running service, so the services that a killed demo left behind are
found and used again. Services run in their own sessions, so Ctrl-C at the terminal does not reach them.
"""

import json
import secrets
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from pydantic import RootModel

from editloop.content import write_file
from editloop.errors import EditLoopError
from editloop.file_lock import locked_folder
from editloop.interruption import defer_signals, interrupt_on_termination
from editloop.json_file import read_json_record
from editloop.lineage.signing import SIGNING_KEY, VERIFY_KEY, keys_in, make_keys
from editloop.object_storage import is_address
from editloop.settings_file import FrozenModel
from infra.label_studio_token import renewed_token
from infra.service_databases import log_tail, provide_databases
from infra.service_processes import find_leader, is_free, start_process, stop_processes
from infra.service_programs import (
    HOST,
    NAMES,
    Service,
    ServiceName,
    program_arguments,
    program_command,
    program_environment,
    write_mlflow_auth,
)
from infra.settings import LocalServiceSettings, ServiceSettings

USER = "admin@editloop.example"
"""Label Studio's account."""
PORT_SECONDS = 12.0
"""Seconds in which the last port may become free: a process of a killed service ends within 10."""
POLL_SECONDS = 0.3
"""Seconds between two checks whether a starting service answers."""


@dataclass(frozen=True)
class Services:
    """The services that `start_services` started or found."""

    home: Path
    label_studio: Service | None
    """None where it was not requested."""
    mlflow: Service | None
    """None where it was not requested."""

    @property
    def log_ins(self) -> list[str]:
        """Where people log in to each service, and as whom: a line each."""
        started = {"Label Studio": self.label_studio, "MLflow": self.mlflow}
        return [
            f"{title}: {service.url}, log in as {service.user}, password {service.password}"
            for title, service in started.items()
            if service
        ]

    @property
    def environment(self) -> dict[str, str]:
        """Variables that stages need in os.environ to reach the services."""
        variables: dict[str, str] = {}
        if self.label_studio:
            variables |= {
                "EDITLOOP_LABEL_STUDIO_URL": self.label_studio.url,
                "EDITLOOP_LABEL_STUDIO_TOKEN": self.label_studio.secret,
                "EDITLOOP_ANNOTATORS_FILE": str(self.home / "annotators.json"),
            }
            if not is_address(ServiceSettings().pictures or ""):  # else Label Studio reads them there
                variables["EDITLOOP_PICTURES"] = str(self.label_studio.pictures)
        if self.mlflow:
            variables |= {
                "MLFLOW_TRACKING_URI": self.mlflow.url,
                "MLFLOW_TRACKING_USERNAME": self.mlflow.user,
                "MLFLOW_TRACKING_PASSWORD": self.mlflow.secret,
                SIGNING_KEY: str(keys_in(self.home).private),
                VERIFY_KEY: str(keys_in(self.home).public),
            }
        return variables


class ServiceCredentials(FrozenModel):
    """What is kept of a service: where it listens, and the way in."""

    port: int
    user: str
    password: str
    secret: str


class Credentials(RootModel[dict[ServiceName, ServiceCredentials]]):
    """Content of `credentials.json`."""


@dataclass(frozen=True)
class Status:
    """The present state of one service."""

    service: Service
    state: Literal["running", "not answering", "stopped"]
    pid: int | None
    """Id of the process that was started; None where the service is stopped."""


def start_services(home: Path, *, label_studio: bool = True, mlflow: bool = True) -> Services:
    """Start the requested services of `home` in parallel, and return when they answer.

    Services that run already are used. Where this call fails or is interrupted (Ctrl-C, SIGTERM, SIGHUP), it stops what
    it started.

    Args:
        home: Folder of the services' data; created where it is missing.
        label_studio: Whether to start Label Studio.
        mlflow: Whether to start MLflow.

    Returns:
        The services.

    Raises:
        EditLoopError: A port is in use, a program is missing, a service does not answer, or `home` cannot be written.
    """
    home = home.resolve()
    settings = LocalServiceSettings()
    names: list[ServiceName] = [name for name, use in zip(NAMES, (label_studio, mlflow), strict=True) if use]
    with interrupt_on_termination(), _home_lock(home):
        processes: dict[ServiceName, subprocess.Popen[bytes]] = {}
        try:
            if mlflow:
                make_keys(home)
            services = {name: _begin(home, name, settings, processes) for name in names}
            services |= _wait({name: services[name] for name in processes}, processes, settings)
        except BaseException as error:
            with defer_signals():
                for name, process in processes.items():
                    stop_processes(home, name)
                    process.kill()  # right after its start it does not carry the mark yet
                    process.wait()
            if isinstance(error, OSError):
                raise _unusable(home, error) from error
            raise
    return Services(home, services.get("label-studio"), services.get("mlflow"))


def stop_services(home: Path) -> list[ServiceName]:
    """Stop the services of `home`, orphaned processes included. A Ctrl-C takes effect once all are stopped.

    Args:
        home: Folder of the services' data.

    Returns:
        Names of the services that were running.
    """
    home = home.resolve()
    with defer_signals(), _home_lock(home) if home.is_dir() else nullcontext():  # a removed folder's services may run
        return [name for name in NAMES if stop_processes(home, name)]


def services_status(home: Path) -> list[Status]:
    """Return the state of each service that was ever started for `home`.

    Args:
        home: Folder of the services' data.
    """
    home = home.resolve()
    statuses = []
    for service in _load(home).values():
        if leader := find_leader(home, service.name):
            statuses.append(Status(service, "running" if service.healthy() else "not answering", leader.pid))
        else:
            statuses.append(Status(service, "stopped", None))
    return statuses


def _begin(
    home: Path, name: ServiceName, settings: LocalServiceSettings, processes: dict[ServiceName, subprocess.Popen[bytes]]
) -> Service:
    """Return a service that runs already, or start its process and add that to `processes`."""
    saved = _load(home).get(name)
    if saved and find_leader(home, name) and (answering := _answering(saved)):
        answering.ready.touch()  # the call that started it may have been killed before this
        return answering
    stop_processes(home, name)
    program = program_command(name, settings)
    secret = saved.secret if saved else secrets.token_hex(20)
    user, password = "editloop", secret
    if name == "label-studio":
        user, password = USER, saved.password if saved else secrets.token_urlsafe(18)
    service = Service(name, home, _port(name, saved, settings), user, password, secret)
    _save(home, service)
    provide_databases(service, settings)
    if name == "label-studio":
        service.pictures.mkdir(exist_ok=True)
    else:
        write_mlflow_auth(service)
    command = [*program, *program_arguments(service)]
    with defer_signals():
        environment = program_environment(service)
        processes[name] = start_process(
            home, name, command, environment=environment, folder=service.data, log=service.log
        )
    return service


def _wait(
    pending: dict[ServiceName, Service],
    processes: dict[ServiceName, subprocess.Popen[bytes]],
    settings: LocalServiceSettings,
) -> dict[ServiceName, Service]:
    """Return the services when each answers. EditLoopError for the first that does not."""
    deadline, found = time.monotonic() + settings.start_seconds, dict[ServiceName, Service]()
    while pending:
        for name, service in list(pending.items()):
            if answering := _answering(service):
                answering.ready.touch()
                found[name] = answering
                del pending[name]
            elif processes[name].poll() is not None:
                raise EditLoopError(f"{name} ended while starting: {log_tail(service.log)} (whole log: {service.log})")
            elif time.monotonic() > deadline:
                raise EditLoopError(
                    f"{name} did not answer within {settings.start_seconds:.0f} s at {service.url}: "
                    f"{log_tail(service.log)} (whole log: {service.log}; EDITLOOP_START_SECONDS gives it longer)"
                )
        if pending:
            time.sleep(POLL_SECONDS)
    return found


def _answering(service: Service) -> Service | None:
    """A service that answers and takes its credentials, which are renewed where a person reset the token; else None."""
    if service.healthy():
        return service
    token = renewed_token(service) if service.name == "label-studio" else None
    if token is None:
        return None
    renewed = replace(service, secret=token)
    _save(service.home, renewed)
    return renewed


def _port(name: ServiceName, saved: Service | None, settings: LocalServiceSettings) -> int:
    """The port from the settings, else the last one used, else a free one.

    EditLoopError where the settings name a port that is in use.
    """
    fixed = settings.label_studio_port if name == "label-studio" else settings.mlflow_port
    if fixed:
        if not is_free(fixed):
            variable = f"EDITLOOP_{name.upper().replace('-', '_')}_PORT"
            raise EditLoopError(f"Port {fixed} is in use, so {name} cannot have it: free it or change {variable}.")
        return fixed
    deadline = time.monotonic() + PORT_SECONDS
    while saved and time.monotonic() < deadline:
        if is_free(saved.port):
            return saved.port  # keeps addresses in reports and bookmarks valid, and those of steps that wait
        time.sleep(POLL_SECONDS)
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def _load(home: Path) -> dict[ServiceName, Service]:
    path = home / "credentials.json"
    if not path.is_file():
        return {}
    credentials = read_json_record(
        path, Credentials, f"Restore it: {home} has the databases, and this the way in."
    ).root
    return {name: Service(name=name, home=home, **saved.model_dump()) for name, saved in credentials.items()}


def _save(home: Path, service: Service) -> None:
    services = _load(home) | {service.name: service}
    keys = ("port", "user", "password", "secret")
    credentials = {name: {key: getattr(saved, key) for key in keys} for name, saved in services.items()}
    write_file(home / "credentials.json", json.dumps(credentials, indent=2) + "\n")  # mode 600: mkstemp's


@contextmanager
def _home_lock(home: Path) -> Iterator[None]:
    """Hold `home` within the block, so that two calls do not start the same service twice. The second waits."""
    with ExitStack() as stack:
        try:
            stack.enter_context(locked_folder(home))
            home.chmod(0o700)  # the databases in it hold tokens
        except OSError as error:
            raise _unusable(home, error) from error
        yield


def _unusable(home: Path, error: OSError) -> EditLoopError:
    return EditLoopError(
        f"{home}: services cannot keep their data there: {error}. Free space or choose another folder."
    )
