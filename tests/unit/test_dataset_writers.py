"""Several writers of one dataset repository, an address or a folder, and people who use git there meanwhile."""

import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from editloop.datasets import checkout as dataset_checkout
from editloop.datasets.checkout import Checkout
from editloop.datasets.repository import DatasetVersion, commit_dataset, fetch_dataset
from editloop.datasets.versions import versions
from editloop.datasets.withdrawal import Withdrawal, add_withdrawal, read_withdrawals
from editloop.errors import EditLoopError
from tests.dataset_repositories import commit_text, make_dataset, make_shared, run_git


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A home folder without settings of git: the hooks of the shared repositories here count."""
    monkeypatch.setenv("HOME", str(tmp_path))


def withdrawal(task: str) -> Withdrawal:
    return Withdrawal(kind="task", name=task, reason="asked", at="2026-01-05T00:00:00Z")


def just_before(monkeypatch: pytest.MonkeyPatch, method: str, change: Callable[[], object]) -> None:
    """Let another writer make a change right before the first call of a method of Checkout."""
    original = getattr(Checkout, method)

    def call(self: Checkout, *arguments: str) -> object:
        monkeypatch.setattr(Checkout, method, original)
        change()
        return original(self, *arguments)

    monkeypatch.setattr(Checkout, method, call)


def on_the_branch(tmp_path: Path) -> list[str]:
    return run_git(tmp_path / "shared.git", "tag", "--merged", "main").splitlines()


@pytest.mark.parametrize("is_empty", [True, False])
def test_the_slower_of_two_writers_puts_its_commit_on_top(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_empty: bool
) -> None:
    address, other = make_shared(tmp_path), tmp_path / "other"
    if not is_empty:
        commit_text(tmp_path, "zero", repo=address)
    other.mkdir()
    faster: list[DatasetVersion] = []
    just_before(monkeypatch, "push", lambda: faster.append(commit_text(other, "faster", repo=address)))
    slower = commit_text(tmp_path, "slower", repo=address)
    assert {slower["tag"], faster[0]["tag"]} <= set(on_the_branch(tmp_path))
    assert run_git(tmp_path / "shared.git", "rev-parse", "main", f"{slower['dvc_rev']}^").splitlines() == [
        slower["dvc_rev"],
        faster[0]["dvc_rev"],
    ]
    fetch_dataset(slower, tmp_path / "slower")
    assert commit_text(tmp_path, "slower", repo=address) == slower


@pytest.mark.parametrize("method", ["push", "push_tag"])
def test_two_writers_of_the_same_content_make_one_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    address, other = make_shared(tmp_path), tmp_path / "other"
    other.mkdir()
    faster: list[DatasetVersion] = []
    just_before(monkeypatch, method, lambda: faster.append(commit_text(other, "same", repo=address)))
    assert commit_text(tmp_path, "same", repo=address) == faster[0]
    assert on_the_branch(tmp_path) == [faster[0]["tag"]]


def test_a_withdrawal_and_a_version_at_once_are_both_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    address = make_shared(tmp_path)
    add_withdrawal(address, withdrawal("t1"))
    just_before(monkeypatch, "push", lambda: commit_text(tmp_path, "one", repo=address))
    add_withdrawal(address, withdrawal("t2"))
    just_before(monkeypatch, "push", lambda: add_withdrawal(address, withdrawal("t4")))
    assert add_withdrawal(address, withdrawal("t3")) == withdrawal("t3")
    assert [line.name for line in read_withdrawals(address)] == ["t1", "t2", "t4", "t3"]
    assert on_the_branch(tmp_path) == [versions(address)[0].tag]


def test_a_push_that_is_refused_for_another_reason_is_an_error_and_leaves_no_tag(tmp_path: Path) -> None:
    address = make_shared(tmp_path)
    commit_text(tmp_path, "one", repo=address)
    hook = tmp_path / "shared.git" / "hooks" / "pre-receive"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text("#!/bin/sh\necho the branch is frozen >&2\nexit 1\n")
    hook.chmod(0o755)
    with pytest.raises(EditLoopError, match=r"git push .*the branch is frozen"):
        commit_text(tmp_path, "two", repo=address)
    assert len(run_git(tmp_path / "shared.git", "tag").splitlines()) == 1


@pytest.mark.parametrize("is_address", [True, False])
def test_writers_in_threads_all_get_their_versions(tmp_path: Path, is_address: bool) -> None:
    repo = make_shared(tmp_path) if is_address else str(tmp_path / "repo")
    texts = ("one", "two", "three")

    def write(text: str) -> DatasetVersion:
        dataset = make_dataset(tmp_path / text, text)
        return commit_dataset(dataset, repo=repo, remote=str(tmp_path / "remote"), message="pairs")

    with ThreadPoolExecutor(len(texts)) as threads:
        made = list(threads.map(write, texts))
    assert {row.dvc_rev for row in versions(repo)} == {version["dvc_rev"] for version in made}
    assert len({version["dvc_rev"] for version in made}) == len(texts)
    folder = tmp_path / ("shared.git" if is_address else "repo")
    assert len(run_git(folder, "tag", "--merged", "main").splitlines()) == len(texts)
    for text, version in zip(texts, made, strict=True):
        fetch_dataset(version, tmp_path / "back" / text)


def test_a_version_that_was_tagged_but_not_pushed_to_the_end_is_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A writer that is killed between the branch and the tag leaves no tag; the next call sets it."""
    address = make_shared(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(Checkout, "push_tag", lambda *_: sys.exit("killed"))
        with pytest.raises(SystemExit):
            commit_text(tmp_path, "one", repo=address)
    assert versions(address) == []
    version = commit_text(tmp_path, "one", repo=address)
    assert on_the_branch(tmp_path) == [version["tag"]]


def test_a_killed_writers_index_lock_is_removed_and_a_living_ones_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dataset_checkout, "INDEX_LOCK_SECONDS", 0.3)
    commit_text(tmp_path, "one")
    index_lock = tmp_path / "repo" / ".git" / "index.lock"
    call = "import sys; stream = open(sys.argv[1], 'x'); print(flush=True); sys.stdin.read()"
    holder = subprocess.Popen(
        [sys.executable, "-c", call, str(index_lock)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert holder.stdin
    assert holder.stdout
    holder.stdout.readline()
    with pytest.raises(EditLoopError, match=f"process {holder.pid} .* is changing it"):
        commit_text(tmp_path, "two")
    assert index_lock.exists()
    holder.kill()
    holder.wait()
    assert index_lock.exists()
    fetch_dataset(commit_text(tmp_path, "two"), tmp_path / "back")


def test_a_person_who_writes_a_commit_message_is_not_disturbed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their git holds the index while the editor is open, and has closed its lock's file."""
    monkeypatch.setattr(dataset_checkout, "INDEX_LOCK_SECONDS", 0.3)
    commit_text(tmp_path, "one")
    repo = tmp_path / "repo"
    (repo / "notes").write_text("mine")
    run_git(repo, "add", "notes")
    started, ended = tmp_path / "started", tmp_path / "ended"
    editor = f"touch {started}; while [ ! -e {ended} ]; do sleep 0.05; done; echo noted >"
    command = ["git", "-c", "user.name=x", "-c", "user.email=x@x", "-c", f"core.editor={editor}", "commit", "--quiet"]
    person = subprocess.Popen([*command, "notes"], cwd=repo)
    while not started.exists():
        assert person.poll() is None
    with pytest.raises(EditLoopError, match=rf"process {person.pid} \(git\) is changing it"):
        commit_text(tmp_path, "two")
    ended.touch()
    assert person.wait() == 0
    assert run_git(repo, "log", "-1", "--format=%s") == "noted"
    commit_text(tmp_path, "two")
