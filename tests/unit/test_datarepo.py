"""The dataset repository: versions that can be had again, from a folder or a git address, and planted faults."""

import os
import subprocess
from pathlib import Path

import pytest

from infra.content import complete_folder
from infra.datarepo import commit_dataset, fetch_dataset
from infra.errors import EditLoopError


def make(folder: Path, text: str) -> Path:
    with complete_folder(folder) as out:
        (out / "rows.parquet").write_text(text)
    return folder


def git(repo: Path, *arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=repo, check=True, capture_output=True, text=True).stdout.strip()


def commit(tmp_path: Path, text: str, repo: str | None = None) -> dict:
    data = make(tmp_path / "data", text)
    return dict(
        commit_dataset(data, repo=repo or str(tmp_path / "repo"), remote=str(tmp_path / "remote"), message="pairs")
    )


def test_each_content_is_one_version_that_can_be_fetched(tmp_path: Path) -> None:
    one, two, again = commit(tmp_path, "one"), commit(tmp_path, "two"), commit(tmp_path, "one")
    assert one == again
    assert one["dvc_rev"] != two["dvc_rev"]
    assert len(git(tmp_path / "repo", "tag").splitlines()) == 2
    for version, text in ((one, "one"), (two, "two")):
        fetch_dataset(version, tmp_path / f"back-{text}")
        assert (tmp_path / f"back-{text}" / "rows.parquet").read_text() == text


def test_a_killed_writer_is_followed_by_a_whole_version(tmp_path: Path) -> None:
    commit(tmp_path, "one")
    (tmp_path / "repo" / ".git" / "index.lock").touch()
    make(tmp_path / "repo" / "half", "left over")
    version = commit(tmp_path, "two")
    fetch_dataset(version, tmp_path / "back")
    assert (tmp_path / "back" / "rows.parquet").read_text() == "two"


def test_a_moved_tag_is_found(tmp_path: Path) -> None:
    one, two = commit(tmp_path, "one"), commit(tmp_path, "two")
    git(tmp_path / "repo", "tag", "--force", one["tag"], two["dvc_rev"])
    with pytest.raises(EditLoopError, match="moved the tag"):
        fetch_dataset(one, tmp_path / "back")


def test_lost_content_is_found(tmp_path: Path) -> None:
    version = commit(tmp_path, "one")
    for place in (tmp_path / "remote", tmp_path / "repo" / ".dvc" / "cache"):
        for path in sorted(place.rglob("*"), reverse=True):
            path.chmod(0o700)
            os.rmdir(path) if path.is_dir() else path.unlink()
    with pytest.raises(EditLoopError, match="dataset repository"):
        fetch_dataset(version, tmp_path / "back")


def test_a_repository_elsewhere_gets_commits_and_tags(tmp_path: Path) -> None:
    (tmp_path / "shared.git").mkdir()
    git(tmp_path / "shared.git", "init", "--bare", "--quiet", "--initial-branch", "main")
    address = f"file://{tmp_path}/shared.git"
    version = commit(tmp_path, "one", repo=address)
    assert commit(tmp_path, "one", repo=address) == version
    fetch_dataset(version, tmp_path / "back")
    assert git(tmp_path / "shared.git", "tag") == version["tag"]
