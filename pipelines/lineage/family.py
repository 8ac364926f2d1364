"""Who learnt from what: every registered model, what it was made of, and what came of it."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from infra import tracking
from infra.registry import TAINTED

PAGE = 1000


@dataclass(frozen=True)
class Model:
    """One registered version, and what it learnt from by the sha256 of each; empty where it did not."""

    name: str
    version: str
    sha256: str
    run_id: str
    aliases: tuple[str, ...]
    dataset: str
    """Preferences that a reward model learnt from."""
    reward: str
    """Reward model that taught an editor, as models:/NAME/VERSION."""
    base: str
    """Model that the training began with, where that is a folder with a digest."""
    edits: str
    """Folder of pictures that an editor practised on."""
    tainted: str

    @property
    def address(self) -> str:
        return f"models:/{self.name}/{self.version}"


@dataclass(frozen=True)
class Heir:
    """A model that learnt from something, directly or through others, and through what."""

    model: Model
    because: str


def read_models() -> list[Model]:
    """Every version of every model in the registry."""
    api = tracking.client()
    aliases: dict[tuple[str, str], list[str]] = {}
    for one in _pages(api.search_registered_models):
        for alias, version in dict(one.aliases).items():
            aliases.setdefault((one.name, str(version)), []).append(alias)
    return [
        _model(one, tuple(sorted(aliases.get((one.name, str(one.version)), ()))))
        for one in _pages(api.search_model_versions)
    ]


def heirs(
    models: Sequence[Model],
    *,
    datasets: Collection[str] = (),
    edits: Collection[str] = (),
    of: Collection[Model] = (),
) -> list[Heir]:
    """The models that learnt from any of the datasets or folders of edits (sha256), or from models `of`: by training on
    them, by being taught by such a model, or by beginning as one. In the order in which they were found."""
    taught: dict[str, list[Model]] = {}
    begun: dict[str, list[Model]] = {}
    for one in models:
        taught.setdefault(one.reward, []).append(one)
        begun.setdefault(one.base, []).append(one)
    found = {
        one.address: Heir(one, f"trained on dataset {one.dataset[:12]}") for one in models if one.dataset in datasets
    }
    for one in models:
        if one.edits in edits:
            found.setdefault(one.address, Heir(one, f"practised on edits {one.edits[:12]}"))
    queue = [*of, *(heir.model for heir in found.values())]
    for parent in queue:
        nexts = [(one, f"taught by {parent.address}") for one in taught.get(parent.address, ())]
        nexts += [(one, f"began as {parent.address}") for one in begun.get(parent.sha256, ()) if parent.sha256]
        for one, because in nexts:
            if one.address not in found and one not in of:
                found[one.address] = Heir(one, because)
                queue.append(one)
    return list(found.values())


def _model(version: Any, aliases: tuple[str, ...]) -> Model:
    tags = version.tags
    return Model(
        name=version.name,
        version=str(version.version),
        sha256=tags.get("editloop.sha256", ""),
        run_id=version.run_id or "",
        aliases=aliases,
        dataset=tags.get("editloop.dataset_sha256", ""),
        reward=tags.get("editloop.reward", ""),
        base=tags.get("editloop.base_sha256", ""),
        edits=tags.get("editloop.edits_sha256", ""),
        tainted=tags.get(TAINTED, ""),
    )


def _pages(search: Any) -> Iterator[Any]:
    token = None
    while True:
        page = search(max_results=PAGE, page_token=token)
        yield from page
        token = page.token
        if not token:
            return
