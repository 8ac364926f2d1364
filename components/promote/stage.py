"""Into the registry: every trained model as challenger, the champion only by its gate's verdict."""

import json
from pathlib import Path
from typing import Any

from components.judges.opening import find_local
from infra import registry, tracking
from infra.content import complete_folder, read_manifest, write_json
from infra.datarepo import read_version


def promote(
    model: Path,
    benchmark: Path,
    dataset: Path,
    version: Path,
    output: Path,
    *,
    name: str = "",
    pipeline_run: str,
) -> dict[str, float]:
    """Register the reward model and move the aliases as its gate says.

    name: its name in the registry; empty for that of its kind, `edit-reward` or `edit-score`.

    Writes `promotion.json` {name, version, alias, verdict, reasons, run_id, sha256}. The same model again is the same
    version. The registered version carries what `editloop verify` needs: the run, the dataset and where DVC has it.
    """
    committed = read_version(version)
    gate = json.loads((benchmark / "gate.json").read_text())
    facts = read_manifest(dataset)["facts"]
    tags = {
        "editloop.dataset_sha256": committed["sha256"],
        "editloop.dvc_rev": committed["dvc_rev"],
        "editloop.dvc_tag": committed["tag"],
        "editloop.dataset_repo": committed["repo"],
        "editloop.campaign_key": str(facts["campaign_key"]),
        "editloop.benchmark_sha256": str(read_manifest(benchmark)["sha256"]),
    }
    promotion = register(
        name or find_local(str(model)).kind, model, gate, stage="reward", pipeline_run=pipeline_run, tags=tags
    )
    with complete_folder(output) as folder:
        write_json(folder / "promotion.json", promotion)
    return {"model_version": float(promotion["version"]), "promoted": float(promotion["alias"] == registry.CHAMPION)}


def register(
    name: str, model: Path, gate: dict[str, Any], *, stage: str, pipeline_run: str, tags: dict[str, str]
) -> dict[str, Any]:
    """Register a model folder under the run of the `stage` that trained it; returns what promotion.json holds.

    The version becomes `challenger`, and `champion` too when the gate's verdict is "promote".
    """
    sha256 = str(read_manifest(model)["sha256"])
    run_id = tracking.run_that_made(stage, sha256)
    tags = tags | tracking.origin_tags(run_id)
    tags |= {"editloop.pipeline_run": pipeline_run, "editloop.verdict": gate["verdict"]}
    version = registry.register_model(name, model, run_id, tags)
    registry.set_alias(name, registry.CHALLENGER, version)
    alias = registry.CHALLENGER
    if gate["verdict"] == "promote":
        registry.set_alias(name, registry.CHAMPION, version)
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
