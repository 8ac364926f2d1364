"""git as the dataset repository needs it: what a command does depends on the repository, not on whose machine it is.

Commands within a repository read its own settings alone. Those that reach another repository (clone, fetch, push) read
the user's settings too, because credentials, proxies and trusted folders are there; what would change the result is
overridden.
"""

import io
import os
import re
import subprocess
from collections.abc import Collection, Sequence
from pathlib import Path

from editloop.errors import EditLoopError

NETWORK_COMMANDS = ("clone", "fetch", "push")
SETTINGS = {
    "color.ui": "false",
    "commit.gpgSign": "false",
    "core.attributesFile": os.devnull,
    "core.autocrlf": "false",
    "core.excludesFile": os.devnull,
    "core.fsmonitor": "false",
    "core.hooksPath": os.devnull,
    "fetch.prune": "false",
    "fetch.pruneTags": "false",
    "init.defaultBranch": "main",
    "push.followTags": "false",
    "push.gpgSign": "false",
    "push.recurseSubmodules": "no",
    "submodule.recurse": "false",
    "tag.gpgSign": "false",
}
"""Of every command, whatever the repository or the user says. The author is EditLoop, which has no key to sign with;
hooks check people's commits."""
IDENTITY = {
    f"GIT_{role}_{field}": value
    for role in ("AUTHOR", "COMMITTER")
    for field, value in (("NAME", "EditLoop"), ("EMAIL", "editloop@localhost"))
}


def git(folder: Path, *arguments: str, accepted: Collection[int] = (0,)) -> str:
    """Run git in a folder.

    Args:
        folder: The working folder, or a bare repository.
        arguments: Of git, the subcommand first.
        accepted: Exit statuses that are no failure.

    Returns:
        Standard output, stripped.

    Raises:
        EditLoopError: git ended with another status; the message has git's words, in English.
    """
    return _run(folder, arguments, accepted=accepted).decode(errors="replace").strip()


def git_succeeds(folder: Path, *arguments: str) -> bool:
    """Whether a git command that asks a question ends with status 0; EditLoopError for any status but 0 and 1."""
    return _call(folder, arguments, b"", (0, 1)).returncode == 0


def git_objects(folder: Path, names: Sequence[str]) -> list[bytes | None]:
    """The contents of git's objects by name (COMMIT, TAG:PATH), in order; None for one that is not there."""
    output = io.BytesIO(_run(folder, ["cat-file", "--batch"], "".join(f"{name}\n" for name in names).encode()))
    contents: list[bytes | None] = []
    for _ in names:
        size = output.readline().split(b" ")[-1].strip()
        contents.append(output.read(int(size) + 1)[:-1] if size.isdigit() else None)
    return contents


def _run(folder: Path, arguments: Sequence[str], stdin: bytes = b"", accepted: Collection[int] = (0,)) -> bytes:
    return _call(folder, arguments, stdin, accepted).stdout


def _call(
    folder: Path, arguments: Sequence[str], stdin: bytes, accepted: Collection[int]
) -> subprocess.CompletedProcess[bytes]:
    settings = [f"{name}={value}" for name, value in SETTINGS.items()]
    settings += [f"safe.directory={directory}" for directory in _trusted_directories(folder)]
    command = ["git", *(word for setting in settings for word in ("-c", setting)), *arguments]
    environment = _environment(arguments[0])
    completed = subprocess.run(command, cwd=folder, env=environment, input=stdin, capture_output=True, check=False)
    if completed.returncode not in accepted:
        words = " ".join((completed.stderr or completed.stdout).decode(errors="replace").split())
        message = f"dataset repository {folder}: git {' '.join(arguments[-6:])}: {words}"
        raise EditLoopError(re.sub(r"://[^/\s@]+@", "://***@", message))  # an address may hold a password
    return completed


def _environment(subcommand: str) -> dict[str, str]:
    """The process's environment without its git variables, and with those that make git's result the same anywhere."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    environment |= IDENTITY | {
        "GIT_ATTR_NOSYSTEM": "1",
        "GIT_DEFAULT_HASH": "sha1",
        "GIT_DEFAULT_REF_FORMAT": "files",
        "GIT_TEMPLATE_DIR": "",
        "GIT_TERMINAL_PROMPT": "0",
        "LC_ALL": "C",
    }
    if subcommand not in NETWORK_COMMANDS:
        environment |= {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}
    return environment


def _trusted_directories(folder: Path) -> list[str]:
    """The folders of other people that the user told git to trust, where `folder` is somebody else's."""
    if folder.stat().st_uid == os.geteuid():
        return []
    command = ["git", "config", "--get-all", "safe.directory"]
    return subprocess.run(command, cwd="/", capture_output=True, text=True, check=False).stdout.splitlines()
