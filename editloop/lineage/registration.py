"""A model into the registry: signed, with its card, as challenger; as champion when its gate says so."""

import json
from pathlib import Path
from typing import Any

from editloop.content import read_manifest, sha256_file
from editloop.datasets.repository import DatasetVersion
from editloop.errors import EditLoopError
from editloop.lineage import registry, tracking
from editloop.lineage.model_card import KINDS, Link, model_card, truncate_card
from editloop.lineage.promotion import promote_version

REPORTS = {"benchmark_sha256": "benchmark.json", "evaluation_sha256": "evaluation.json"}
"""What an evidence folder is called among a version's tags, and its file of figures."""
EDITOR_STAGES = ("editor_sft", "editor_rl")
"""Stages that train an editor."""
TRAINING = ("base", "base_sha256", "editor", "preset", "algorithm", "seed")
"""Facts of a model's manifest that its card tells, beside the settings of its training."""


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
    """Register a model folder under the run of the `stage` that trained it; returns what promotion.json holds.

    evidence: the folder of its benchmark or evaluation, whose gate.json decides. chain: links of the model's card that
    the stage knows. The version becomes `challenger`, and `champion` too when the gate's verdict is "promote"; moving
    the champion is on record, with the pipeline run as its actor.
    """
    gate = json.loads((evidence / "gate.json").read_text())
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
    report = json.loads((evidence / REPORTS[kind]).read_text())
    card_kind = name if name in KINDS else "editor" if stage in EDITOR_STAGES else "edit-reward"
    _write_card(
        name,
        version,
        card_kind,
        model,
        gate,
        report,
        [*_run_links(run_id, kind, evidence_tags[f"editloop.{kind}"]), *chain],
    )
    registry.set_alias(name, registry.CHALLENGER, version)
    alias = registry.CHALLENGER
    if gate["verdict"] == "promote":
        reason = str((gate["reasons"] or ["its gate said promote"])[0])[:900]
        promote_version(f"models:/{name}/{version}", actor=f"pipeline {pipeline_run}"[:900], reason=reason)
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
    """What a registered version says of the data that it learnt from: its content, and where DVC has it."""
    return {
        "editloop.dataset_sha256": version["sha256"],
        "editloop.dvc_rev": version["dvc_rev"],
        "editloop.dvc_tag": version["tag"],
        "editloop.dataset_repo": version["repo"],
    }


def run_link(name: str, run_id: str) -> Link:
    """A run by its id, with its place on MLflow's pages."""
    experiment = tracking.client().get_run(run_id).info.experiment_id
    return Link(name, run_id, f"#/experiments/{experiment}/runs/{run_id}")


def output_link(name: str, stage: str, sha256: str) -> Link:
    """The run of a stage that made something, or its sha256 alone where MLflow knows no such run."""
    try:
        return run_link(name, tracking.find_producer_run(stage, sha256))
    except EditLoopError:
        return Link(name, f"none in MLflow made {sha256}")


def _run_links(run_id: str, kind: str, sha256: str) -> list[Link]:
    """The run that trained, and the one that measured: for an editor that one is still at work, and is ours."""
    stage = "benchmark" if kind == "benchmark_sha256" else "editor_eval"
    stage_run_id = tracking.TrackingSettings().stage_run
    if stage == "editor_eval" and stage_run_id:
        measured = run_link("evaluation run", stage_run_id)
    else:
        measured = output_link(f"{stage.replace('_', ' ')} run", stage, sha256)
    return [run_link("training run", run_id), measured, Link("evidence", f"{kind} {sha256}")]


def _write_card(
    name: str, version: str, kind: str, model: Path, gate: dict[str, Any], report: dict[str, Any], chain: list[Link]
) -> None:
    """The card as the version's description, and whole among the training run's artifacts."""
    api = tracking.client()
    manifest, registered = read_manifest(model), registry.registered_facts(name, version)
    facts = manifest["facts"]
    chain = [
        Link("registered as", f"{name} version {version}"),
        Link("content", str(manifest["sha256"])),
        Link("signed with key", registered["tags"].get("editloop.signing_key", "none")),
        *chain,
        Link("pipeline run", registered["tags"].get("editloop.pipeline_run", "unknown")),
    ]
    training = {key: facts[key] for key in TRAINING if key in facts}
    training |= facts.get("training") or {}
    card = model_card(name, kind, gate, report, chain, training)
    file = f"model-{str(manifest['sha256'])[:12]}.card.md"
    api.log_text(registered["run_id"], card, file)
    api.update_model_version(name, version, truncate_card(card, f"{file} of run {registered['run_id']}"))
