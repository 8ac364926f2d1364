"""Containers of infra/k8s as processes of this machine, with the manifests' commands and variables."""

import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import httpx
import psutil

from editloop.certificates import shared_certificates
from editloop.content import write_file
from editloop.lineage.signing import SIGNING_KEY, VERIFY_KEY, keys_in, make_keys
from editloop.processes import stop_tree
from infra.service_databases import template_root
from infra.service_programs import LABEL_STUDIO_PAGE, label_studio_command, program_version
from infra.settings import LocalServiceSettings
from tests.kubernetes_manifests import FOLDER, config_map, environment, workload
from tests.postgresql_server import Postgresql

START_SECONDS = 240
DATABASES = FOLDER / "components" / "postgresql" / "databases.sql"
DOCKERFILE = FOLDER.parents[1] / "Dockerfile.label-studio"
ONE_PROCESS = {"MLFLOW_WORKERS": "1", "WEB_CONCURRENCY": "1"}
"""In place of the manifests' two of each service: they start in half the time."""
SECRETS = {
    ("editloop-mlflow", "username"): "lead",
    ("editloop-mlflow", "password"): "a password of the tests' MLflow",
    ("editloop-mlflow", "session-key"): "a session key",
    ("editloop-mlflow", "webhook-key"): "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=",
    ("editloop-mlflow-database", "username"): "mlflow",
    ("editloop-mlflow-database", "password"): "it's @ pass:word/of MLflow's",
    ("editloop-label-studio", "username"): "lead@editloop.example",
    ("editloop-label-studio", "password"): "a password of the tests",
    ("editloop-label-studio", "token"): "0123456789abcdef0123456789abcdef01234567",
    ("editloop-label-studio", "session-key"): "another session key",
    ("editloop-label-studio-database", "username"): "label-studio",
    ("editloop-label-studio-database", "password"): "it's @ pass:word/of Label Studio's",
}


@dataclass(frozen=True)
class Cluster:
    """Where the manifests' containers run."""

    folder: Path
    """Stands for the pods' own disks."""
    postgresql: Postgresql
    s3: Mapping[str, str]
    """Variables by which the object storage is found, its log-in included."""
    bucket: str
    ports: Mapping[str, int]
    """Port of each service."""

    def run(self, container: dict[str, Any], **variables: str) -> subprocess.CompletedProcess[str]:
        """Run a container to its end."""
        with tempfile.TemporaryFile("w+") as output:
            process = self.start(container, output, **variables)
            process.wait(START_SECONDS)
            output.seek(0)
            return subprocess.CompletedProcess(process.args, process.returncode, output.read())

    def start(self, container: dict[str, Any], output: IO[str], **variables: str) -> subprocess.Popen[bytes]:
        """Start a container, where its ports and paths are this machine's, with further variables."""
        programs = Path(sys.prefix) / "bin"
        image = {"PYTHONPATH": os.environ.get("PYTHONPATH", "")}
        if container["image"] == "editloop-label-studio":
            programs = label_studio_command(LocalServiceSettings()).parent
            image = _label_studio_image(programs.parent)
        manifests = environment(container, self._addresses(), self._secrets())
        own = {"PATH": f"{programs}:{os.environ['PATH']}", "HOME": str(self.folder), "TMPDIR": str(self.folder)}
        program, *arguments = (self._here(argument) for argument in container["args"])
        return subprocess.Popen(
            [programs / program, *arguments],
            env={**own, **image, **{name: self._here(value) for name, value in manifests.items()}, **variables},
            cwd=self.folder,
            stdout=output,
            stderr=output,
        )

    def url(self, service: str) -> str:
        """Address of a service."""
        return f"http://127.0.0.1:{self.ports[service]}"

    def _here(self, text: str) -> str:
        """A text of a manifest with this machine's ports and paths."""
        places = {
            "0.0.0.0": "127.0.0.1",
            "5000": str(self.ports["mlflow"]),
            "8080": str(self.ports["label-studio"]),
            "/etc/mlflow": str(self.folder),
            "/tmp/label-studio": str(self.folder / "label-studio"),
        }
        pattern = "|".join(map(re.escape, places))
        return re.sub(rf"(?<!\d)({pattern})(?!\d)", lambda match: places[match[0]], text)

    def _addresses(self) -> dict[str, str]:
        """What a team writes into the ConfigMaps."""
        stores = config_map("editloop-stores")
        ours = {name: value.replace("s3://editloop/", f"s3://{self.bucket}/") for name, value in stores.items()}
        return ours | {
            "PGHOST": self.postgresql.environment["PGHOST"],
            "PGPORT": self.postgresql.environment["PGPORT"],
            "AWS_ENDPOINT_URL": self.s3["AWS_ENDPOINT_URL"],
            "STORAGE_AWS_BUCKET_NAME": self.bucket,
            "SESSION_COOKIE_SECURE": "0",
            "MLFLOW_SERVER_ALLOWED_HOSTS": "127.0.0.1:5000",
        }

    def _secrets(self) -> dict[tuple[str, str], str]:
        keys = {"accesskey": "AWS_ACCESS_KEY_ID", "secretkey": "AWS_SECRET_ACCESS_KEY"}
        return SECRETS | {("editloop-s3", key): self.s3[variable] for key, variable in keys.items()}


@contextmanager
def cluster_services(cluster: Cluster) -> Iterator[dict[str, str]]:
    """MLflow and Label Studio, started as their pods are: the variables by which stages find them."""
    make_keys(cluster.folder)
    (cluster.folder / "auth.ini").write_text(config_map("mlflow-auth")["auth.ini"])
    users = {name: SECRETS[f"editloop-{name}-database", "username"] for name in cluster.ports}
    passwords = {name: SECRETS[f"editloop-{name}-database", "password"] for name in cluster.ports}
    variables = {
        f"{name.upper().replace('-', '_')}_DATABASE_{key}": value
        for key, values in (("USER", users), ("PASSWORD", passwords))
        for name, value in values.items()
    }
    cluster.postgresql.psql("--file", str(DATABASES), **variables)
    servers = []
    try:
        with ThreadPoolExecutor() as pool:
            list(pool.map(lambda name: _initialise(cluster, name), cluster.ports))
        for name in cluster.ports:
            with (cluster.folder / f"{name}.log").open("w") as log:
                servers.append(cluster.start(workload(name).pod["containers"][0], log, **ONE_PROCESS))
        for name, server in zip(cluster.ports, servers, strict=True):
            _wait(cluster, name, server)
        yield dict(cluster.s3) | {
            "MLFLOW_TRACKING_URI": cluster.url("mlflow"),
            "MLFLOW_TRACKING_USERNAME": SECRETS["editloop-mlflow", "username"],
            "MLFLOW_TRACKING_PASSWORD": SECRETS["editloop-mlflow", "password"],
            "EDITLOOP_LABEL_STUDIO_URL": cluster.url("label-studio"),
            "EDITLOOP_LABEL_STUDIO_TOKEN": SECRETS["editloop-label-studio", "token"],
            "EDITLOOP_PICTURES": f"s3://{cluster.bucket}/pictures",
            SIGNING_KEY: str(keys_in(cluster.folder).private),
            VERIFY_KEY: str(keys_in(cluster.folder).public),
        }
    finally:
        for server in servers:
            if server.poll() is None:
                stop_tree(psutil.Process(server.pid), grace=5)


def _initialise(cluster: Cluster, name: str) -> None:
    """Run a service's init containers. Label Studio's first migration is kept and copied, as those of SQLite are."""
    version = program_version("label-studio", LocalServiceSettings())
    template = template_root(LocalServiceSettings()) / f"label-studio-{version}.dump"
    if name == "label-studio" and template.is_file():
        _client(cluster, "pg_restore", "--dbname=label_studio", "--no-owner", "--exit-on-error", str(template))
    for container in workload(name).pod["initContainers"]:
        done = cluster.run(container)
        assert done.returncode == 0, done.stdout
        if name == "label-studio" and not template.is_file():
            write_file(template, _client(cluster, "pg_dump", "--format=custom", "--no-owner", "label_studio"))


def _client(cluster: Cluster, program: str, *arguments: str) -> bytes:
    """Run one of PostgreSQL's clients as Label Studio, and return its output."""
    keys = {"PGUSER": "username", "PGPASSWORD": "password"}
    user = {variable: SECRETS["editloop-label-studio-database", key] for variable, key in keys.items()}
    command = [cluster.postgresql.programs / program, *arguments]
    return subprocess.run(
        command, env=os.environ | cluster.postgresql.environment | user, check=True, stdout=subprocess.PIPE
    ).stdout


def _label_studio_image(installation: Path) -> dict[str, str]:
    """The variables of Label Studio's image, with the path of an installation."""
    variables = dict(
        re.findall(r"(PYTHONPATH|DJANGO_SETTINGS_MODULE|EDITLOOP_LABELLING_SCRIPT)=(\S+)", DOCKERFILE.read_text())
    )
    (server,) = installation.glob("lib/python3*/site-packages/label_studio")
    script = LABEL_STUDIO_PAGE["EDITLOOP_LABELLING_SCRIPT"]
    assert Path(variables["EDITLOOP_LABELLING_SCRIPT"]).name == Path(script).name
    path = f"{server}{os.pathsep}{LABEL_STUDIO_PAGE['PYTHONPATH']}"
    return variables | {"PYTHONPATH": path, "EDITLOOP_LABELLING_SCRIPT": script}


def _wait(cluster: Cluster, name: str, server: subprocess.Popen[bytes]) -> None:
    """Wait until the server's readiness probe answers."""
    path = workload(name).pod["containers"][0]["readinessProbe"]["httpGet"]["path"]
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            reply = httpx.get(f"{cluster.url(name)}{path}", timeout=10, verify=shared_certificates())
            if reply.status_code == 200:
                return
        except httpx.HTTPError:
            pass
        log = cluster.folder / f"{name}.log"
        assert server.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.2)
