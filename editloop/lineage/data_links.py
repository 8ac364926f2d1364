"""Links of a model's data: datasets and curated edits, by git, DVC and the runs that made them."""

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from editloop.content import read_manifest, sha256_json
from editloop.data.data_origin import origin_of
from editloop.datasets.checkout import is_url
from editloop.datasets.repository import TAUGHT, DatasetVersion, fetch_dataset
from editloop.datasets.settings import DatasetSettings
from editloop.datasets.versions import versions
from editloop.datasets.votes import Votes, read_votes
from editloop.datasets.withdrawal import read_withdrawals
from editloop.lineage.chain import Chain, Gap, finished_run, look_up
from editloop.lineage.trace_pictures import edits_manifest

if TYPE_CHECKING:
    from mlflow.entities import Run
    from mlflow.entities.model_registry import ModelVersion


def dataset_links(chain: Chain, version: "ModelVersion", run: "Run") -> tuple[dict[str, Any], Votes]:
    """Add the links from a registered model to its dataset: content, DVC revision, parents, withdrawals, dataset run.

    The dataset is fetched from its repository's remote.

    Args:
        chain: The chain to extend.
        version: The registered model version in MLflow.
        run: The training run in MLflow.

    Returns:
        The facts of the dataset's manifest, and its votes.

    Raises:
        Gap: A link is missing or does not hold.
    """
    sha256 = _training_data(chain, "dataset", version, run.data.tags.get("editloop.input.dataset"))
    with tempfile.TemporaryDirectory() as temporary:
        fetched = Path(temporary) / "dataset"
        facts = _fetch_data(chain, version, sha256, fetched)
        votes = look_up("dataset", lambda: read_votes(fetched))
    _parent(chain, facts, _repo(version))
    _withdrawals(chain, facts, _repo(version))
    dataset_run = finished_run("dataset run", "dataset", sha256)
    read = dataset_run.data.tags.get("editloop.input.judgements")
    if not facts.get("parent") and read != facts.get("judgements_sha256"):
        raise Gap(f"dataset run: {dataset_run.info.run_id} read other judgements than {facts.get('judgements_sha256')}")
    chain.add("dataset run", dataset_run.info.run_id)
    return facts, votes


def taught_links(chain: Chain, version: "ModelVersion", run: "Run") -> None:
    """Add the links from a registered model to the teacher's rows that it learnt from, and to the files they came from.

    The rows are fetched from their repository's remote. The chain ends at the sha256 of each file as it was published.

    Args:
        chain: The chain to extend.
        version: The registered model version in MLflow.
        run: The training run in MLflow.

    Raises:
        Gap: A link is missing or does not hold.
    """
    sha256 = _training_data(chain, "teacher's rows", version, run.data.tags.get("editloop.input.dataset"))
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "taught"
        _fetch_data(chain, version, sha256, folder)
        origin = look_up("source files", lambda: origin_of(read_manifest(folder)))
    if origin is None:
        raise Gap("source files: the teacher's rows name none; import them again")
    chain.add("source files", origin.text())


def edits_link(chain: Chain, run: "Run") -> None:
    """Add the edits folder that a run read, with the published files that it was imported from, if it was.

    The run keeps the folder's manifest, and the folder's sha256 covers its origin.

    Args:
        chain: The chain to extend.
        run: The run in MLflow of a stage that reads edits.

    Raises:
        Gap: The manifest that the run keeps is of other edits, or states another origin than the folder has.
    """
    sha256 = run.data.tags.get("editloop.input.edits")
    if sha256 is None:
        return
    manifest = look_up("edits", lambda: edits_manifest(run.info.run_id))
    if manifest is None:
        chain.add("edits", f"{sha256} (written by hand)")
        return
    if sha256_json(manifest["files"]) != sha256:
        raise Gap(f"edits: run {run.info.run_id} read {sha256}, and keeps the manifest of other edits")
    chain.add("edits", sha256)
    if origin := look_up("source files", lambda: origin_of(manifest)):
        chain.add("source files", origin.text())


def is_taught(version: "ModelVersion") -> bool:
    """Return whether a registered model learnt from a teacher's rows, by the tag of its data.

    Args:
        version: The registered model version in MLflow.
    """
    return version.tags.get("editloop.dvc_tag", "").startswith(f"{TAUGHT}-")


def curated_links(chain: Chain, version: "ModelVersion", run: "Run") -> str:
    """Add the links from a registered editor to its curated edits and the run that chose them.

    The edits are fetched from their repository's remote.

    Args:
        chain: The chain to extend.
        version: The registered model version in MLflow.
        run: The training run in MLflow.

    Returns:
        The sha256 of the judge that chose the edits.

    Raises:
        Gap: A link is missing or does not hold.
    """
    sha256 = _training_data(chain, "curated edits", version, run.data.tags.get("editloop.input.edits"))
    with tempfile.TemporaryDirectory() as temporary:
        facts = _fetch_data(chain, version, sha256, Path(temporary) / "curated")
    curate_run = finished_run("curate run", "curate", sha256, edits=str(facts.get("edits_sha256")))
    chain.add("curate run", f"{curate_run.info.run_id} ({facts.get('kept')} of edits {facts.get('edits_sha256')})")
    edits_link(chain, curate_run)
    return str(facts.get("reward_sha256"))


def _training_data(chain: Chain, name: str, version: "ModelVersion", read: str | None) -> str:
    """Return the sha256 that the training run `read`, after a check that the registered version names the same."""
    registered = version.tags.get("editloop.dataset_sha256")
    if not read or registered != read:
        raise Gap(f"{name}: trained on {read}, registered with {registered}")
    chain.add(name, read)
    return read


def _repo(version: "ModelVersion") -> str:
    return DatasetSettings().dataset_repo or str(version.tags.get("editloop.dataset_repo", ""))


def _fetch_data(chain: Chain, version: "ModelVersion", sha256: str, target: Path) -> dict[str, Any]:
    """Fetch the data that a registered version names to `target`, and return the facts of its manifest."""
    tags, repo = version.tags, _repo(version)
    dataset_version = DatasetVersion(
        dvc_rev=tags.get("editloop.dvc_rev", ""),
        tag=tags.get("editloop.dvc_tag", ""),
        sha256=sha256,
        repo=repo if is_url(repo) else Path(repo).absolute().as_uri(),  # a clone has no cache: the remote must have it
    )
    look_up("DVC revision", lambda: fetch_dataset(dataset_version, target))
    chain.add("DVC revision", f"{dataset_version['tag']} ({dataset_version['dvc_rev'][:12]})")
    facts: dict[str, Any] = read_manifest(target)["facts"]
    return facts


def _parent(chain: Chain, facts: dict[str, Any], repo: str) -> None:
    """Add the versions from which withdrawals made this one. Their content may be deleted, often on purpose."""
    parent = facts.get("parent")
    known = look_up("parent dataset", lambda: versions(repo)) if parent else []
    by_sha256 = {lineage.sha256: lineage for lineage in known}
    while parent:
        if parent not in by_sha256:
            raise Gap(f"parent dataset: {repo} has no version {parent}, which this one was made from")
        chain.add("parent dataset", f"{by_sha256[parent].tag}, without what was withdrawn")
        parent = by_sha256[parent].parent


def _withdrawals(chain: Chain, facts: dict[str, Any], repo: str) -> None:
    """Add a warning about content of the dataset that was withdrawn later; the chain still holds."""
    held = {"annotator": set(facts.get("annotators", ())), "task": set(facts.get("task_ids", ()))}
    descriptions = [
        f"{withdrawal.kind} {withdrawal.name} on {withdrawal.at:%Y-%m-%d}"
        for withdrawal in look_up("withdrawals", lambda: read_withdrawals(repo))
        if withdrawal.name in held[withdrawal.kind]
    ]
    if descriptions:
        text = f"TAINTED: {', '.join(descriptions)} withdrew and is in this dataset; train anew without"
        chain.add("withdrawals", text, warning=True)
