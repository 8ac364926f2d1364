"""Links of one registered version: its promotion, its files and signature, its training run, and its evidence.

Each function adds its links to a chain and raises `Gap` for the first that is missing or does not match.
"""

import tempfile
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from editloop.content import read_manifest
from editloop.errors import EditLoopError
from editloop.lineage import promotion, registry, tracking
from editloop.lineage.chain import Chain, Gap, finished_run, look_up
from editloop.lineage.gate_decision import read_decision
from editloop.lineage.kept_artifacts import fetch_logged_files
from editloop.lineage.registry import CHAMPION, Promotion
from editloop.lineage.signing import VERIFY_KEY, SignatureError

if TYPE_CHECKING:
    from mlflow.entities import Run
    from mlflow.entities.model_registry import ModelVersion

COMMIT = "mlflow.source.git.commit"
"""Tag of a run with the git commit of its code."""


def version_link(chain: Chain, model: str) -> "ModelVersion":
    """Add the version behind an address, and return it (MLflow's ModelVersion).

    Args:
        chain: The chain to extend.
        model: `models:/NAME@ALIAS` or `models:/NAME/VERSION`.

    Raises:
        EditLoopError: `model` is not such an address.
        Gap: It points at no version.
    """
    registry.parse_model(model)
    version = look_up("registered version", lambda: registry.find_version(model))
    if version is None:
        raise Gap(f"registry: {model} points at no version")
    chain.add("registered version", f"{version.name} version {version.version}")
    return version


def promotion_link(chain: Chain, model: str, version: "ModelVersion") -> Promotion | None:
    """Add the record of the latest move that made the version champion, and return it.

    Args:
        chain: The chain to extend.
        model: Address of the version.
        version: The version (MLflow's ModelVersion).

    Returns:
        The record; None for a version, given by number or another alias, that was never champion.

    Raises:
        Gap: A record was removed, or `model` names the champion and no record says who made it so.
    """
    name = version.name
    by_alias = registry.parse_model(model)[1] == CHAMPION
    records = look_up("promotion record", lambda: _records(name, str(version.version) if by_alias else None))
    numbers = [record.number for record in records]
    if missing := sorted(set(range(1, max(numbers, default=0) + 1)) - set(numbers)):
        raise Gap(f"promotion record: record {missing[0]} of {name} is missing; somebody removed it from MLflow")
    champion_records = [
        record for record in records if record.alias == CHAMPION and record.version == str(version.version)
    ]
    if not champion_records:
        if by_alias:
            raise Gap(
                f"promotion record: {name} version {version.version} is {CHAMPION}, and no record says who made it so"
            )
        chain.add("promotion record", "none: it was never the champion")
        return None
    last = champion_records[-1]
    text = f"{last.number}: {last.action} by {last.actor} at {last.at}, {last.reason}"
    text += "" if last.evidence or last.action == "by hand" else "; no evidence"
    chain.add("promotion record", text, warning=not last.evidence)
    return last


def content_link(chain: Chain, version: "ModelVersion") -> str:
    """Add the model's files and signature, and return the files' sha256.

    Both the registry's copy and the one that is loaded here are checked.

    Args:
        chain: The chain to extend.
        version: The version (MLflow's ModelVersion).

    Raises:
        Gap: A copy is not what was registered, or its signature does not hold.
    """
    sha256 = str(version.tags.get("editloop.sha256"))
    look_up("model content", lambda: _check_stored(version, sha256))
    try:
        folder = registry.fetch_version(version)
    except SignatureError as error:
        raise Gap(f"signature: {error}") from error
    except EditLoopError as error:
        raise Gap(f"{'signature' if VERIFY_KEY in str(error) else 'model content'}: {error}") from error
    chain.add("model content", str(read_manifest(folder)["sha256"]))
    chain.add("signature", f"of key {str(version.tags.get('editloop.signing_key'))[:12]}")
    return sha256


def run_links(chain: Chain, version: "ModelVersion", sha256: str) -> "Run":
    """Add the run that trained the version, with its pipeline run, git commit and container image, and return it.

    Args:
        chain: The chain to extend.
        version: The version (MLflow's ModelVersion).
        sha256: sha256 of the version's files.

    Raises:
        Gap: The run is deleted or unfinished, has another output or pipeline run, or names no commit.
    """
    run = look_up("training run", lambda: tracking.client().get_run(str(version.run_id)))
    if run.info.lifecycle_stage == "deleted":
        raise Gap(f"training run: {version.run_id} was deleted; restore it in MLflow")
    outputs = {value for key, value in run.data.tags.items() if key.startswith("editloop.output.")}
    if run.info.status != "FINISHED" or sha256 not in outputs:
        raise Gap(f"training run: {version.run_id} ({run.info.status}) did not make {sha256}")
    chain.add("training run", f"{run.data.tags.get('editloop.stage')} {run.info.run_id}")
    pipeline_run = run.data.tags.get("editloop.pipeline_run")
    if not pipeline_run or pipeline_run != version.tags.get("editloop.pipeline_run"):
        raise Gap(f"pipeline run: {version.tags.get('editloop.pipeline_run')} registered what {pipeline_run} trained")
    chain.add("pipeline run", pipeline_run)
    if not run.data.tags.get(COMMIT):
        raise Gap(f"git commit: run {run.info.run_id} names none; set EDITLOOP_GIT_COMMIT in the image")
    chain.add("git commit", run.data.tags[COMMIT])
    if image := run.data.tags.get("editloop.image"):
        chain.add("container image", image)
    return run


def evidence_links(
    chain: Chain, version: "ModelVersion", record: Promotion | None, stage: str, key: str, **inputs: str
) -> dict[str, Any]:
    """Add the runs that measured the version and the gate's verdict, and return the content of the latest gate.json.

    Both the evidence that the version names now and, where it differs, that of its promotion are checked.

    Args:
        chain: The chain to extend.
        version: The version (MLflow's ModelVersion).
        record: The promotion record of the version; None for none.
        stage: "benchmark" or "editor_eval".
        key: Name in EVIDENCE of the sha256 of the stage's output.
        **inputs: sha256 of what the stage read, by the input's name.

    Raises:
        Gap: A run or its gate.json is missing or has changed, or the verdict is not the one that was registered.
    """
    latest = version.tags.get(f"editloop.{key}")
    if not latest:
        raise Gap(f"{stage}: {version.name} version {version.version} names none that measured it")
    digests = [latest]
    if record and record.action != "by hand" and record.evidence.get(key) not in (None, latest):
        digests.append(record.evidence[key])
    gates, runs = [], []
    for sha256 in digests:
        run = finished_run(stage, stage, sha256, **inputs)
        with tempfile.TemporaryDirectory() as temporary:
            files = look_up(stage, partial(fetch_logged_files, run, Path(temporary)))
            if "gate.json" not in files:
                raise Gap(f"{stage}: run {run.info.run_id} has no gate.json")
            gates.append(look_up(stage, partial(read_decision, files["gate.json"])))
        runs.append(run)
        chain.add(f"{stage.replace('editor_eval', 'evaluation')} run", f"{run.info.run_id} ({sha256[:12]})")
    gate, registered_verdict = gates[0], version.tags.get("editloop.verdict")
    if gate["verdict"] != registered_verdict:
        raise Gap(
            f"gate: it said {gate['verdict']}, and {version.name} version {version.version} says {registered_verdict}"
        )
    chain.add("gate", f"{gate.get('gate', 'unnamed')}: {gate['verdict']}")
    if "data" in gate:
        chain.add("gate's data", gate_data(gate["data"], runs[0].data.tags.get("editloop.input.dataset")))
    return dict(gate)


def gate_data(data: dict[str, Any], dataset_sha256: str | None) -> str:
    """Return what a gate decided on, in words: its suites with their content, and the dataset.

    Args:
        data: `data` of gate.json.
        dataset_sha256: The dataset that the run of the gate read; None where it is not on record.

    Raises:
        Gap: The gate names another dataset than its run read.
    """
    if dataset_sha256 not in (None, data["dataset_sha256"]):
        raise Gap(f"gate: it decided on dataset {data['dataset_sha256'][:12]}, and its run read {dataset_sha256}")
    suites = [f"{suite['suite']} {suite['sha256'][:12]} ({suite['units']} units)" for suite in data["suites"]]
    return ", ".join([*suites, f"dataset {data['dataset_sha256'][:12]}"])


def independent_link(chain: Chain, gate: dict[str, Any]) -> None:
    """Add the verdicts of judges that did not teach the model, where its gate counted any.

    Args:
        chain: The chain to extend.
        gate: Content of gate.json.
    """
    opinions = [opinion for opinion in gate.get("independent", ()) if opinion.get("counts")]
    verdicts = [f"{opinion.get('judge')}: {opinion.get('verdict')}" for opinion in opinions]
    chain.add("independent judge", ", ".join(verdicts) or "none was asked by this gate")


def _check_stored(version: "ModelVersion", sha256: str) -> None:
    """Compare the registry's own copy with what was registered, even where the cache holds a good copy."""
    import mlflow

    if not registry.cached_folder(version).exists():
        return  # fetch_version downloads and compares it next
    address = f"models:/{version.name}/{version.version}"
    with tempfile.TemporaryDirectory() as temporary:
        mlflow.artifacts.download_artifacts(artifact_uri=address, dst_path=temporary)
        if read_manifest(Path(temporary), check=True)["sha256"] != sha256:
            raise EditLoopError(f"{address}: its files are not those that were registered ({sha256}).")


def _records(name: str, champion: str | None) -> list[Promotion]:
    """The promotion records of a model.

    Where `champion` is given and differs from the last recorded one, a record "by hand" is written first. EditLoopError
    for records that somebody deleted.
    """
    from mlflow.entities import ViewType

    api = tracking.client()
    experiment = api.get_experiment_by_name(registry.RECORDS)
    if experiment is not None:
        query = f"tags.`{registry.PREFIX}model` = {tracking.quoted(name)}"
        deleted = api.search_runs([experiment.experiment_id], query, ViewType.DELETED_ONLY, max_results=1)
        if deleted:
            raise EditLoopError(f"run {deleted[0].info.run_id} of {name}'s records was deleted; restore it in MLflow")
    records = registry.promotions(name)
    champion_versions = [record.version for record in records if record.alias == CHAMPION]
    is_recorded = champion is None or champion_versions[-1:] == [champion]
    return records if is_recorded else promotion.sync_registry_state(name).records
