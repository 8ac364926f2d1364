"""Versions of a repository that somebody else can write to: what no dataset stage wrote is named in one line."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from editloop.datasets.git_command import git
from editloop.datasets.repository import FOLDER, LINEAGE
from editloop.datasets.versions import versions
from editloop.errors import EditLoopError

SHA256 = "a" * 64
HONEST = {"sha256": SHA256, "annotators": ["ada"], "judgements_sha256": "b" * 64, "more": [1]}
AUTHOR = ("-c", "user.name=ada", "-c", "user.email=ada@example.org")


@pytest.fixture
def repository(tmp_path: Path) -> Callable[[Any], Path]:
    """Writes a repository with one version, whose lineage file has a content."""

    def write(content: Any) -> Path:
        git(tmp_path, "init", "--quiet", ".")
        (tmp_path / LINEAGE).write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
        git(tmp_path, "add", LINEAGE)
        git(tmp_path, *AUTHOR, "commit", "--quiet", "--message", "a version")
        git(tmp_path, *AUTHOR, "tag", "--annotate", "--message", SHA256, f"{FOLDER}-1")
        return tmp_path

    return write


def test_an_honest_version_is_read(repository: Callable[[Any], Path]) -> None:
    (version,) = versions(str(repository(HONEST)))
    assert (version.sha256, version.annotators, version.parent) == (SHA256, ("ada",), None)
    assert version.judgements_sha256 == "b" * 64


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (b"", "is broken"),
        (b"{", "is broken"),
        (b"\xff", "is broken"),
        (b"[" * 100_000, "is broken"),
        ([], "is broken"),
        (None, "is broken"),
        ({}, "is broken"),
        (HONEST | {"annotators": 3}, "annotators"),
        (HONEST | {"annotators": [{"ada": 1}]}, "annotators"),
        (HONEST | {"judgements_sha256": ["b"]}, "judgements_sha256"),
        (HONEST | {"files": ["a"]}, "files"),
        (HONEST | {"sha256": "c" * 64}, "somebody moved it"),
    ],
    ids=lambda value: repr(value)[:30],
)
def test_a_lineage_file_that_is_none_is_named(content: Any, fault: str, repository: Callable[[Any], Path]) -> None:
    with pytest.raises(EditLoopError, match=f"{FOLDER}-1.*{fault}") as caught:
        versions(str(repository(content)))
    assert len(str(caught.value).splitlines()) == 1


def of_a_tree(folder: Path) -> None:
    git(folder, *AUTHOR, "tag", "--annotate", "--message", SHA256, f"{FOLDER}-2", "HEAD^{tree}")


def without_a_message(folder: Path) -> None:
    git(folder, "tag", f"{FOLDER}-2")


def of_many_words(folder: Path) -> None:
    git(folder, *AUTHOR, "tag", "--annotate", "--message", f"{SHA256} and more", f"{FOLDER}-2")


def without_a_date(folder: Path) -> None:
    commit = git(folder, "rev-parse", "HEAD")
    (folder / "tag").write_text(f"object {commit}\ntype commit\ntag {FOLDER}-0\n\n{SHA256}\n")
    tag = git(folder, "hash-object", "-t", "tag", "-w", "--literally", "tag")
    git(folder, "update-ref", f"refs/tags/{FOLDER}-0", tag)


@pytest.mark.parametrize("add", [of_a_tree, without_a_message, of_many_words, without_a_date])
def test_a_tag_that_no_stage_set_is_named(add: Callable[[Path], None], repository: Callable[[Any], Path]) -> None:
    folder = repository(HONEST)
    add(folder)
    with pytest.raises(EditLoopError, match=f"tag {FOLDER}-[02] is not one that a dataset stage set"):
        versions(str(folder))
