"""What the dataset repository would refuse is told before people answer: by doctor and by the first step of a run."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from editloop.datasets import checkout
from editloop.datasets.repository_check import check_dataset_repository
from editloop.errors import EditLoopError
from infra.doctor import check_machine
from pipelines.service_checks import check_services
from tests.dataset_repositories import commit_text, make_shared, run_git


def file_in_the_way(tmp_path: Path) -> str:
    (tmp_path / "file").write_text("")
    return str(tmp_path / "file" / "repo")


def bare(tmp_path: Path) -> str:
    make_shared(tmp_path)
    return str(tmp_path / "shared.git")


def detached(tmp_path: Path) -> str:
    commit_text(tmp_path, "one")
    run_git(tmp_path / "repo", "checkout", "--quiet", "--detach")
    return str(tmp_path / "repo")


def merging(tmp_path: Path) -> str:
    repo = tmp_path / "repo"
    commit_text(tmp_path, "one")
    for branch, text in (("theirs", "a"), ("main", "b")):
        run_git(repo, "checkout", "--quiet", *(["-b"] if branch == "theirs" else []), branch)
        (repo / "notes").write_text(text)
        run_git(repo, "add", "notes")
        run_git(repo, "commit", "--quiet", "--message", branch)
    with pytest.raises(subprocess.CalledProcessError):
        run_git(repo, "merge", "theirs")
    return str(repo)


def nowhere(tmp_path: Path) -> str:
    return (tmp_path / "none.git").as_uri()


FAULTS: dict[Callable[[Path], str], str] = {
    file_in_the_way: "EDITLOOP_DATASET_REPO must be",
    bare: "a bare repository. Give its address",
    detached: "its HEAD is detached",
    merging: "a merge is not finished",
    nowhere: "git push",
}


@pytest.mark.parametrize("make", FAULTS, ids=lambda make: make.__name__)
def test_what_would_be_refused_is_told_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make: Callable[[Path], str]
) -> None:
    repo = make(tmp_path)
    with pytest.raises(EditLoopError, match=FAULTS[make]) as refused:
        check_dataset_repository(repo, None)
    assert "\n" not in str(refused.value)
    (check,) = check_services({"EDITLOOP_DATASET_REPO": repo}, own_folders=True)
    assert (check.name, check.ok) == ("dataset repository", False)
    monkeypatch.setenv("EDITLOOP_DATASET_REPO", repo)
    checks = {check.name: check for check in check_machine(tmp_path / "loop" / "services")}
    assert not checks["dataset repository"].ok


def test_a_remote_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "remote").write_text("a file")
    with pytest.raises(
        EditLoopError, match=r"dataset remote .*/remote: cannot be written to .*EDITLOOP_DATASET_REMOTE"
    ):
        check_dataset_repository(str(tmp_path / "repo"), str(tmp_path / "remote"))


@pytest.mark.parametrize("kind", ["missing", "folder", "empty address", "address"])
def test_what_takes_a_version_passes_and_stays_as_it_is(tmp_path: Path, kind: str) -> None:
    repo = make_shared(tmp_path) if "address" in kind else str(tmp_path / "rüns 数" / "repo")
    if kind in ("folder", "address"):
        commit_text(tmp_path, "one", repo=repo)
    before = run_git(tmp_path / "shared.git", "for-each-ref") if "address" in kind else ""
    check_dataset_repository(repo, str(tmp_path / "remote"))
    if "address" in kind:
        assert run_git(tmp_path / "shared.git", "for-each-ref") == before
    commit_text(tmp_path, "two", repo=repo)


def test_a_folder_that_a_living_process_holds_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkout, "INDEX_LOCK_SECONDS", 0.3)
    commit_text(tmp_path, "one")
    lock = tmp_path / "repo" / ".git" / "index.lock"
    call = "import sys; stream = open(sys.argv[1], 'x'); print(flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", call, str(lock)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout
        holder.stdout.readline()
        with pytest.raises(EditLoopError, match=f"process {holder.pid} .* is changing it"):
            check_dataset_repository(str(tmp_path / "repo"), None)


def test_an_address_of_scp_s_form_is_no_folder() -> None:
    assert checkout.is_url("data@git.team.example:preferences.git")
    assert not checkout.is_url("/data/preferences")
    assert not checkout.is_url("preferences@home/repo")
