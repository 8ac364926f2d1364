"""Lineage in both directions: what something came from, and what was made from it.

The answers come from the dataset repository's git history and the registry, in a bounded number of requests. Contents
are neither fetched nor compared; `editloop verify` does that for one model.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any

from editloop.datasets.repository import CURATED, FOLDER, TAUGHT
from editloop.datasets.settings import DatasetSettings
from editloop.datasets.versions import VersionLineage, versions, versions_with
from editloop.errors import EditLoopError
from editloop.lineage import tracking
from editloop.lineage.family import Descendant, ModelVersion, find_descendants, read_models
from editloop.lineage.registry import find_version
from editloop.lineage.trace_pictures import edits_pictures, picture_digests

LEAST_PREFIX = 7
"""Least number of characters of a commit or sha256 that may stand for the whole one."""


@dataclass
class LineageTrace:
    """The origins of an annotator, task, image, dataset or model, and the datasets and models made from it."""

    kind: str
    """"annotator", "task", "image", "dataset" or "model"."""
    name: str
    came_from: dict[str, Any] = field(default_factory=dict)
    """Origins by what they are, such as "annotators" or "datasets"; empty for an annotator, a task or an image."""
    datasets: list[VersionLineage] = field(default_factory=list)
    """Dataset versions that contain it or were made from it, oldest first."""
    curated: list[VersionLineage] = field(default_factory=list)
    """Versions of curated edits chosen by a reward model of this trace, oldest first."""
    models: list[Descendant] = field(default_factory=list)
    """Models that learnt from it, directly or through others."""

    def summary(self) -> dict[str, Any]:
        """Return the trace as JSON data.

        Returns:
            {"of": {"kind", "name"}, "came_from": {...}, "came_of": {"datasets", "curated", "models": [...]}}.
        """
        return {
            "of": {"kind": self.kind, "name": self.name},
            "came_from": self.came_from,
            "came_of": {
                "datasets": [dataset_row(version) for version in self.datasets],
                "curated": [dataset_row(version) for version in self.curated],
                "models": descendant_rows(self.models),
            },
        }


def trace_annotator(name: str) -> LineageTrace:
    """Trace an annotator: datasets with their ratings or decisions, and the models that learnt from these.

    Args:
        name: The annotator's name in the dataset.

    Raises:
        EditLoopError: No version of the dataset has any; the message lists annotators that exist.
    """
    datasets = [version for version in versions_with(_repo(), name) if name in (version.annotators or ())]
    if not datasets:
        raise EditLoopError(f"{name}: no version of the dataset has ratings of this annotator. {_known_annotators()}")
    return _trace("annotator", name, {}, datasets, find_descendants(read_models(), datasets=_sha256s(datasets)))


def trace_task(name: str) -> LineageTrace:
    """Trace a task: datasets that contain it, and the models that learnt from these.

    Args:
        name: The task's id.

    Raises:
        EditLoopError: No version of the dataset has it.
    """
    datasets = versions_with(_repo(), name)
    if not datasets:
        raise EditLoopError(f"{name}: no version of the dataset has a task of this id.")
    return _trace("task", name, {}, datasets, find_descendants(read_models(), datasets=_sha256s(datasets)))


def trace_image(image: str) -> LineageTrace:
    """Trace an image: datasets with it as a source, target or candidate, and the models that learnt from it.

    Models that learnt from it include editors that trained on an edits folder with this image.

    Args:
        image: sha256 of a file's bytes, or the path of an image file. A file is also looked up as the PNG that the
            candidates stage makes of it.

    Raises:
        EditLoopError: No dataset and no registered editor's edits have it, or `image` is neither a sha256 nor an image.
    """
    digests = picture_digests(image)
    kinds = (FOLDER, TAUGHT)
    holding = [version for digest in digests for kind in kinds for version in versions_with(_repo(), digest, kind)]
    datasets = list({version.tag: version for version in holding}.values())
    models = read_models()
    edits = {model.edits: model for model in models if model.edits}
    practised = {sha256 for sha256, model in edits.items() if digests & edits_pictures(sha256, model.run_id)}
    if not datasets and not practised:
        raise EditLoopError(
            f"{image}: no version of the dataset has this picture, and no registered editor practised on it. Give the "
            "sha256 of its file's bytes, or a path."
        )
    return _trace("image", image, {}, datasets, find_descendants(models, datasets=_sha256s(datasets), edits=practised))


def trace_dataset(revision: str) -> LineageTrace:
    """Trace a dataset version: its origins, the versions that withdrawals made of it, and the models of all of them.

    The origins of preferences are their annotators, judgements, candidates and campaign. Those of curated edits are the
    edits, the reward model that chose, and the data behind that model. Those of a teacher's rows are the files.

    Args:
        revision: Its tag, commit or sha256; of the latter two the first 7 characters or more are enough.

    Raises:
        EditLoopError: No version, or more than one, matches.
    """
    datasets, curated, models = versions(_repo()), versions(_repo(), CURATED), read_models()
    version = find_dataset([*datasets, *curated, *versions(_repo(), TAUGHT)], revision)
    children = _children(datasets, version)
    if version.files is not None:
        origin: dict[str, Any] = {"files": version.files}
    else:
        is_curated = version in curated
        origin = _curated_origin(models, datasets, version) if is_curated else _dataset_origin(datasets, version)
    return _trace(
        "dataset", version.tag, origin, children, find_descendants(models, datasets=_sha256s([version, *children]))
    )


def trace_model(model: str) -> LineageTrace:
    """Trace a registered model: models, datasets and annotators behind it, and the models that learnt from it.

    Args:
        model: `models:/NAME@ALIAS` or `models:/NAME/VERSION`.

    Raises:
        EditLoopError: The registry has no such version.
    """
    version = find_version(model)
    if version is None:
        raise EditLoopError(f"{model}: the registry has no such version; `editloop registry` lists what there is.")
    models = read_models()
    traced = next(
        candidate for candidate in models if (candidate.name, candidate.version) == (version.name, str(version.version))
    )
    ancestors = _ancestors(models, traced)
    known = [version for kind in (FOLDER, CURATED, TAUGHT) for version in versions(_repo(), kind)]
    read = _training_datasets(ancestors, known)
    came_from: dict[str, Any] = {
        "models": [model_row(parent) for parent in ancestors if parent != traced],
        "datasets": [dataset_row(dataset) for dataset in read],
        "annotators": _annotators(read),
    }
    return _trace("model", traced.address, came_from, [], find_descendants(models, of=[traced]), traced)


def find_dataset(datasets: Sequence[VersionLineage], revision: str) -> VersionLineage:
    """Return the version with a tag, commit or sha256.

    Args:
        datasets: The versions to search, oldest first.
        revision: A tag; or a commit or sha256, of which the first 7 characters or more are enough.

    Raises:
        EditLoopError: No version, or more than one, matches.
    """
    matches = [version for version in datasets if version.tag == revision]
    if not matches and len(revision) >= LEAST_PREFIX:
        size = len(revision)
        matches = [version for version in datasets if revision in (version.dvc_rev[:size], version.sha256[:size])]
    if len(matches) == 1:
        return matches[0]
    latest = ", ".join(version.tag for version in datasets[-3:]) or "none"
    what = f"{len(matches)} versions of the dataset begin like this" if matches else "no version of the dataset"
    raise EditLoopError(f"{revision}: {what}. Give a tag, a commit or a sha256; the latest tags are {latest}.")


def dataset_row(version: VersionLineage) -> dict[str, Any]:
    """Return a dataset version as JSON data: {"tag", "sha256", "dvc_rev", "at", "parent"}.

    Args:
        version: The version.
    """
    return {
        "tag": version.tag,
        "sha256": version.sha256,
        "dvc_rev": version.dvc_rev,
        "at": datetime.fromtimestamp(version.at, UTC).isoformat(),
        "parent": version.parent,
    }


def model_row(model: ModelVersion) -> dict[str, Any]:
    """Return a registered model as JSON data: its fields by name, except that "aliases" is a list.

    Args:
        model: The model.
    """
    return asdict(model) | {"aliases": list(model.aliases)}


def descendant_rows(descendants: Sequence[Descendant]) -> list[dict[str, Any]]:
    """Return what came of something as JSON data: each model with "because".

    Args:
        descendants: The models.
    """
    return [model_row(descendant.model) | {"because": descendant.because} for descendant in descendants]


def _trace(
    kind: str,
    name: str,
    came_from: dict[str, Any],
    datasets: list[VersionLineage],
    models: list[Descendant],
    *extra_models: ModelVersion,
) -> LineageTrace:
    """Build a trace, with the curated edits chosen by any of `models` or `extra_models`."""
    judges = {model.sha256 for model in (*extra_models, *(descendant.model for descendant in models)) if model.sha256}
    curated = [version for version in versions(_repo(), CURATED) if version.reward_sha256 in judges] if judges else []
    return LineageTrace(kind, name, came_from, datasets, curated, models)


def _repo() -> str:
    return DatasetSettings().require("dataset_repo")


def _sha256s(datasets: Sequence[VersionLineage]) -> set[str]:
    return {version.sha256 for version in datasets}


def _known_annotators() -> str:
    names = _annotators(versions(_repo()))
    listed = ", ".join(names[:20]) + (f" and {len(names) - 20} more" if len(names) > 20 else "")
    return f"Annotators of its versions: {listed or 'none'}."


def _children(datasets: Sequence[VersionLineage], parent: VersionLineage) -> list[VersionLineage]:
    """Versions that withdrawals made from `parent`, directly or through other versions."""
    children, family = [], {parent.sha256}
    for version in datasets:
        if version.parent in family:
            family.add(version.sha256)
            children.append(version)
    return children


def _dataset_origin(datasets: Sequence[VersionLineage], version: VersionLineage) -> dict[str, Any]:
    """Origins of a version of preferences. Its campaign is that of the latest collect run of its judgements."""
    parents = [parent.tag for parent in datasets if parent.sha256 == version.parent]
    collected = tracking.find_runs({"output.output": version.judgements_sha256 or ""}, stage="collect", limit=1)
    tags = collected[0].data.tags if collected else {}
    return {
        "annotators": list(version.annotators or ()),
        "judgements": version.judgements_sha256,
        "candidates": version.candidates_sha256,
        "parent": parents[0] if parents else version.parent,
        "campaign": tags.get("editloop.campaign_key"),
        "collect_run": collected[0].info.run_id if collected else None,
    }


def _curated_origin(
    models: Sequence[ModelVersion], datasets: Sequence[VersionLineage], version: VersionLineage
) -> dict[str, Any]:
    """Origins of a version of curated edits: the edits, the reward model that chose, and that model's data."""
    judge = next((model for model in models if model.sha256 == version.reward_sha256), None)
    read = _training_datasets(_ancestors(models, judge), datasets) if judge else []
    return {
        "edits": version.edits_sha256,
        "reward": judge.address if judge else version.reward_sha256,
        "datasets": [dataset_row(dataset) for dataset in read],
        "annotators": _annotators(read),
    }


def _training_datasets(models: Sequence[ModelVersion], datasets: Sequence[VersionLineage]) -> list[VersionLineage]:
    """Versions that the models were trained on, in the models' order."""
    by_content = {version.sha256: version for version in datasets}
    return [by_content[model.dataset] for model in models if model.dataset in by_content]


def _annotators(datasets: Sequence[VersionLineage]) -> list[str]:
    return sorted({name for version in datasets for name in version.annotators or ()})


def _ancestors(models: Sequence[ModelVersion], model: ModelVersion) -> list[ModelVersion]:
    """The model, then those that taught it or that its training began with, then theirs."""
    by_address = {candidate.address: candidate for candidate in models}
    by_content = {candidate.sha256: candidate for candidate in models if candidate.sha256}
    ancestors = [model]
    for child in ancestors:
        parents = (by_address.get(child.reward), by_content.get(child.base))
        ancestors += [parent for parent in parents if parent is not None and parent not in ancestors]
    return ancestors
