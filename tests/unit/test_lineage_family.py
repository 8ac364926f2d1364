"""Who learnt from what, over generations; which versions a withdrawal rebuilds; the list of withdrawals."""

import subprocess
from datetime import UTC, datetime
from pathlib import Path

import pytest

from editloop.datasets.versions import VersionLineage
from editloop.datasets.withdrawal import LIST, Withdrawal, Withdrawn, add_withdrawal, read_withdrawals, read_withdrawn
from editloop.errors import EditLoopError
from editloop.lineage.family import ModelVersion, find_descendants
from editloop.lineage.trace import find_dataset
from editloop.lineage.withdraw import newest_versions


def model(
    name: str, version: int, *, dataset: str = "", reward: str = "", base: str = "", edits: str = ""
) -> ModelVersion:
    digest = f"{name}-{version}"
    return ModelVersion(name, str(version), digest, "run", (), dataset, reward, base, edits, "")


FAMILY = [
    model("reward", 1, dataset="d1"),
    model("reward", 2, dataset="d2", base="reward-1"),
    model("reward", 3, dataset="d3"),
    model("editor", 1, reward="models:/reward/1", edits="e1"),
    model("editor", 2, reward="models:/reward/3", base="editor-1"),
    model("editor", 3, reward="models:/reward/3", edits="e2"),
]


def names(found: list) -> dict[str, str]:
    return {f"{one.model.name} {one.model.version}": one.because for one in found}


def test_what_was_learnt_goes_on_by_teaching_and_by_beginning_as() -> None:
    assert names(find_descendants(FAMILY, datasets={"d1"})) == {
        "reward 1": "trained on dataset d1",
        "reward 2": "began as models:/reward/1",
        "editor 1": "taught by models:/reward/1",
        "editor 2": "began as models:/editor/1",
    }
    assert set(names(find_descendants(FAMILY, datasets={"d3"}))) == {"reward 3", "editor 2", "editor 3"}
    assert names(find_descendants(FAMILY, edits={"e2"})) == {"editor 3": "practised on edits e2"}
    assert set(names(find_descendants(FAMILY, of=[FAMILY[0]]))) == {"reward 2", "editor 1", "editor 2"}
    assert find_descendants(FAMILY, datasets={"elsewhere"}) == find_descendants(FAMILY) == []


def version(tag: str, at: int, candidates: str) -> VersionLineage:
    return VersionLineage(
        tag=tag,
        dvc_rev=f"commit{tag}",
        sha256=f"sha256of{tag}",
        at=at,
        annotators=("ada",),
        judgements_sha256="j",
        candidates_sha256=candidates,
    )


def test_the_newest_version_of_each_set_of_candidates_is_rebuilt() -> None:
    held = [version("b", 5, "spring"), version("a", 1, "spring"), version("c", 3, "autumn")]
    assert [one.tag for one in newest_versions(held)] == ["c", "b"]


def test_a_version_is_found_by_tag_commit_or_digest_if_it_is_the_only_one() -> None:
    known = [version("one", 1, "c"), version("two", 2, "c")]
    assert (
        find_dataset(known, "two") == find_dataset(known, "committwo") == find_dataset(known, "sha256oftwo") == known[1]
    )
    for revision, told in (("sha256of", "2 versions"), ("on", "no version"), ("elsewhere", "latest tags are one, two")):
        with pytest.raises(EditLoopError, match=told):
            find_dataset(known, revision)


@pytest.fixture
def repo(tmp_path: Path) -> str:
    folder = tmp_path / "repo"
    subprocess.run(["git", "init", "--quiet", "--initial-branch", "main", str(folder)], check=True)
    return str(folder)


def said(kind: str, name: str) -> Withdrawal:
    return Withdrawal(kind=kind, name=name, reason="asked", at=datetime(2026, 1, 5, tzinfo=UTC))


def test_the_list_grows_by_commits_and_says_each_thing_once(repo: str, tmp_path: Path) -> None:
    assert read_withdrawn(repo) == read_withdrawn(str(tmp_path / "nowhere")) == Withdrawn()
    assert not (tmp_path / "nowhere").exists()
    add_withdrawal(repo, said("annotator", "ada"))
    add_withdrawal(repo, said("task", "t1"))
    assert add_withdrawal(repo, said("annotator", "ada").model_copy(update={"reason": "again"})).reason == "asked"
    assert read_withdrawn(repo) == Withdrawn(frozenset({"ada"}), frozenset({"t1"}))
    log = subprocess.run(["git", "log", "--format=%s"], cwd=repo, check=True, capture_output=True, text=True).stdout
    assert log.splitlines() == ["One task is withdrawn", "One annotator is withdrawn"]
    assert "ada" not in log
    clone = Path(repo).as_uri()
    assert read_withdrawals(clone) == read_withdrawals(repo)


def test_a_broken_list_is_refused_line_by_line(repo: str) -> None:
    add_withdrawal(repo, said("annotator", "ada"))
    path = Path(repo) / LIST
    path.write_text(path.read_text() + '{"kind": "model"}\nnot json\n')
    who = ("-c", "user.name=x", "-c", "user.email=x@x")
    subprocess.run(["git", *who, "commit", "--quiet", "-am", "by hand"], cwd=repo, check=True)
    with pytest.raises(EditLoopError, match=r"line 2: .*; line 3: .*Restore the list") as refused:
        read_withdrawn(repo)
    assert LIST in str(refused.value)
