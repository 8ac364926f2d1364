"""The dataset repository: a git repository whose big folders DVC keeps, one tag a version.

It holds one folder, `preferences/`. A version is tagged last, after its content was pushed, so a tag means that the
content can be fetched. One writer at a time: DVC's locks fail rather than wait, so writers queue on a lock of ours.
"""

import fcntl
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypedDict

from infra.content import read_manifest
from infra.errors import EditLoopError

FOLDER = "preferences"
AUTHOR = ("-c", "user.name=EditLoop", "-c", "user.email=editloop@localhost")


class Version(TypedDict):
    """Where a dataset can be had again: git commit, tag, the content's sha256, the repository's address."""

    dvc_rev: str
    tag: str
    sha256: str
    repo: str


def tag_of(sha256: str) -> str:
    """The tag of a dataset with this manifest sha256."""
    return f"{FOLDER}-{sha256[:12]}"


def commit_dataset(dataset: Path, *, repo: str, remote: str, message: str) -> Version:
    """Put a complete folder into the repository as a tagged version; the same content again adds nothing.

    `repo` is a folder (made when missing) or a git URL, `remote` a DVC remote (folder or s3://...). Raises
    EditLoopError with the tool's own words where git or dvc refuses.
    """
    sha256 = str(read_manifest(dataset, check=True)["sha256"])
    tag = tag_of(sha256)
    with _checkout(repo) as (folder, is_clone):
        _prepare(folder, remote)
        if not _git(folder, "tag", "--list", tag):
            _replace(dataset, folder / FOLDER)
            _dvc(folder, "add", "--quiet", FOLDER)
            _git(folder, "add", "--all", f"{FOLDER}.dvc", ".gitignore", ".dvc")
            if _git(folder, "status", "--porcelain", "--untracked-files=no"):
                _git(folder, *AUTHOR, "commit", "--quiet", "--message", f"{message}\n\nsha256: {sha256}")
            _dvc(folder, "push", "--quiet")
            _git(folder, *AUTHOR, "tag", "--annotate", tag, "--message", sha256)
        revision = _git(folder, "rev-list", "-n", "1", tag)
        if is_clone:
            _git(folder, "push", "--quiet", "--follow-tags", "origin", "HEAD")
    return Version(dvc_rev=revision, tag=tag, sha256=sha256, repo=repo)


def fetch_dataset(version: Version, target: Path) -> None:
    """Fetch a version to `target`, checked: the tag is still on the recorded commit, the content has the sha256."""
    with _checkout(version["repo"]) as (folder, _):
        found = _git(folder, "rev-list", "-n", "1", version["tag"])
        if found != version["dvc_rev"]:
            raise EditLoopError(
                f"{version['repo']}: tag {version['tag']} is commit {found}, but {version['dvc_rev']} was recorded. "
                f"Someone moved the tag; put it back."
            )
        with tempfile.TemporaryDirectory() as temporary:
            fetched = Path(temporary) / FOLDER
            _dvc(folder, "get", "--quiet", "--rev", version["tag"], ".", FOLDER, "--out", str(fetched))
            sha256 = read_manifest(fetched, check=True)["sha256"]
            if sha256 != version["sha256"]:
                raise EditLoopError(f"{version['repo']}: {version['tag']} holds {sha256}, not {version['sha256']}.")
            shutil.copytree(fetched, target)


def is_url(repo: str) -> bool:
    """Whether a repository's name is an address rather than a folder here."""
    return "://" in repo or repo.startswith("git@")


@contextmanager
def _checkout(repo: str) -> Iterator[tuple[Path, bool]]:
    """A working folder of the repository that nobody else writes to, and whether it is a clone to be pushed."""
    if is_url(repo):
        with tempfile.TemporaryDirectory(prefix="editloop-dataset-") as temporary:
            _run(Path(temporary), ["git", "clone", "--quiet", repo, "repo"])
            yield Path(temporary) / "repo", True
        return
    folder = Path(repo).absolute()
    folder.mkdir(parents=True, exist_ok=True)
    with (folder.parent / f".{folder.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        (folder / ".git" / "index.lock").unlink(missing_ok=True)  # of a writer that was killed
        yield folder, False


def _prepare(folder: Path, remote: str) -> None:
    """Make the folder a git and DVC repository with the remote, as far as it is not."""
    if not (folder / ".git" / "HEAD").exists():
        _git(folder, "init", "--quiet", "--initial-branch", "main")
    if not (folder / ".dvc" / "config").exists():
        _dvc(folder, "init", "--quiet", "--force")
        _dvc(folder, "config", "core.analytics", "false")
    place = remote if "://" in remote else str(Path(remote).absolute())
    _dvc(folder, "remote", "add", "--quiet", "--force", "--default", "store", place)


def _replace(source: Path, target: Path) -> None:
    if target.exists():
        shutil.rmtree(target)
    shutil.copytree(source, target)


def _git(folder: Path, *arguments: str) -> str:
    return _run(folder, ["git", *arguments])


def _dvc(folder: Path, *arguments: str) -> str:
    return _run(folder, [sys.executable, "-m", "dvc", *arguments])


def _run(folder: Path, command: list[str]) -> str:
    """Run a command in the folder and give its output; the surroundings' git variables do not reach it."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
    environment |= {"DVC_NO_ANALYTICS": "true", "GIT_TERMINAL_PROMPT": "0"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        what = " ".join(command[-6:])
        raise EditLoopError(f"dataset repository {folder}: {what}: {(done.stderr or done.stdout).strip()}")
    return done.stdout.strip()


def read_version(path: Path) -> Version:
    """The version that the dataset stage wrote beside its folder."""
    version: Version = json.loads(path.read_text())
    return version
