"""The dataset repository: versions that can be had again, from a folder or a git address, and planted faults."""

import os
import subprocess
from pathlib import Path

import pytest

from infra.content import complete_folder
from infra.datarepo import Origin, commit_dataset, fetch_dataset
from infra.dataset_versions import contents, versions, versions_with
from infra.errors import EditLoopError


def make(folder: Path, text: str) -> Path:
    with complete_folder(folder) as out:
        (out / "rows.parquet").write_text(text)
    return folder


def git(repo: Path, *arguments: str) -> str:
    who = ("-c", "user.name=x", "-c", "user.email=x@x")
    done = subprocess.run(["git", *who, *arguments], cwd=repo, check=True, capture_output=True, text=True)
    return done.stdout.strip()


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


def test_a_tag_that_is_gone_is_named_with_how_to_put_it_back(tmp_path: Path) -> None:
    one = commit(tmp_path, "one")
    git(tmp_path / "repo", "tag", "--delete", one["tag"])
    with pytest.raises(
        EditLoopError, match=f"tag {one['tag']} is gone. Put it back: git tag {one['tag']} {one['dvc_rev']}"
    ):
        fetch_dataset(one, tmp_path / "back")


def test_a_history_without_the_commit_is_named(tmp_path: Path) -> None:
    one = commit(tmp_path, "one")
    repo = tmp_path / "repo"
    git(repo, "commit", "--quiet", "--amend", "--message", "rewritten")
    git(repo, "tag", "--delete", one["tag"])
    git(repo, "reflog", "expire", "--expire=now", "--all")
    git(repo, "gc", "--quiet", "--prune=now")
    git(repo, "tag", "--annotate", one["tag"], "--message", one["sha256"])
    with pytest.raises(EditLoopError, match=f"commit {one['dvc_rev']}.*is gone. Somebody rewrote the history"):
        fetch_dataset(one, tmp_path / "back")


def test_a_record_that_names_another_content_than_the_commit_is_found(tmp_path: Path) -> None:
    """As where both commit and tag were made anew for other content, and the record with them."""
    one, two = commit(tmp_path, "one"), commit(tmp_path, "two")
    with pytest.raises(EditLoopError, match=f"holds {one['sha256']}, but {two['sha256']} was recorded"):
        fetch_dataset({**one, "sha256": two["sha256"]}, tmp_path / "back")


def test_a_byte_changed_in_the_store_is_found(tmp_path: Path) -> None:
    one = commit(tmp_path, "one")
    stored = [
        path for place in ("remote", "repo/.dvc/cache") for path in (tmp_path / place).rglob("*") if path.is_file()
    ]
    for path in stored:
        if path.read_bytes() == b"one":
            path.chmod(0o600)
            path.write_bytes(b"onf")
    with pytest.raises(EditLoopError):
        fetch_dataset(one, tmp_path / "back")
    assert not (tmp_path / "back").exists()


def test_versions_of_a_repository_elsewhere_and_of_older_ones(tmp_path: Path) -> None:
    (tmp_path / "shared.git").mkdir()
    git(tmp_path / "shared.git", "init", "--bare", "--quiet", "--initial-branch", "main")
    address = f"file://{tmp_path}/shared.git"
    assert versions(str(tmp_path / "nothing here")) == []
    old = commit(tmp_path, "one", repo=address)
    origin = Origin(
        annotators=("ada", "Bö"), task_ids=("t1",), images=("f" * 64,), judgements_sha256="j", candidates_sha256="c"
    )
    data = make(tmp_path / "data", "two")
    new = commit_dataset(data, repo=address, remote=str(tmp_path / "remote"), message="x", origin=origin)
    first, second = versions(address)
    assert (first.tag, first.sha256, first.dvc_rev, first.annotators) == (
        old["tag"],
        old["sha256"],
        old["dvc_rev"],
        None,
    )
    assert (second.tag, second.annotators, second.parent) == (new["tag"], ("ada", "Bö"), None)
    for text in ("Bö", "t1", "f" * 64):
        assert versions_with(address, text) == [second]
    assert versions_with(address, "B") == versions_with(address, "f" * 63) == []
    assert contents(address, new["tag"]) == {"task_ids": ["t1"], "images": ["f" * 64]}
    with pytest.raises(EditLoopError, match="has no version preferences-0"):
        contents(address, "preferences-0")


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
