"""Lineage and contents of the dataset repository's versions, read from git without fetching data or locking."""

import json
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from editloop.datasets.checkout import is_repository, is_url
from editloop.datasets.git_command import git, git_objects
from editloop.datasets.repository import CONTENTS, FOLDER, LINEAGE
from editloop.errors import EditLoopError
from editloop.settings_file import setting_faults
from editloop.text_file import whole_number

TAGS_A_CALL = 1000
"""Tags on one command line of git: about 25 KB."""


class LineageFile(BaseModel):
    """What the lineage file of a version says, as far as it is read here."""

    model_config = ConfigDict(strict=True, frozen=True)

    sha256: str
    """Of the content."""
    annotators: tuple[str, ...] | None = None
    judgements_sha256: str | None = None
    candidates_sha256: str | None = None
    parent: str | None = None
    """sha256 of the version that a withdrawal turned into this one."""
    edits_sha256: str | None = None
    """Of curated edits: sha256 of the edits that were chosen from."""
    reward_sha256: str | None = None
    """Of curated edits: sha256 of the reward model that chose."""
    files: dict[str, str] | None = None
    """Of a teacher's judged edits: sha256 of the files that they came from, by name."""


class VersionLineage(LineageFile):
    """Origin of one version. A version from before lineages were recorded has only the fields below, and its sha256."""

    tag: str
    dvc_rev: str
    """The git commit."""
    at: int
    """When it was tagged, in seconds since 1970 (UTC)."""


def versions(repo: str, kind: str = FOLDER) -> list[VersionLineage]:
    """Return all versions of one kind of data, oldest first. Empty where there is no repository.

    Args:
        repo: Folder or git address of the repository.
        kind: FOLDER, CURATED or TAUGHT of `editloop.datasets.repository`.

    Raises:
        EditLoopError: A tag or a lineage file is broken; the message names it.
    """
    with _repository(repo) as folder:
        return _lineages(folder, repo, _tags(folder, kind), kind) if folder else []


def versions_with(repo: str, text: str, kind: str = FOLDER) -> list[VersionLineage]:
    """Return the versions of one kind of data that contain an annotator, a task or an image, oldest first.

    Args:
        repo: Folder or git address of the repository.
        text: The annotator's name, the task's id, or the image's sha256.
        kind: FOLDER, CURATED or TAUGHT of `editloop.datasets.repository`.

    Raises:
        EditLoopError: A tag or a lineage file is broken; the message names it.
    """
    with _repository(repo) as folder:
        if not folder:
            return []
        lineages = _lineages(folder, repo, _tags(folder, kind), kind)
        matching_tags = _holding(folder, [lineage.tag for lineage in lineages], text, kind)
        return [lineage for lineage in lineages if lineage.tag in matching_tags or text in (lineage.annotators or ())]


@contextmanager
def _repository(repo: str) -> Iterator[Path | None]:
    """Yield a folder in which git can read the repository: for an address, a bare clone. None: no repository."""
    if is_url(repo):
        with tempfile.TemporaryDirectory(prefix="editloop-versions-") as temporary:
            git(Path(temporary), "clone", "--quiet", "--bare", "--", repo, "repo.git")
            yield Path(temporary) / "repo.git"
    else:
        yield Path(repo).absolute() if is_repository(repo) else None


def _tags(folder: Path, kind: str = FOLDER) -> dict[str, tuple[str, str, int]]:
    """Return (commit, sha256, time) by tag, oldest first.

    Versions of the same second are in the order of the history.
    """
    form = "%(refname:short) %(*objectname) %(contents:subject) %(creatordate:unix)"
    output = git(folder, "for-each-ref", f"--format={form}", f"refs/tags/{kind}-*")
    rows = [line.split(" ") for line in output.splitlines()]
    history = git(folder, "rev-list", "--topo-order", "--reverse", f"--tags={kind}-*").splitlines() if rows else []
    position = {commit: number for number, commit in enumerate(history)}
    strange = [row[0] for row in rows if len(row) != 4 or row[1] not in position or whole_number(row[3]) is None]
    if strange:
        raise EditLoopError(f"{folder}: tag {strange[0]} is not one that a dataset stage set; put the old one back.")
    rows.sort(key=lambda row: (int(row[3]), position[row[1]]))
    return {tag: (commit, sha256, int(at)) for tag, commit, sha256, at in rows}


def _lineages(
    folder: Path, repo: str, tags: dict[str, tuple[str, str, int]], kind: str = FOLDER
) -> list[VersionLineage]:
    lineages, lineage_file = [], LINEAGE.replace(FOLDER, kind)
    texts = git_objects(folder, [f"{tag}:{lineage_file}" for tag in tags])
    for (tag, (commit, sha256, at)), text in zip(tags.items(), texts, strict=True):
        try:
            facts = LineageFile.model_validate_json(text) if text is not None else None
        except ValidationError as error:
            reason = "; ".join(setting_faults(error, LineageFile)[:3])
            raise EditLoopError(
                f"{repo}: {lineage_file} of {tag} is broken ({reason}); restore it from a clone."
            ) from None
        if facts and facts.sha256 != sha256:
            raise EditLoopError(f"{repo}: tag {tag} says {sha256}, its commit {facts.sha256}: somebody moved it.")
        origin = facts.model_dump() if facts else {"sha256": sha256}
        lineages.append(VersionLineage(tag=tag, dvc_rev=commit, at=at, **origin))
    return lineages


def _holding(folder: Path, tags: Sequence[str], text: str, kind: str) -> set[str]:
    """Return the tags whose CONTENTS file contains the text as a JSON string."""
    matching_tags: set[str] = set()
    pattern = json.dumps(text, ensure_ascii=False)
    for start in range(0, len(tags), TAGS_A_CALL):
        batch = tags[start : start + TAGS_A_CALL]
        arguments = ("--fixed-strings", "--name-only", "-e", pattern, *batch, "--", CONTENTS.replace(FOLDER, kind))
        output = git(folder, "grep", *arguments, accepted=(0, 1))  # 1: no match
        matching_tags |= {line.split(":", 1)[0] for line in output.splitlines()}
    return matching_tags
