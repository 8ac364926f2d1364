"""The dataset repository: versions that can be had again, from a folder or a git address, and planted faults."""

import hashlib
import json
import os
import shutil
from pathlib import Path

import pytest
from dvc.repo import Repo

from editloop.content import read_manifest
from editloop.datasets.git_command import git_objects
from editloop.datasets.repository import CONTENTS, DatasetOrigin, DatasetVersion, fetch_dataset, tag_of
from editloop.datasets.versions import versions, versions_with
from editloop.errors import EditLoopError
from tests.dataset_repositories import commit_text, make_dataset, make_shared, run_git


def test_each_content_is_one_version_that_can_be_fetched(tmp_path: Path) -> None:
    one, two, again = commit_text(tmp_path, "one"), commit_text(tmp_path, "two"), commit_text(tmp_path, "one")
    assert one == again
    assert one["dvc_rev"] != two["dvc_rev"]
    assert len(run_git(tmp_path / "repo", "tag").splitlines()) == 2
    for version, text in ((one, "one"), (two, "two")):
        fetch_dataset(version, tmp_path / f"back-{text}")
        assert (tmp_path / f"back-{text}" / "rows.parquet").read_text() == text


def test_a_killed_writer_is_followed_by_a_whole_version(tmp_path: Path) -> None:
    commit_text(tmp_path, "one")
    (tmp_path / "repo" / ".git" / "index.lock").touch()
    make_dataset(tmp_path / "repo" / "half", "left over")
    version = commit_text(tmp_path, "two")
    fetch_dataset(version, tmp_path / "back")
    assert (tmp_path / "back" / "rows.parquet").read_text() == "two"


@pytest.mark.parametrize("left", ["", '{"/data": {"read": [{"pi'])
def test_a_list_of_dvcs_processes_that_was_cut_off_stops_nobody(tmp_path: Path, left: str) -> None:
    commit_text(tmp_path, "one")
    (tmp_path / "repo" / ".dvc" / "tmp" / "rwlock").write_text(left)
    fetch_dataset(commit_text(tmp_path, "two"), tmp_path / "back")
    assert (tmp_path / "back" / "rows.parquet").read_text() == "two"


def test_content_that_was_cut_off_in_dvcs_cache_is_not_taken_for_whole(tmp_path: Path) -> None:
    commit_text(tmp_path, "one")
    cached = tmp_path / "repo" / ".dvc" / "cache" / "files" / "md5" / hashlib.md5(b"a longer text").hexdigest()[:2]
    cached.mkdir(parents=True, exist_ok=True)
    (cached / hashlib.md5(b"a longer text").hexdigest()[2:]).write_text("a lon")
    fetch_dataset(commit_text(tmp_path, "a longer text"), tmp_path / "back")
    assert (tmp_path / "back" / "rows.parquet").read_text() == "a longer text"


def test_a_moved_tag_is_found(tmp_path: Path) -> None:
    one, two = commit_text(tmp_path, "one"), commit_text(tmp_path, "two")
    run_git(tmp_path / "repo", "tag", "--force", one["tag"], two["dvc_rev"])
    with pytest.raises(EditLoopError, match="moved the tag"):
        fetch_dataset(one, tmp_path / "back")


def test_a_tag_that_is_gone_is_named_with_how_to_put_it_back(tmp_path: Path) -> None:
    one = commit_text(tmp_path, "one")
    run_git(tmp_path / "repo", "tag", "--delete", one["tag"])
    with pytest.raises(
        EditLoopError, match=f"tag {one['tag']} is gone. Put it back: git tag {one['tag']} {one['dvc_rev']}"
    ):
        fetch_dataset(one, tmp_path / "back")


def test_a_history_without_the_commit_is_named(tmp_path: Path) -> None:
    one = commit_text(tmp_path, "one")
    repo = tmp_path / "repo"
    run_git(repo, "commit", "--quiet", "--amend", "--message", "rewritten")
    run_git(repo, "tag", "--delete", one["tag"])
    run_git(repo, "reflog", "expire", "--expire=now", "--all")
    run_git(repo, "gc", "--quiet", "--prune=now")
    run_git(repo, "tag", "--annotate", one["tag"], "--message", one["sha256"])
    with pytest.raises(EditLoopError, match=f"commit {one['dvc_rev']}.*is gone. Somebody rewrote the history"):
        fetch_dataset(one, tmp_path / "back")


def test_a_record_that_names_another_content_than_the_commit_is_found(tmp_path: Path) -> None:
    """As where both commit and tag were made anew for other content, and the record with them."""
    one, two = commit_text(tmp_path, "one"), commit_text(tmp_path, "two")
    with pytest.raises(EditLoopError, match=f"holds {one['sha256']}, but {two['sha256']} was recorded"):
        fetch_dataset({**one, "sha256": two["sha256"]}, tmp_path / "back")


def test_a_byte_changed_in_the_store_is_found(tmp_path: Path) -> None:
    one = commit_text(tmp_path, "one")
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
    address = make_shared(tmp_path)
    assert versions(str(tmp_path / "nothing here")) == []
    old = commit_text(tmp_path, "one", repo=address)
    origin = DatasetOrigin(
        annotators=("ada", "Bö"), task_ids=("t1",), images=("f" * 64,), judgements_sha256="j", candidates_sha256="c"
    )
    new = commit_text(tmp_path, "two", repo=address, origin=origin)
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
    (contents,) = git_objects(tmp_path / "shared.git", [f"{new['tag']}:{CONTENTS}"])
    assert json.loads(contents) == {"task_ids": ["t1"], "images": ["f" * 64]}


def test_lost_content_is_found(tmp_path: Path) -> None:
    version = commit_text(tmp_path, "one")
    for place in (tmp_path / "remote", tmp_path / "repo" / ".dvc" / "cache"):
        for path in sorted(place.rglob("*"), reverse=True):
            path.chmod(0o700)
            os.rmdir(path) if path.is_dir() else path.unlink()
    with pytest.raises(EditLoopError, match="dataset repository"):
        fetch_dataset(version, tmp_path / "back")


def test_a_repository_elsewhere_gets_commits_and_tags(tmp_path: Path) -> None:
    address = make_shared(tmp_path)
    version = commit_text(tmp_path, "one", repo=address)
    assert commit_text(tmp_path, "one", repo=address) == version
    fetch_dataset(version, tmp_path / "back")
    assert run_git(tmp_path / "shared.git", "tag") == version["tag"]


def test_a_repository_that_was_made_with_dvcs_own_commands_is_read_and_grows(tmp_path: Path) -> None:
    """As earlier releases made it: `dvc init`, `remote add`, `add`, `push`, then git."""
    repo, dataset = tmp_path / "repo", make_dataset(tmp_path / "data", "one")
    sha256 = str(read_manifest(dataset)["sha256"])
    repo.mkdir()
    run_git(repo, "init", "--quiet", "--initial-branch", "main")
    with Repo.init(str(repo)) as made:
        with made.config.edit() as config:
            config["core"] |= {"analytics": False, "remote": "store"}
            config["remote"]["store"] = {"url": str(tmp_path / "remote")}
        shutil.copytree(dataset, repo / "preferences")
        made.add(str(repo / "preferences"))
        made.push()
    run_git(repo, "add", "--all")
    run_git(repo, "commit", "--quiet", "--message", "pairs")
    run_git(repo, "tag", "--annotate", tag_of(sha256), "--message", sha256)
    revision = run_git(repo, "rev-parse", "HEAD")
    old = DatasetVersion(dvc_rev=revision, tag=tag_of(sha256), sha256=sha256, repo=str(repo))
    fetch_dataset(old, tmp_path / "back")
    assert commit_text(tmp_path, "one") == old
    new = commit_text(tmp_path, "two")
    assert [row.dvc_rev for row in versions(str(repo))] == [revision, new["dvc_rev"]]
    fetch_dataset({**old, "repo": repo.as_uri()}, tmp_path / "back of a clone")
    fetch_dataset(new, tmp_path / "back of the new")
