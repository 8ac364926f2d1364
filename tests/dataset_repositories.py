"""Small dataset repositories for the tests: a folder with one file becomes a version."""

import subprocess
from pathlib import Path

from editloop.content import complete_folder
from editloop.datasets.repository import DatasetOrigin, DatasetVersion, commit_dataset


def make_dataset(folder: Path, text: str) -> Path:
    """A complete folder with one file, `rows.parquet`, of this text."""
    with complete_folder(folder) as out:
        (out / "rows.parquet").write_text(text)
    return folder


def commit_text(
    tmp_path: Path, text: str, repo: str | None = None, *, origin: DatasetOrigin | None = None
) -> DatasetVersion:
    """Put a dataset of this text into the repository `repo`, tmp_path/repo by default, with the remote beside it."""
    dataset = make_dataset(tmp_path / "data", text)
    remote = str(tmp_path / "remote")
    return commit_dataset(dataset, repo=repo or str(tmp_path / "repo"), remote=remote, message="pairs", origin=origin)


def run_git(repo: Path, *arguments: str) -> str:
    """What a person's git prints in a folder."""
    author = ("-c", "user.name=x", "-c", "user.email=x@x")
    return subprocess.run(
        ["git", *author, *arguments], cwd=repo, check=True, capture_output=True, text=True
    ).stdout.strip()


def make_shared(tmp_path: Path) -> str:
    """The address of an empty bare repository."""
    (tmp_path / "shared.git").mkdir()
    run_git(tmp_path / "shared.git", "init", "--bare", "--quiet", "--initial-branch", "main")
    return f"file://{tmp_path}/shared.git"
