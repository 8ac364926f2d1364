"""Write what a run read, and its verdict, where MLflow's own pages show them: "Datasets" and the run's description."""

import json
from pathlib import Path
from typing import Any

from editloop.addresses import value_without_secrets
from editloop.content import MANIFEST, read_manifest
from editloop.datasets.repository import FOLDER, TAUGHT, tag_of
from editloop.datasets.settings import DatasetSettings
from editloop.lineage.promotion_pages import MAX_DESCRIPTION, markdown_cell
from editloop.lineage.tracking import client

DIGEST = 36
"""Largest length of a dataset's digest in characters, MLflow's limit. The source holds the whole sha256."""


def log_dataset(run_id: str, dataset: Path, context: str) -> None:
    """Log a dataset folder as an input of a run.

    The digest is the start of the manifest's sha256. The source names the dataset repository (EDITLOOP_DATASET_REPO)
    and the version's tag in it. Logging the same dataset twice changes nothing, and a folder that is not a complete
    dataset is skipped.

    Args:
        run_id: The MLflow run.
        dataset: The dataset folder.
        context: What the run uses it for: "training" or "evaluation".
    """
    from mlflow.entities import Dataset, DatasetInput, InputTag

    if not (dataset / MANIFEST).is_file():
        return
    manifest = read_manifest(dataset)
    sha256, facts = str(manifest["sha256"]), manifest["facts"]
    if not facts.keys() & {"judgements_sha256", "taught"}:
        return
    kind = TAUGHT if "taught" in facts else FOLDER
    repo = value_without_secrets(DatasetSettings().dataset_repo)
    source = {"repo": repo, "tag": tag_of(sha256, kind), "sha256": sha256}
    counts = {key: facts[key] for key in ("groups", "pairs", "taught") if key in facts}
    dataset_entity = Dataset(
        name=kind,
        digest=sha256[:DIGEST],
        source_type="dvc",
        source=json.dumps(source),
        profile=json.dumps(counts | {"annotators": len(facts.get("annotators", []))}),
    )
    client().log_inputs(run_id, [DatasetInput(dataset_entity, [InputTag("mlflow.data.context", context)])])


def describe_verdict(run_id: str, gate: dict[str, Any]) -> None:
    """Write a gate's verdict into a run's description and into its tag `editloop.verdict`.

    Args:
        run_id: The MLflow run of the step whose gate it is.
        gate: Content of gate.json; "verdict" and "reasons" are read.
    """
    lines = [
        f"**{markdown_cell(str(gate['verdict']))}**",
        *(f"- {markdown_cell(str(reason))}" for reason in gate["reasons"]),
    ]
    api = client()
    api.set_tag(run_id, "mlflow.note.content", "\n".join(lines)[:MAX_DESCRIPTION])
    api.set_tag(run_id, "editloop.verdict", str(gate["verdict"]))
