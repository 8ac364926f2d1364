"""Git commands for the dataset repository, with results that do not depend on the user's machine.

Commands within a repository read only its own settings. Commands that contact another repository (clone, fetch,
ls-remote, push) also read the user's, because credentials, proxies and trusted folders are set there; settings that
would change the result are overridden.
"""

import io
import os
import subprocess
from collections.abc import Collection, Sequence
from pathlib import Path

from editloop.errors import EditLoopError

NETWORK_COMMANDS = ("clone", "fetch", "ls-remote", "push")
"""Commands that contact another repository."""
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
    "protocol.ext.allow": "never",
    "protocol.fd.allow": "never",
    "push.followTags": "false",
    "push.gpgSign": "false",
    "push.recurseSubmodules": "no",
    "submodule.recurse": "false",
    "tag.gpgSign": "false",
}
"""Settings of every command, over those of repository and user. The author is EditLoop, which has no key to sign with.
Hooks are off, as they check people's commits. Addresses that are commands (ext::) or descriptors (fd::) are refused,
also where the user's own settings allow them: an address may come from a registry's record."""
IDENTITY = {
    f"GIT_{role}_{field}": value
    for role in ("AUTHOR", "COMMITTER")
    for field, value in (("NAME", "EditLoop"), ("EMAIL", "editloop@localhost"))
}
"""Author and committer of every commit."""


def git(folder: Path, *arguments: str, accepted: Collection[int] = (0,)) -> str:
    """Run git in a folder.

    Args:
        folder: The working folder, or a bare repository.
        *arguments: Arguments of git, the subcommand first.
        accepted: Exit statuses that count as success.

    Returns:
        Standard output, stripped.

    Raises:
        EditLoopError: git ended with another status. The message quotes git, in English.
    """
    return _run(folder, arguments, accepted=accepted).stdout.decode(errors="replace").strip()


def git_succeeds(folder: Path, *arguments: str) -> bool:
    """Return whether a git command that tests something ends with status 0 rather than 1.

    Args:
        folder: The working folder, or a bare repository.
        *arguments: Arguments of git, the subcommand first.

    Raises:
        EditLoopError: git ended with another status.
    """
    return _run(folder, arguments, accepted=(0, 1)).returncode == 0


def git_objects(folder: Path, names: Sequence[str]) -> list[bytes | None]:
    """Return the contents of git objects, in order.

    Args:
        folder: The working folder, or a bare repository.
        names: Names of the objects: a commit, TAG:PATH and the like.

    Returns:
        One entry per name; None where there is no such object.
    """
    stdin = "".join(f"{name}\n" for name in names).encode()
    output = io.BytesIO(_run(folder, ["cat-file", "--batch"], stdin).stdout)
    contents: list[bytes | None] = []
    for _ in names:
        size = output.readline().split(b" ")[-1].strip()
        contents.append(output.read(int(size) + 1)[:-1] if size.isdigit() else None)
    return contents


def _run(
    folder: Path, arguments: Sequence[str], stdin: bytes = b"", accepted: Collection[int] = (0,)
) -> subprocess.CompletedProcess[bytes]:
    settings = [f"{name}={value}" for name, value in SETTINGS.items()]
    settings += [f"safe.directory={directory}" for directory in _trusted_directories(folder)]
    command = ["git", *(word for setting in settings for word in ("-c", setting)), *arguments]
    environment = _environment(arguments[0])
    completed = subprocess.run(command, cwd=folder, env=environment, input=stdin, capture_output=True, check=False)
    if completed.returncode not in accepted:
        words = " ".join((completed.stderr or completed.stdout).decode(errors="replace").split())
        raise EditLoopError(f"dataset repository {folder}: git {' '.join(arguments[-6:])}: {words}")
    return completed


def _environment(subcommand: str) -> dict[str, str]:
    """Return the process's environment, its GIT_ variables replaced by those that make results reproducible."""
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
    """Return the user's `safe.directory` settings where the folder belongs to another user, else nothing."""
    if folder.stat().st_uid == os.geteuid():
        return []
    command = ["git", "config", "--get-all", "safe.directory"]
    return subprocess.run(command, cwd="/", capture_output=True, text=True, check=False).stdout.splitlines()
