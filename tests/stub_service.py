"""A program of a few lines in Label Studio's place, for tests of what EditLoop does around it."""

import stat
import sys
from pathlib import Path

import psutil

from infra.service_processes import MARK

MIGRATES = """
import os, pathlib, signal, sqlite3, subprocess, sys, time

def migrate():
    folder = pathlib.Path(os.environ["LABEL_STUDIO_BASE_DATA_DIR"])
    (folder / ".env").write_text("SECRET_KEY=of-this-folder")
    with sqlite3.connect(folder / "label_studio.sqlite3") as connection:
        connection.execute("CREATE TABLE project (id)")
"""


def write_label_studio(path: Path, start: str, *, version: str = "migrate()") -> Path:
    """Write a program that runs `version` when asked for its version, which migrates, and `start` otherwise."""
    indented = "\n    ".join(version.splitlines())
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        f"#!{sys.executable}\n{MIGRATES}\nif sys.argv[1] == 'version':\n    {indented}\n    sys.exit()\n{start}\n"
    )
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def marked(folder: Path) -> list[psutil.Process]:
    """The services' processes that run for a folder, or for one below it."""
    processes = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(MARK, "").startswith(str(folder)) and process.status() != psutil.STATUS_ZOMBIE:
                processes.append(process)
        except psutil.Error:
            continue
    return processes
