"""Label Studio and MLflow on this machine: started, found again, looked after, stopped.

Everything lives below one `home` folder: databases, logs, and `credentials.json` (mode 600). A running service is
recognised by a mark in its own environment, `EDITLOOP_SERVICE=<home>:<name>`, not by a pid file: there is no moment
between a start and a note of it, a reused pid is never mistaken for ours, and what a killed demo left behind is found
again and used. Services run in a session of their own, so that a Ctrl-C at the terminal does not reach them.
"""

import fcntl
import json
import os
import secrets
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import psutil
import requests

from infra.content import write_file
from infra.errors import EditLoopError
from infra.settings import LocalServiceSettings, local_service_settings

Name = Literal["label-studio", "mlflow"]
NAMES: tuple[Name, ...] = ("label-studio", "mlflow")
MARK = "EDITLOOP_SERVICE"
HOST = "127.0.0.1"
USER = "admin@editloop.example"
STOP_SECONDS = 10
DATABASE_SECONDS = 30
LOG_TAIL = 300
SMALLEST_DISK = 3 * 2**30
"""Bytes that a demo's data, models and databases may take."""


@dataclass(frozen=True)
class Service:
    """A service of this machine. `secret` is Label Studio's API token, or MLflow's password."""

    name: Name
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


@dataclass(frozen=True)
class Services:
    """What `start_services` started or found; `environment` is what stages need in os.environ to find them."""

    home: Path
    label_studio: Service | None
    mlflow: Service | None

    @property
    def environment(self) -> dict[str, str]:
        found: dict[str, str] = {}
        if self.label_studio:
            found |= {
                "EDITLOOP_LABEL_STUDIO_URL": self.label_studio.url,
                "EDITLOOP_LABEL_STUDIO_TOKEN": self.label_studio.secret,
                "EDITLOOP_ANNOTATORS_FILE": str(self.home / "annotators.json"),
                "EDITLOOP_PICTURES": str(self.label_studio.pictures),
            }
        if self.mlflow:
            found |= {
                "MLFLOW_TRACKING_URI": self.mlflow.url,
                "MLFLOW_TRACKING_USERNAME": self.mlflow.user,
                "MLFLOW_TRACKING_PASSWORD": self.mlflow.secret,
            }
        return found


@dataclass(frozen=True)
class Status:
    """One service as it is now."""

    service: Service
    state: Literal["running", "not answering", "stopped"]
    pid: int | None


@dataclass(frozen=True)
class Check:
    """One line of `editloop doctor`; `advice` says what to do where it is not ok."""

    name: str
    ok: bool
    found: str
    advice: str = ""


def start_services(home: Path, *, label_studio: bool = True, mlflow: bool = True) -> Services:
    """Start the services of `home`, both at once, and return when they answer; what runs already is used.

    Raises EditLoopError, one line, when a port is in use, a program is missing or a service does not come up; whatever
    this call started is stopped again, also on Ctrl-C.
    """
    home = home.resolve()
    settings = local_service_settings()
    wanted: list[Name] = [name for name, use in zip(NAMES, (label_studio, mlflow), strict=True) if use]
    with _alone(home):
        begun: dict[Name, subprocess.Popen[bytes]] = {}
        try:
            services = {name: _begin(home, name, settings, begun) for name in wanted}
            with ThreadPoolExecutor(len(NAMES)) as pool:
                waiting = [pool.submit(_wait, services[name], process, settings) for name, process in begun.items()]
            problems = [problem for future in waiting if (problem := future.result())]
            if problems:
                raise EditLoopError(" ".join(problems))
        except BaseException as error:
            for name, process in begun.items():
                _stop(home, name)
                process.kill()  # in the instant of its start it does not carry the mark yet
                process.wait()
            if isinstance(error, OSError):
                raise _unusable(home, error) from error
            raise
    return Services(home, services.get("label-studio"), services.get("mlflow"))


def stop_services(home: Path) -> list[Name]:
    """Stop what runs for `home`, orphans included; returns the names of the services that were running."""
    home = home.resolve()
    with _alone(home) if home.is_dir() else nullcontext():  # a removed folder's services may still run
        return [name for name in NAMES if _stop(home, name)]


def services_status(home: Path) -> list[Status]:
    """Each service that was ever started for `home`: running (and answering), not answering, or stopped."""
    home = home.resolve()
    found = []
    for service in _load(home).values():
        leader = _leader(home, service.name)
        state: Literal["running", "not answering", "stopped"] = "stopped"
        if leader:
            state = "running" if service.healthy() else "not answering"
        found.append(Status(service, state, leader.pid if leader else None))
    return found


def doctor(home: Path) -> list[Check]:
    """What this machine needs for the loop, one check each; never raises."""
    label_studio = _found(lambda: str(_label_studio_command(local_service_settings())))
    folder = next(parent for parent in (home.resolve(), *home.resolve().parents) if parent.is_dir())
    disk, memory = shutil.disk_usage(folder).free, psutil.virtual_memory().available
    checks = [
        Check("python", sys.version_info[:2] == (3, 11), sys.version.split()[0], "Use Python 3.11."),
        *(
            Check(program, bool(path := _program(program)), path or "missing", f"Install {program}: run `make setup`.")
            for program in ("git", "dvc", "mlflow", "deepspeed")
        ),
        Check("label-studio", label_studio is not None, label_studio or "missing", "Run `make setup`."),
        Check("disk", disk >= SMALLEST_DISK, f"{disk / 2**30:.1f} GB free", "Free 3 GB, or choose another --out."),
        Check(
            "memory", memory >= 6 * 2**30, f"{memory / 2**30:.1f} GB free", "The loop may use 6 GB: close something."
        ),
    ]
    for status in services_status(home):
        found = f"{status.state}, {status.service.url}"
        advice = f"See {status.service.log}, then `editloop down` and `editloop up`."
        checks.append(Check(f"service {status.service.name}", status.state != "not answering", found, advice))
    return checks


def _begin(
    home: Path, name: Name, settings: LocalServiceSettings, begun: dict[Name, subprocess.Popen[bytes]]
) -> Service:
    """The service as credentials and processes have it; a process is started (and noted in `begun`) if none serves."""
    known = _load(home).get(name)
    if known and _leader(home, name) and known.healthy():
        return known
    _stop(home, name)
    command = _command(name, settings)
    service = Service(
        name,
        home,
        _port(name, known, settings),
        USER if name == "label-studio" else "editloop",
        known.password if known else secrets.token_urlsafe(18),
        known.secret if known else secrets.token_hex(20),
    )
    _save(home, service)
    if name == "label-studio" and not (home / "label-studio.ready").exists():
        shutil.rmtree(service.data, ignore_errors=True)  # a first start that was cut off may lack its account or tables
    service.data.mkdir(parents=True, exist_ok=True)
    if name == "label-studio":
        service.pictures.mkdir(exist_ok=True)
    if name == "mlflow":
        _write_mlflow_auth(service)
    with service.log.open("wb") as log:
        begun[name] = subprocess.Popen(
            [*command, *_arguments(service)],
            env={**os.environ, **_environment(service), MARK: f"{home}:{name}"},
            cwd=service.data,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    return service


def _wait(service: Service, process: subprocess.Popen[bytes], settings: LocalServiceSettings) -> str | None:
    """Wait until the service answers; returns the problem in a line where it does not."""
    deadline = time.monotonic() + settings.start_seconds
    while not service.healthy():
        if process.poll() is not None:
            return f"{service.name} ended while starting: {_tail(service.log)} (whole log: {service.log})"
        if time.monotonic() > deadline:
            return (
                f"{service.name} did not answer within {settings.start_seconds:.0f} s at {service.url}: "
                f"{_tail(service.log)} (whole log: {service.log}; EDITLOOP_START_SECONDS gives it longer)"
            )
        time.sleep(0.3)
    _write_ahead(service)
    (service.home / f"{service.name}.ready").touch()
    return None


def _write_ahead(service: Service) -> None:
    """Let the database log ahead of its tables (kept in its file): answers take half the time on a laptop's disk."""
    database = "label_studio.sqlite3" if service.name == "label-studio" else "mlflow.db"
    with closing(sqlite3.connect(service.data / database, timeout=DATABASE_SECONDS)) as connection:
        connection.execute("PRAGMA journal_mode=wal")


def _command(name: Name, settings: LocalServiceSettings) -> list[str]:
    if name == "label-studio":
        return [str(_label_studio_command(settings))]
    return [sys.executable, "-m", "mlflow"]


def _label_studio_command(settings: LocalServiceSettings) -> Path:
    if settings.label_studio_command:
        if not os.access(settings.label_studio_command, os.X_OK):
            raise EditLoopError(f"EDITLOOP_LABEL_STUDIO_COMMAND={settings.label_studio_command}: no such program.")
        return settings.label_studio_command
    beside = Path(sys.prefix).parent / ".venv-label-studio" / "bin" / "label-studio"
    found = str(beside) if os.access(beside, os.X_OK) else shutil.which("label-studio")
    if not found:
        raise EditLoopError(f"Label Studio is not installed ({beside} is not there). Run `make setup`.")
    return Path(found)


def _arguments(service: Service) -> list[str]:
    if service.name == "label-studio":
        return ["start", "--no-browser", "--internal-host", HOST, "--port", str(service.port)]
    return [
        *("server", "--host", HOST, "--port", str(service.port), "--workers", "1", "--app-name", "basic-auth"),
        *("--backend-store-uri", f"sqlite:///{service.data / 'mlflow.db'}"),
        *("--artifacts-destination", str(service.data / "artifacts"), "--serve-artifacts"),
    ]


def _environment(service: Service) -> dict[str, str]:
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
            "COLLECT_ANALYTICS": "false",
            "LATEST_VERSION_CHECK": "false",
            "SENTRY_DSN": "",
            "FRONTEND_SENTRY_DSN": "",
        }
    return {
        "MLFLOW_AUTH_CONFIG_PATH": str(service.home / "mlflow-auth.ini"),
        "MLFLOW_FLASK_SERVER_SECRET_KEY": service.password,
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }


def _write_mlflow_auth(service: Service) -> None:
    lines = [
        "[mlflow]",
        "default_permission = NO_PERMISSIONS",
        f"database_uri = sqlite:///{service.data / 'auth.db'}",
        f"admin_username = {service.user}",
        f"admin_password = {service.secret}",
        "authorization_function = mlflow.server.auth:authenticate_request_basic_auth",
    ]
    write_file(service.home / "mlflow-auth.ini", "\n".join(lines) + "\n")


def _port(name: Name, known: Service | None, settings: LocalServiceSettings) -> int:
    fixed = settings.label_studio_port if name == "label-studio" else settings.mlflow_port
    if fixed:
        if not _is_free(fixed):
            variable = f"EDITLOOP_{name.upper().replace('-', '_')}_PORT"
            raise EditLoopError(f"Port {fixed} is in use, so {name} cannot have it: free it or change {variable}.")
        return fixed
    if known and _is_free(known.port):
        return known.port  # addresses in reports and bookmarks stay right
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def _processes(home: Path, name: Name) -> list[psutil.Process]:
    """Processes that carry the service's mark in their environment."""
    mark, found = f"{home}:{name}", []
    for process in psutil.process_iter():
        try:
            if process.environ().get(MARK) == mark and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied, OSError):
            continue  # another user's, or gone meanwhile: not ours
    return found


def _leader(home: Path, name: Name) -> psutil.Process | None:
    """The process that was started, its session's leader; None when it is gone, whatever children it left."""
    return next((process for process in _processes(home, name) if _leads_session(process)), None)


def _leads_session(process: psutil.Process) -> bool:
    try:
        return os.getsid(process.pid) == process.pid
    except ProcessLookupError:
        return False


def _stop(home: Path, name: Name) -> bool:
    """End the service's processes, politely first; returns whether there were any."""
    processes = _processes(home, name)
    for process in processes:
        _signal(process, signal.SIGTERM)
    _, alive = psutil.wait_procs(processes, timeout=STOP_SECONDS)
    for process in {*alive, *_processes(home, name)}:
        _signal(process, signal.SIGKILL)
    psutil.wait_procs(alive, timeout=STOP_SECONDS)
    return bool(processes)


def _signal(process: psutil.Process, number: signal.Signals) -> None:
    try:
        process.send_signal(number)
    except psutil.NoSuchProcess:
        pass


def _load(home: Path) -> dict[Name, Service]:
    path = home / "credentials.json"
    if not path.is_file():
        return {}
    kept = json.loads(path.read_text())
    return {name: Service(name=name, home=home, **kept[name]) for name in NAMES if name in kept}


def _save(home: Path, service: Service) -> None:
    services = _load(home) | {service.name: service}
    kept = {
        name: {"port": one.port, "user": one.user, "password": one.password, "secret": one.secret}
        for name, one in services.items()
    }
    write_file(home / "credentials.json", json.dumps(kept, indent=2) + "\n")  # mode 600: mkstemp's


@contextmanager
def _alone(home: Path) -> Iterator[None]:
    """Hold `home` so that two calls do not start the same service twice; the second waits for the first."""
    try:
        home.mkdir(parents=True, exist_ok=True)
        home.chmod(0o700)  # the databases below hold tokens
        stream = (home / "lock").open("w")
    except OSError as error:
        raise _unusable(home, error) from error
    with stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield


def _unusable(home: Path, error: OSError) -> EditLoopError:
    return EditLoopError(
        f"{home}: services cannot keep their data there: {error}. Free space or choose another folder."
    )


def _tail(log: Path) -> str:
    """The end of a log in one line."""
    lines = log.read_text(errors="replace").split("\n") if log.is_file() else []
    return " | ".join(line.strip() for line in lines if line.strip())[-LOG_TAIL:] or "nothing in its log"


def _program(name: str) -> str | None:
    beside = Path(sys.prefix) / "bin" / name
    return str(beside) if beside.is_file() else shutil.which(name)


def _found(look: Callable[[], str]) -> str | None:
    try:
        return look()
    except EditLoopError:
        return None
