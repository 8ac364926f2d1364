"""Lineage in both directions: what something came from, and what came of it.

Asked of the dataset repository's git history and of the registry, in a bounded number of requests: nothing is fetched,
and nothing is compared by content; that is what `verify` does for one model.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from infra import tracking
from infra.datarepo import CURATED
from infra.dataset_versions import VersionLineage, versions, versions_with
from infra.errors import EditLoopError
from infra.registry import find_version
from infra.settings import service_settings
from pipelines.lineage.family import Heir, Model, heirs, read_models
from pipelines.lineage.pictures import edits_pictures, picture_digests

LEAST_PREFIX = 7
"""Characters of a commit or a sha256 that name a dataset's version."""


@dataclass
class Trace:
    """What was asked about, what it came from and what came of it."""

    kind: str
    name: str
    came_from: dict[str, Any] = field(default_factory=dict)
    datasets: list[VersionLineage] = field(default_factory=list)
    """Versions of the dataset that came of it, the oldest first."""
    curated: list[VersionLineage] = field(default_factory=list)
    """Versions of curated edits that such a reward model chose, the oldest first."""
    models: list[Heir] = field(default_factory=list)

    def summary(self) -> dict[str, Any]:
        """{"of": {"kind", "name"}, "came_from": {...}, "came_of": {"datasets", "curated", "models": [...]}}"""
        return {
            "of": {"kind": self.kind, "name": self.name},
            "came_from": self.came_from,
            "came_of": {
                "datasets": [dataset_row(one) for one in self.datasets],
                "curated": [dataset_row(one) for one in self.curated],
                "models": [model_row(one.model) | {"because": one.because} for one in self.models],
            },
        }


def trace_annotator(name: str) -> Trace:
    """The datasets with this annotator's ratings or decisions, and the models that learnt from them.

    EditLoopError where no version of the dataset has any.
    """
    found = [one for one in versions_with(_repo(), name) if name in (one.annotators or ())]
    if not found:
        raise EditLoopError(f"{name}: no version of the dataset has ratings of this annotator. {_known_annotators()}")
    return _trace("annotator", name, {}, found, heirs(read_models(), datasets=_sha256s(found)))


def trace_task(name: str) -> Trace:
    """The datasets with this task, and the models that learnt from them. EditLoopError where no version has it."""
    found = versions_with(_repo(), name)
    if not found:
        raise EditLoopError(f"{name}: no version of the dataset has a task of this id.")
    return _trace("task", name, {}, found, heirs(read_models(), datasets=_sha256s(found)))


def trace_image(image: str) -> Trace:
    """The datasets with this picture as a source, target or candidate, and the models that learnt from them.

    image: the sha256 of a file's bytes, or a path to a picture; that is also looked for as the PNG that the loop makes
    of it. An editor that practised on an edits folder with this picture learnt from it too. EditLoopError where nothing
    of it is known.
    """
    digests = picture_digests(image)
    found = list({one.tag: one for digest in digests for one in versions_with(_repo(), digest)}.values())
    models = read_models()
    edits = {one.edits: one for one in models if one.edits}
    practised = {sha256 for sha256, one in edits.items() if digests & edits_pictures(sha256, one.run_id)}
    if not found and not practised:
        raise EditLoopError(
            f"{image}: no version of the dataset has this picture, and no registered editor practised on it. Give the "
            "sha256 of its file's bytes, or a path."
        )
    return _trace("image", image, {}, found, heirs(models, datasets=_sha256s(found), edits=practised))


def trace_dataset(revision: str) -> Trace:
    """One version, by its tag, commit or sha256 (or their first characters): who judged it, or which reward model chose
    it, and what it was made from; the versions that withdrawals made of it, and the models that learnt from it or from
    these."""
    known, curated, models = versions(_repo()), versions(_repo(), CURATED), read_models()
    one = find_dataset([*known, *curated], revision)
    children = _children(known, one)
    origin = _choice(models, known, one) if one in curated else _origin(known, one)
    return _trace("dataset", one.tag, origin, children, heirs(models, datasets=_sha256s([one, *children])))


def trace_model(model: str) -> Trace:
    """One registered model: the dataset, annotators and models that it came from, and the models that learnt from it.

    EditLoopError where the registry has no such model.
    """
    version = find_version(model)
    if version is None:
        raise EditLoopError(f"{model}: the registry has no such version; `editloop registry` lists what there is.")
    models = read_models()
    one = next(other for other in models if (other.name, other.version) == (version.name, str(version.version)))
    ancestors = _ancestors(models, one)
    read = _read(ancestors, [*versions(_repo()), *versions(_repo(), CURATED)])
    came_from: dict[str, Any] = {
        "models": [model_row(parent) for parent in ancestors if parent != one],
        "datasets": [dataset_row(entry) for entry in read],
        "annotators": _annotators(read),
    }
    return _trace("model", one.address, came_from, [], heirs(models, of=[one]), one)


def find_dataset(known: Sequence[VersionLineage], revision: str) -> VersionLineage:
    """The version with this tag, commit or sha256, or the first characters of the latter two. EditLoopError where none
    or several have it."""
    found = [one for one in known if one.tag == revision]
    if not found and len(revision) >= LEAST_PREFIX:
        found = [one for one in known if one.dvc_rev.startswith(revision) or one.sha256.startswith(revision)]
    if len(found) == 1:
        return found[0]
    latest = ", ".join(one.tag for one in known[-3:]) or "none"
    what = f"{len(found)} versions of the dataset begin like this" if found else "no version of the dataset"
    raise EditLoopError(f"{revision}: {what}. Give a tag, a commit or a sha256; the latest tags are {latest}.")


def dataset_row(one: VersionLineage) -> dict[str, Any]:
    """A version for programs."""
    return {
        "tag": one.tag,
        "sha256": one.sha256,
        "dvc_rev": one.dvc_rev,
        "at": datetime.fromtimestamp(one.at, UTC).isoformat(),
        "parent": one.parent,
    }


def model_row(one: Model) -> dict[str, Any]:
    """A registered model for programs."""
    told = {
        key: getattr(one, key) for key in ("name", "version", "sha256", "run_id", "dataset", "reward", "base", "edits")
    }
    return told | {"aliases": list(one.aliases), "tainted": one.tainted}


def _trace(
    kind: str, name: str, came_from: dict[str, Any], found: list[VersionLineage], models: list[Heir], *more: Model
) -> Trace:
    """A trace, with the curated edits that any of its models, or one `more`, chose."""
    judges = {one.sha256 for one in (*more, *(heir.model for heir in models)) if one.sha256}
    curated = [one for one in versions(_repo(), CURATED) if one.reward_sha256 in judges] if judges else []
    return Trace(kind, name, came_from, found, curated, models)


def _repo() -> str:
    return service_settings().require("dataset_repo")


def _sha256s(found: Sequence[VersionLineage]) -> set[str]:
    return {one.sha256 for one in found}


def _known_annotators() -> str:
    names = _annotators(versions(_repo()))
    shown = ", ".join(names[:20]) + (f" and {len(names) - 20} more" if len(names) > 20 else "")
    return f"Annotators of its versions: {shown or 'none'}."


def _children(known: Sequence[VersionLineage], parent: VersionLineage) -> list[VersionLineage]:
    """The versions that were made from one by withdrawals, and from those."""
    found, family = [], {parent.sha256}
    for one in known:
        if one.parent in family:
            family.add(one.sha256)
            found.append(one)
    return found


def _origin(known: Sequence[VersionLineage], one: VersionLineage) -> dict[str, Any]:
    """What a version of the dataset came from; of its judgements' run, the latest that MLflow has."""
    parents = [other.tag for other in known if other.sha256 == one.parent]
    collected = tracking.find_runs({"output.output": one.judgements_sha256 or ""}, stage="collect", limit=1)
    tags = collected[0].data.tags if collected else {}
    return {
        "annotators": list(one.annotators or ()),
        "judgements": one.judgements_sha256,
        "candidates": one.candidates_sha256,
        "parent": parents[0] if parents else one.parent,
        "campaign": tags.get("editloop.campaign_key"),
        "collect_run": collected[0].info.run_id if collected else None,
    }


def _choice(models: Sequence[Model], known: Sequence[VersionLineage], one: VersionLineage) -> dict[str, Any]:
    """What a version of curated edits came from: the edits, the reward model that chose, and who taught that one."""
    judge = next((model for model in models if model.sha256 == one.reward_sha256), None)
    read = _read(_ancestors(models, judge), known) if judge else []
    return {
        "edits": one.edits_sha256,
        "reward": judge.address if judge else one.reward_sha256,
        "datasets": [dataset_row(entry) for entry in read],
        "annotators": _annotators(read),
    }


def _read(models: Sequence[Model], known: Sequence[VersionLineage]) -> list[VersionLineage]:
    """The versions that models learnt from."""
    by_content = {one.sha256: one for one in known}
    return [by_content[model.dataset] for model in models if model.dataset in by_content]


def _annotators(found: Sequence[VersionLineage]) -> list[str]:
    return sorted({name for one in found for name in one.annotators or ()})


def _ancestors(models: Sequence[Model], one: Model) -> list[Model]:
    """The model itself, then those that taught it or that it began as, and theirs."""
    by_address = {other.address: other for other in models}
    by_content = {other.sha256: other for other in models if other.sha256}
    found = [one]
    for child in found:
        parents = (by_address.get(child.reward), by_content.get(child.base))
        found += [parent for parent in parents if parent is not None and parent not in found]
    return found
