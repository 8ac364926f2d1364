"""The dataset repository: a git repository whose large folders DVC stores, with one tag per version.

It has one folder per kind of data, `preferences/`, `curated/` and `taught/`. Beside each, git tracks two files: who
judged and where a version came from (LINEAGE), and which tasks and images it contains (CONTENTS). With them
`editloop.datasets.versions` searches a thousand versions without fetching one. The tag is set last, after the content
was pushed and the commit is on the branch, so a tag means that the content can be fetched.
"""

import json
import re
import shutil
import tempfile
from pathlib import Path
from typing import TypedDict

from pydantic import BaseModel

from editloop.addresses import without_secrets
from editloop.content import read_manifest, write_file
from editloop.datasets.checkout import checkout
from editloop.datasets.git_command import git, git_objects
from editloop.datasets.settings import DatasetSettings
from editloop.errors import EditLoopError
from editloop.settings_file import FrozenModel
from editloop.text_file import LARGEST_TEXT, file_bytes

FOLDER, CURATED, TAUGHT = "preferences", "curated", "taught"
"""Kinds of data: experts' preferences, edits chosen for training, and edits that a teacher has judged."""
LINEAGE, CONTENTS = f"{FOLDER}.lineage.json", f"{FOLDER}.contents.json"
IGNORED = ".gitignore"


class DatasetVersion(TypedDict):
    """Where a dataset can be fetched again: git commit, tag, sha256 of the content, and the repository's address."""

    dvc_rev: str
    tag: str
    sha256: str
    repo: str


class DatasetOrigin(FrozenModel):
    """What a version of preferences was made from."""

    annotators: tuple[str, ...]
    """All whose ratings or decisions are in the version."""
    task_ids: tuple[str, ...]
    images: tuple[str, ...]
    """sha256 of every source, target and candidate image."""
    judgements_sha256: str
    candidates_sha256: str
    parent: str | None = None
    """sha256 of the version that a withdrawal turned into this one."""


class CuratedOrigin(FrozenModel):
    """What a version of curated edits was made from."""

    task_ids: tuple[str, ...]
    images: tuple[str, ...]
    """sha256 of every source and edit."""
    edits_sha256: str
    """sha256 of the edits that were chosen from."""
    reward_sha256: str
    """sha256 of the reward model whose scores decided."""


class TaughtOrigin(FrozenModel):
    """What a version of a teacher's judged edits was made from."""

    images: tuple[str, ...]
    """sha256 of every source and edit."""
    files: dict[str, str]
    """sha256 of the files that its rows came from, by name."""


VersionOrigin = DatasetOrigin | CuratedOrigin | TaughtOrigin
KINDS: dict[type[VersionOrigin], str] = {DatasetOrigin: FOLDER, CuratedOrigin: CURATED, TaughtOrigin: TAUGHT}
"""The kind of data that each origin belongs to."""
VERSION_FORMS = {
    "dvc_rev": re.compile("([0-9a-f]{40}|[0-9a-f]{64})?"),
    "tag": re.compile(f"({'|'.join(KINDS.values())})-[0-9a-f]{{12}}"),
    "sha256": re.compile("[0-9a-f]{64}"),
    "repo": re.compile(r"[^\x00-\x1f]+"),
}
"""What each part of a version's record must match; the commit may be missing. Other text could be read as an option or
a pattern by git, or as a path out of a folder."""


def tag_of(sha256: str, kind: str = FOLDER) -> str:
    """Return the tag of a dataset.

    Args:
        sha256: The sha256 in the dataset's manifest.
        kind: FOLDER, CURATED or TAUGHT.
    """
    return f"{kind}-{sha256[:12]}"


def commit_dataset(
    dataset: Path, *, repo: str, remote: str, message: str, origin: VersionOrigin | None = None
) -> DatasetVersion:
    """Add a complete folder to the repository as a tagged version. Content that is there already adds nothing.

    Args:
        dataset: The folder, with its manifest.
        repo: A folder (created when missing) or a git address. Concurrent writers wait for each other, or put their
            commit on top of the other's.
        remote: A DVC remote: a folder or s3://...
        message: Message of the commit.
        origin: Lineage of the version, whose type sets the kind of data. None: preferences of unknown origin.

    Raises:
        EditLoopError: git or DVC refuses; the message quotes it.
    """
    from editloop.datasets import dvc_store

    sha256 = str(read_manifest(dataset, check=True)["sha256"])
    kind = KINDS[type(origin)] if origin else FOLDER
    tag = tag_of(sha256, kind)
    with checkout(repo) as work:
        folder = work.folder
        if not (folder / ".git" / "HEAD").exists() and not (folder / ".git").is_file():
            git(folder, "init", "--quiet")
        dvc_store.prepare(folder, remote)
        if not _has_tag(folder, tag):
            if (folder / kind).exists():
                shutil.rmtree(folder / kind)
            shutil.copytree(dataset, folder / kind)
            files = {f"{kind}.dvc": dvc_store.put(folder, kind), **_origin_files(kind, sha256, origin)}
            while not _has_tag(folder, tag):
                _commit(folder, kind, files, dvc_store.prepare(folder, remote), f"{message}\n\nsha256: {sha256}")
                if work.push():
                    git(folder, "tag", "--annotate", tag, "--message", sha256)
                    work.push_tag(tag)
        return DatasetVersion(
            dvc_rev=git(folder, "rev-list", "-n", "1", tag), tag=tag, sha256=sha256, repo=without_secrets(repo)
        )


def fetch_dataset(version: DatasetVersion, target: Path) -> None:
    """Fetch a version and check it against its record.

    Args:
        version: The version as recorded.
        target: Folder to create. It must not exist.

    Raises:
        EditLoopError: The record is none, the history was rewritten (the commit or the tag is missing, the tag was
            moved, or the commit states another sha256), the content is not available, or its bytes differ.
    """
    from editloop.datasets import dvc_store

    if fault := version_fault(version):
        raise EditLoopError(f"The record of a dataset's version has {fault}. Restore the record; nothing was fetched.")
    with checkout(_readable_address(version["repo"])) as work, tempfile.TemporaryDirectory() as temporary:
        _check_history(work.folder, version)
        kind, _, _ = version["tag"].rpartition("-")
        fetched = Path(temporary) / kind
        dvc_store.get(work.folder, kind, _pointer(work.folder, version, kind), fetched)
        sha256 = read_manifest(fetched, check=True)["sha256"]
        if sha256 != version["sha256"]:
            raise EditLoopError(f"{version['repo']}: {version['tag']} holds {sha256}, not {version['sha256']}.")
        shutil.copytree(fetched, target)


def read_version(path: Path) -> DatasetVersion:
    """Return the version that stage dataset or curate wrote beside its folder.

    Args:
        path: The version file.

    Raises:
        EditLoopError: The file cannot be read, or is not a version.
    """
    advice = "Give the one that stage dataset, stage curate or `editloop teacher publish` wrote."
    try:
        version = json.loads(file_bytes(path, LARGEST_TEXT))
    except (OSError, ValueError, RecursionError):
        raise EditLoopError(f"{path}: not a version file. {advice}") from None
    if fault := version_fault(version):
        raise EditLoopError(f"{path}: not a version file; it has {fault}. {advice}")
    return DatasetVersion(
        dvc_rev=version["dvc_rev"], tag=version["tag"], sha256=version["sha256"], repo=version["repo"]
    )


def version_fault(version: object) -> str | None:
    """Return what is wrong with the record of a version; None where it is whole.

    Args:
        version: What was read.
    """
    if not isinstance(version, dict):
        return f"no {', '.join(VERSION_FORMS)}"
    for key, form in VERSION_FORMS.items():
        value = version.get(key)
        if not isinstance(value, str) or not form.fullmatch(value):
            return f"no {key}" if value is None else f"{key} = {str(value)[:80]!r}"
    return None


def _has_tag(folder: Path, tag: str) -> bool:
    return bool(git(folder, "tag", "--list", tag))


def _commit(folder: Path, kind: str, files: dict[str, str], prepared: list[str], message: str) -> None:
    """Commit a version's files and those that DVC needs. Other changes in the folder are left alone."""
    for name, text in files.items():
        write_file(folder / name, text)
    _ignore(folder, kind)
    names = (*files, *prepared, IGNORED)
    git(folder, "add", "--force", "--", *names)  # whatever the repository's own ignore rules say
    if git(folder, "status", "--porcelain", "--", *names):
        git(folder, "commit", "--quiet", "--message", message, "--", *names)


def _ignore(folder: Path, kind: str) -> None:
    """Add the data folder to `.gitignore`, as `dvc add` does."""
    path = folder / IGNORED
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    if f"/{kind}" not in lines:
        write_file(path, "".join(f"{line}\n" for line in (*lines, f"/{kind}")))


def _origin_files(kind: str, sha256: str, origin: BaseModel | None) -> dict[str, str]:
    """Return the texts of the lineage and contents files, by name.

    Each entry is on its own line, so that git stores only differences.
    """
    facts = origin.model_dump(mode="json") if origin else {}
    contents = {key: sorted(facts.pop(key, ())) for key in ("task_ids", "images")}
    lineage = {"sha256": sha256, **facts}
    return {
        LINEAGE.replace(FOLDER, kind): json.dumps(lineage, indent=2, ensure_ascii=False) + "\n",
        CONTENTS.replace(FOLDER, kind): json.dumps(contents, indent=0, ensure_ascii=False) + "\n",
    }


def _pointer(folder: Path, version: DatasetVersion, kind: str) -> bytes:
    """Return the file with which DVC finds the version's content."""
    (pointer,) = git_objects(folder, [f"{version['dvc_rev']}:{kind}.dvc"])
    if pointer is None:
        raise EditLoopError(
            f"{version['repo']}: commit {version['dvc_rev']} of {version['tag']} has no {kind}.dvc, so it is no "
            "version of a dataset; fetch that version from another clone."
        )
    return pointer


def _readable_address(recorded: str) -> str:
    """Return a repository's address with the log-in that a version's record leaves out, where the settings have it."""
    own = DatasetSettings().dataset_repo
    return own if own and without_secrets(own) == recorded else recorded


def _check_history(folder: Path, version: DatasetVersion) -> None:
    """Check that the recorded commit exists, is the one that is tagged, and states the recorded sha256."""
    revision, tag, repo = version["dvc_rev"], version["tag"], version["repo"]
    (commit,) = git_objects(folder, [f"{revision}^{{commit}}"])
    if commit is None:
        raise EditLoopError(
            f"{repo}: commit {revision or '(none recorded)'}, recorded with tag {tag}, is gone. Somebody rewrote the "
            "history; fetch that commit from another clone."
        )
    if not _has_tag(folder, tag):
        raise EditLoopError(f"{repo}: tag {tag} is gone. Put it back: git tag {tag} {revision}")
    tagged_commit = git(folder, "rev-list", "-n", "1", tag)
    if tagged_commit != revision:
        raise EditLoopError(
            f"{repo}: tag {tag} is commit {tagged_commit}, but {revision} was recorded. Someone moved the tag; put "
            "it back."
        )
    kind, _, _ = tag.rpartition("-")
    (lineage,) = git_objects(folder, [f"{revision}:{LINEAGE.replace(FOLDER, kind)}"])
    committed_sha256 = version["sha256"] if lineage is None else _stated_sha256(lineage)  # older versions have none
    if committed_sha256 != version["sha256"]:
        raise EditLoopError(
            f"{repo}: commit {revision} of {tag} holds {committed_sha256}, but {version['sha256']} was recorded. "
            "Somebody rewrote the history; fetch that version from another clone."
        )


def _stated_sha256(lineage: bytes) -> str:
    """Return the sha256 that a committed lineage file states; "nothing readable" where it is none."""
    try:
        return str(json.loads(lineage)["sha256"])
    except (ValueError, TypeError, KeyError, RecursionError):
        return "nothing readable"
