"""Registration of a trained model: sign it, write its card, make it challenger, and champion where its gate says so."""

from pathlib import Path
from typing import Any

from editloop.content import RESTORE, read_manifest, sha256_file
from editloop.datasets.repository import DatasetVersion
from editloop.errors import EditLoopError
from editloop.json_file import read_json_object
from editloop.lineage import registry, tracking
from editloop.lineage.gate_decision import read_decision
from editloop.lineage.model_card import KINDS, Link, model_card, training_settings, truncate_card
from editloop.lineage.model_links import gate_data
from editloop.lineage.promotion import promote_version
from editloop.text_file import whole_number

REPORTS = {"benchmark_sha256": "benchmark.json", "evaluation_sha256": "evaluation.json"}
"""File of figures in an evidence folder, by the tag (after "editloop.") with the folder's sha256."""
EDITOR_STAGES = ("editor_sft", "editor_dpo", "editor_rl")
"""Stages that train an editor."""


def register(
    name: str,
    model: Path,
    evidence: Path,
    *,
    stage: str,
    pipeline_run: str,
    tags: dict[str, str],
    chain: list[Link],
) -> dict[str, Any]:
    """Register a model folder, with its card, as `challenger`; as `champion` too where the gate's verdict is "promote".

    The version belongs to the MLflow run of `stage` that trained the model. A move of the champion gets a promotion
    record with the pipeline run as its actor. It replaces no other champion than the one of the verdict's comparison.

    Args:
        name: Name in the registry.
        model: The complete model folder.
        evidence: Folder of the model's benchmark or evaluation. Its gate.json decides.
        stage: The stage that trained the model.
        pipeline_run: Name of the pipeline run that registers it.
        tags: Tags of the new version.
        chain: Links for the model's card that only the caller knows.

    Returns:
        The content of promotion.json: {"name", "version", "alias", "verdict", "reasons", "run_id", "sha256"}.

    Raises:
        OvertakenError: Another version has become the champion since the comparison. It is an EditLoopError too.
        EditLoopError: No run of `stage` in MLflow made the model, or it cannot be signed or promoted.
    """
    gate = read_decision(evidence / "gate.json")
    sha256 = str(read_manifest(model)["sha256"])
    run_id = tracking.find_producer_run(stage, sha256)
    kind = next(key for key, file in REPORTS.items() if (evidence / file).is_file())
    evidence_tags = {
        "editloop.verdict": str(gate["verdict"]),
        f"editloop.{kind}": str(read_manifest(evidence)["sha256"]),
        "editloop.verdict_sha256": sha256_file(evidence / "gate.json"),
    }
    tags = tags | tracking.origin_tags(run_id) | {"editloop.pipeline_run": pipeline_run}
    version = registry.register_model(name, model, run_id, tags, evidence_tags)
    report = read_json_object(evidence / REPORTS[kind], RESTORE)
    card_kind = name if name in KINDS else "editor" if stage in EDITOR_STAGES else "edit-reward"
    links = [*_run_links(run_id, kind, evidence_tags[f"editloop.{kind}"]), *chain]
    if "data" in gate:
        links.append(Link("gate's data", gate_data(gate["data"], None)))
    _write_card(name, version, card_kind, model, gate, report, links)
    alias = registry.CHALLENGER
    registry.set_alias(name, alias, version)
    if gate["verdict"] == "promote":
        reason = str((gate["reasons"] or ["its gate said promote"])[0])[:900]
        promote_version(
            f"models:/{name}/{version}",
            actor=f"pipeline {pipeline_run}"[:900],
            reason=reason,
            replaces=_version_of(name, str(gate["against"])),
        )
        alias = registry.CHAMPION
    return {
        "name": name,
        "version": version,
        "alias": alias,
        "verdict": gate["verdict"],
        "reasons": gate["reasons"],
        "run_id": run_id,
        "sha256": sha256,
    }


def dataset_tags(version: DatasetVersion) -> dict[str, str]:
    """Return the tags that tell which dataset a registered version learnt from: its sha256, and where DVC has it.

    Args:
        version: The dataset's version.
    """
    return {
        "editloop.dataset_sha256": version["sha256"],
        "editloop.dvc_rev": version["dvc_rev"],
        "editloop.dvc_tag": version["tag"],
        "editloop.dataset_repo": version["repo"],
    }


def dataset_version_links(name: str, version: DatasetVersion) -> list[Link]:
    """Return a card's links to the content of a dataset and to its place in DVC.

    Args:
        name: Name of the first link.
        version: The dataset's version.
    """
    place = f"{version['tag']} of {version['repo']}, commit {version['dvc_rev']}"
    return [Link(name, version["sha256"]), Link("DVC", place)]


def run_link(name: str, run_id: str) -> Link:
    """Return a card's link to a run.

    Args:
        name: Name of the link.
        run_id: The MLflow run.
    """
    experiment = tracking.client().get_run(run_id).info.experiment_id
    return Link(name, run_id, f"#/experiments/{experiment}/runs/{run_id}")


def output_link(name: str, stage: str, sha256: str) -> Link:
    """Return a card's link to the run of a stage that made an output.

    Where MLflow has no such run, the link has no address and says so.

    Args:
        name: Name of the link.
        stage: The stage that made the output.
        sha256: Content of the output.
    """
    try:
        return run_link(name, tracking.find_producer_run(stage, sha256))
    except EditLoopError:
        return Link(name, f"none in MLflow made {sha256}")


def _run_links(run_id: str, kind: str, sha256: str) -> list[Link]:
    """Links to the run that trained the model and to the one that measured it.

    An editor is registered within the step that evaluates it. That run has not recorded its output yet, so its id comes
    from EDITLOOP_STAGE_RUN.
    """
    stage = "benchmark" if kind == "benchmark_sha256" else "editor_eval"
    stage_run_id = tracking.TrackingSettings().stage_run
    if stage == "editor_eval" and stage_run_id:
        measured = run_link("evaluation run", stage_run_id)
    else:
        measured = output_link(f"{stage.replace('_', ' ')} run", stage, sha256)
    return [run_link("training run", run_id), measured, Link("evidence", f"{kind} {sha256}")]


def _version_of(name: str, against: str) -> str | None:
    """Return the version of a registered model that a verdict compares with; None where it names none."""
    number = against.removeprefix(f"models:/{name}/")
    return number if whole_number(number) is not None else None


def _wording(facts: dict[str, Any]) -> str:
    """What a card says of a judge's wording."""
    note = ", another than the weights were trained with" if facts["wording"] == "substitute" else ""
    return f"{facts['wording_sha256']}{note}"


def _write_card(
    name: str, version: str, kind: str, model: Path, gate: dict[str, Any], report: dict[str, Any], chain: list[Link]
) -> None:
    """Write the card as the version's description, and in full as an artifact of the training run."""
    api = tracking.client()
    manifest, registered = read_manifest(model), api.get_model_version(name, version)
    facts = manifest["facts"]
    chain = [
        Link("registered as", f"{name} version {version}"),
        Link("content", str(manifest["sha256"])),
        *([Link("wording", _wording(facts))] if "wording_sha256" in facts else []),
        Link("signed with key", registered.tags.get("editloop.signing_key", "none")),
        *chain,
        Link("pipeline run", registered.tags.get("editloop.pipeline_run", "unknown")),
    ]
    card = model_card(name, kind, gate, report, chain, training_settings(facts))
    file = f"model-{str(manifest['sha256'])[:12]}.card.md"
    api.log_text(str(registered.run_id), card, file)
    api.update_model_version(name, version, truncate_card(card, f"{file} of run {registered.run_id}"))
