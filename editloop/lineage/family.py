"""Registered models with what each learnt from, and the search for everything that learnt from a dataset or a model."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from editloop.lineage import tracking
from editloop.lineage.registry import TAINTED

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion as RegisteredVersion


@dataclass(frozen=True)
class ModelVersion:
    """A registered version and what it learnt from, each as a sha256 or an address; empty for none."""

    name: str
    version: str
    sha256: str
    run_id: str
    aliases: tuple[str, ...]
    dataset: str
    """sha256 of the preferences, or for an editor the curated edits, that it was trained on."""
    reward: str
    """Reward model that taught an editor or chose its edits, as models:/NAME/VERSION."""
    base: str
    """sha256 of the model folder that training began with."""
    edits: str
    """sha256 of the edits folder that an editor trained on."""
    tainted: str
    """Text of the tag TAINTED: which withdrawn data it learnt from."""

    @property
    def address(self) -> str:
        """The version as models:/NAME/VERSION."""
        return f"models:/{self.name}/{self.version}"


@dataclass(frozen=True)
class Descendant:
    """A model that learnt from something, directly or through other models."""

    model: ModelVersion
    because: str
    """How it learnt from it, as text."""


def read_models() -> list[ModelVersion]:
    """Return every version of every model in the registry."""
    api = tracking.client()
    aliases = {model.name: model.aliases for model in tracking.all_pages(api.search_registered_models)}
    return [_model(version, aliases.get(version.name, {})) for version in tracking.all_pages(api.search_model_versions)]


def find_descendants(
    models: Sequence[ModelVersion],
    *,
    datasets: Collection[str] = (),
    edits: Collection[str] = (),
    of: Collection[ModelVersion] = (),
) -> list[Descendant]:
    """Return the models that learnt from the given datasets, edits or models, directly or through other models.

    A model learns by training on data, by being taught by a reward model, or by starting from another model's weights.

    Args:
        models: All registered models.
        datasets: sha256 of datasets.
        edits: sha256 of edits folders.
        of: Models; they are not returned themselves.

    Returns:
        Each model once, with the first reason found: trained on the data first, then generation by generation.
    """
    taught: dict[str, list[ModelVersion]] = {}
    begun: dict[str, list[ModelVersion]] = {}
    for model in models:
        taught.setdefault(model.reward, []).append(model)
        begun.setdefault(model.base, []).append(model)
    descendants = {
        model.address: Descendant(model, f"trained on dataset {model.dataset[:12]}")
        for model in models
        if model.dataset in datasets
    }
    for model in models:
        if model.edits in edits:
            descendants.setdefault(model.address, Descendant(model, f"practised on edits {model.edits[:12]}"))
    queue = [*of, *(descendant.model for descendant in descendants.values())]
    for parent in queue:
        children = [(model, f"taught by {parent.address}") for model in taught.get(parent.address, ())]
        children += [(model, f"began as {parent.address}") for model in begun.get(parent.sha256, ()) if parent.sha256]
        for model, because in children:
            if model.address not in descendants and model not in of:
                descendants[model.address] = Descendant(model, because)
                queue.append(model)
    return list(descendants.values())


def _model(version: "RegisteredVersion", aliases: Mapping[str, str]) -> ModelVersion:
    """Return a version, with those of the model's aliases (versions by alias) that point at it."""
    tags = version.tags
    return ModelVersion(
        name=version.name,
        version=str(version.version),
        sha256=tags.get("editloop.sha256", ""),
        run_id=version.run_id or "",
        aliases=tuple(sorted(alias for alias, number in aliases.items() if str(number) == str(version.version))),
        dataset=tags.get("editloop.dataset_sha256", ""),
        reward=tags.get("editloop.reward", ""),
        base=tags.get("editloop.base_sha256", ""),
        edits=tags.get("editloop.edits_sha256", ""),
        tainted=tags.get(TAINTED, ""),
    )
