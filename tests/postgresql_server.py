"""A real PostgreSQL server on this machine, for the tests that need one: none of the system's, and thrown away."""

import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

OWNER = "nobody"
"""Account that the server runs as where the tests run as root, whom PostgreSQL refuses."""


def find_programs() -> Path | None:
    """The folder of initdb and postgres; None where PostgreSQL is not installed."""
    debian = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    path = shutil.which("initdb")
    return debian[-1] if debian else Path(path).resolve().parent if path else None


class Postgresql(NamedTuple):
    """A running server."""

    programs: Path
    environment: dict[str, str]
    """libpq's variables by which the administrator reaches it."""

    def psql(self, *arguments: str, **variables: str) -> str:
        """Run psql as the administrator, and return its output."""
        command = [self.programs / "psql", "--no-psqlrc", "--quiet", "--tuples-only", "--no-align"]
        done = subprocess.run(
            [*command, "--set=ON_ERROR_STOP=1", *arguments],
            env=os.environ | self.environment | variables,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()


@contextmanager
def postgresql_server(programs: Path) -> Iterator[Postgresql]:
    """A server with passwords, on a free port of the loopback interface."""
    account: dict[str, Any] = {"user": OWNER, "extra_groups": []} if os.geteuid() == 0 else {}
    folder = Path(tempfile.mkdtemp(prefix="postgresql-"))  # not pytest's, which its owner alone may enter
    password = secrets.token_urlsafe(16)
    try:
        (folder / "password").write_text(password)
        if account:
            for path in (folder, folder / "password"):
                shutil.chown(path, OWNER)
        initdb = [programs / "initdb", f"--pgdata={folder / 'data'}", "--username=postgres", "--auth=scram-sha-256"]
        initdb += [f"--pwfile={folder / 'password'}", "--no-sync"]
        subprocess.run(initdb, check=True, stdout=subprocess.DEVNULL, cwd=folder, **account)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = str(probe.getsockname()[1])
        settings = (f"unix_socket_directories={folder}", "listen_addresses=127.0.0.1", f"port={port}", "fsync=off")
        command = [programs / "postgres", "-D", folder / "data", *(part for each in settings for part in ("-c", each))]
        with (folder / "log").open("wb") as log:
            server = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder, **account)
        try:
            yield Postgresql(programs, _administrator(programs, port, password, server, folder / "log"))
        finally:
            server.send_signal(signal.SIGQUIT)  # at once, and nothing is left in shared memory
            server.wait()
    finally:
        shutil.rmtree(folder)


def _administrator(
    programs: Path, port: str, password: str, server: subprocess.Popen[bytes], log: Path
) -> dict[str, str]:
    """The administrator's variables, once the server answers."""
    variables = {"PGHOST": "127.0.0.1", "PGPORT": port, "PGUSER": "postgres", "PGPASSWORD": password}
    ready = [programs / "pg_isready", "--quiet"]
    while subprocess.run(ready, env=os.environ | variables, check=False).returncode:
        assert server.poll() is None, log.read_text()
    return variables
