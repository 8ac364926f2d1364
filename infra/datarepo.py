"""The dataset repository: a git repository whose big folders DVC keeps, one tag a version.

It holds a folder a kind of data, `preferences/` and `curated/`, and beside each two files that git itself keeps: who
judged and where a version came from (LINEAGE), and which tasks and pictures are inside (CONTENTS), so that
`infra.dataset_versions` asks a thousand versions without fetching one. A version is tagged last, after its content was
pushed, so a tag means that the content can be fetched. One writer at a time: DVC's locks fail rather than wait, so
writers queue on a lock of ours.
"""

import fcntl
import io
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypedDict

from pydantic import BaseModel, ConfigDict

from infra.content import read_manifest, write_file, write_json
from infra.errors import EditLoopError

FOLDER, CURATED = "preferences", "curated"
"""What experts said of candidates; and edits that were chosen to learn from."""
LINEAGE, CONTENTS = f"{FOLDER}.lineage.json", f"{FOLDER}.contents.json"
AUTHOR = ("-c", "user.name=EditLoop", "-c", "user.email=editloop@localhost")


class Version(TypedDict):
    """Where a dataset can be had again: git commit, tag, the content's sha256, the repository's address."""

    dvc_rev: str
    tag: str
    sha256: str
    repo: str


class Origin(BaseModel):
    """What a version is made of, as whoever made it says."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    annotators: tuple[str, ...]
    """All whose ratings or decisions are in it."""
    task_ids: tuple[str, ...]
    images: tuple[str, ...]
    """sha256 of the bytes of every source, target and candidate."""
    judgements_sha256: str
    candidates_sha256: str
    parent: str | None = None
    """sha256 of the version that this one was made from by a withdrawal."""


class CuratedOrigin(BaseModel):
    """What a version of curated edits is made of."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    task_ids: tuple[str, ...]
    images: tuple[str, ...]
    """sha256 of the bytes of every source and edit."""
    edits_sha256: str
    """The set that was chosen from."""
    reward_sha256: str
    """The reward model whose scores chose."""


def tag_of(sha256: str, kind: str = FOLDER) -> str:
    """The tag of a dataset with this manifest sha256."""
    return f"{kind}-{sha256[:12]}"


def commit_dataset(
    dataset: Path, *, repo: str, remote: str, message: str, origin: Origin | CuratedOrigin | None = None
) -> Version:
    """Put a complete folder into the repository as a tagged version; the same content again adds nothing.

    `repo` is a folder (made when missing) or a git URL, `remote` a DVC remote (folder or s3://...). `origin` is what
    the versions' lineage tells of it, and which kind of data it is; without one it is preferences of which nothing is
    told. Raises EditLoopError with the tool's own words where
    git or dvc refuses.
    """
    sha256 = str(read_manifest(dataset, check=True)["sha256"])
    kind = CURATED if isinstance(origin, CuratedOrigin) else FOLDER
    tag = tag_of(sha256, kind)
    with checkout(repo) as (folder, is_clone):
        _prepare(folder, remote)
        if not git(folder, "tag", "--list", tag):
            _replace(dataset, folder / kind)
            _dvc(folder, "add", "--quiet", kind)
            written = _write_origin(folder, kind, sha256, origin)
            git(folder, "add", "--all", f"{kind}.dvc", *written, ".gitignore", ".dvc")
            if git(folder, "status", "--porcelain", "--untracked-files=no"):
                git(folder, *AUTHOR, "commit", "--quiet", "--message", f"{message}\n\nsha256: {sha256}")
            _dvc(folder, "push", "--quiet")
            git(folder, *AUTHOR, "tag", "--annotate", tag, "--message", sha256)
        revision = git(folder, "rev-list", "-n", "1", tag)
        if is_clone:
            git(folder, "push", "--quiet", "--follow-tags", "origin", "HEAD")
    return Version(dvc_rev=revision, tag=tag, sha256=sha256, repo=repo)


def fetch_dataset(version: Version, target: Path) -> None:
    """Fetch a version to `target`, checked against what was recorded of it.

    Raises EditLoopError where its history was rewritten (the commit is gone, the tag is gone or moved, the commit says
    another sha256 than the recorded one), where the content cannot be had, and where its bytes are others.
    """
    with checkout(version["repo"]) as (folder, _):
        _check_history(folder, version)
        with tempfile.TemporaryDirectory() as temporary:
            kind, _, _ = version["tag"].rpartition("-")
            fetched = Path(temporary) / kind
            _dvc(folder, "get", "--quiet", "--rev", version["dvc_rev"], ".", kind, "--out", str(fetched))
            sha256 = read_manifest(fetched, check=True)["sha256"]
            if sha256 != version["sha256"]:
                raise EditLoopError(f"{version['repo']}: {version['tag']} holds {sha256}, not {version['sha256']}.")
            shutil.copytree(fetched, target)


def is_url(repo: str) -> bool:
    """Whether a repository's name is an address rather than a folder here."""
    return "://" in repo or repo.startswith("git@")


@contextmanager
def checkout(repo: str) -> Iterator[tuple[Path, bool]]:
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


def git(folder: Path, *arguments: str, fine: Collection[int] = (0,)) -> str:
    """What git prints when it is called in `folder`; EditLoopError with its words where it ends with another status
    than a `fine` one."""
    return _run(folder, ["git", *arguments], fine=fine).decode().strip()


def git_objects(folder: Path, names: Sequence[str]) -> list[bytes | None]:
    """The contents of git's objects by name (COMMIT, TAG:PATH), in order; None for one that is not there."""
    said = io.BytesIO(_run(folder, ["git", "cat-file", "--batch"], "".join(f"{name}\n" for name in names).encode()))
    found: list[bytes | None] = []
    for _ in names:
        size = said.readline().split(b" ")[-1].strip()
        found.append(said.read(int(size) + 1)[:-1] if size.isdigit() else None)
    return found


def read_version(path: Path) -> Version:
    """The version that stage dataset or curate wrote beside its folder; EditLoopError where `path` holds none."""
    try:
        version: Version = json.loads(path.read_bytes())
        is_version = version.keys() >= Version.__required_keys__
    except (OSError, ValueError, AttributeError):
        is_version = False
    if not is_version:
        raise EditLoopError(f"{path}: not a version file. Give the one that stage dataset or curate wrote beside it.")
    return version


def _prepare(folder: Path, remote: str) -> None:
    """Make the folder a git and DVC repository with the remote, as far as it is not."""
    if not (folder / ".git" / "HEAD").exists():
        git(folder, "init", "--quiet", "--initial-branch", "main")
    if not (folder / ".dvc" / "config").exists():
        _dvc(folder, "init", "--quiet", "--force")
        _dvc(folder, "config", "core.analytics", "false")
    place = remote if "://" in remote else str(Path(remote).absolute())
    _dvc(folder, "remote", "add", "--quiet", "--force", "--default", "store", place)


def _write_origin(folder: Path, kind: str, sha256: str, origin: BaseModel | None) -> list[str]:
    """Write the two files of a kind's lineage and contents; each name stands on a line of its own, so that git keeps
    differences alone."""
    told = origin.model_dump(mode="json") if origin else {}
    contents = {key: sorted(told.pop(key, ())) for key in ("task_ids", "images")}
    lineage, inside = (name.replace(FOLDER, kind) for name in (LINEAGE, CONTENTS))
    write_json(folder / lineage, {"sha256": sha256, **told})
    write_file(folder / inside, json.dumps(contents, indent=0, ensure_ascii=False) + "\n")
    return [lineage, inside]


def _check_history(folder: Path, version: Version) -> None:
    """That the recorded commit is there, is the tag's, and says the recorded sha256."""
    revision, tag, place = version["dvc_rev"], version["tag"], version["repo"]
    (commit,) = git_objects(folder, [f"{revision}^{{commit}}"])
    if commit is None:
        raise EditLoopError(
            f"{place}: commit {revision or '(none recorded)'}, recorded with tag {tag}, is gone. Somebody rewrote the "
            "history; fetch that commit from another clone."
        )
    if not git(folder, "tag", "--list", tag):
        raise EditLoopError(f"{place}: tag {tag} is gone. Put it back: git tag {tag} {revision}")
    found = git(folder, "rev-list", "-n", "1", tag)
    if found != revision:
        raise EditLoopError(
            f"{place}: tag {tag} is commit {found}, but {revision} was recorded. Someone moved the tag; put it back."
        )
    kind, _, _ = tag.rpartition("-")
    (lineage,) = git_objects(folder, [f"{revision}:{LINEAGE.replace(FOLDER, kind)}"])
    other = json.loads(lineage)["sha256"] if lineage else version["sha256"]  # older versions have no lineage
    if other != version["sha256"]:
        raise EditLoopError(
            f"{place}: commit {revision} of {tag} holds {other}, but {version['sha256']} was recorded. Somebody "
            "rewrote the history; fetch that version from another clone."
        )


def _replace(source: Path, target: Path) -> None:
    if target.exists():
        shutil.rmtree(target)
    shutil.copytree(source, target)


def _dvc(folder: Path, *arguments: str) -> None:
    _run(folder, [sys.executable, "-m", "dvc", *arguments])


def _run(folder: Path, command: list[str], given: bytes = b"", fine: Collection[int] = (0,)) -> bytes:
    """Run a command in the folder and give its output; the surroundings' git variables do not reach it."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
    environment |= {"DVC_NO_ANALYTICS": "true", "GIT_TERMINAL_PROMPT": "0"}
    done = subprocess.run(command, cwd=folder, env=environment, input=given, capture_output=True, check=False)
    if done.returncode not in fine:
        what, words = " ".join(command[-6:]), (done.stderr or done.stdout).decode(errors="replace").strip()
        raise EditLoopError(f"dataset repository {folder}: {what}: {words}")
    return done.stdout
