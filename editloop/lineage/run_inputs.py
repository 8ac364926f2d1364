"""What a run read and what it came to, as MLflow's own pages show it: "Datasets" and the description of the run."""

import json
from pathlib import Path
from typing import Any

from editloop.content import MANIFEST, read_manifest
from editloop.datasets.repository import tag_of
from editloop.datasets.settings import DatasetSettings
from editloop.lineage.promotion_pages import MAX_DESCRIPTION, markdown_cell
from editloop.lineage.tracking import client

DIGEST = 36
"""Characters of a dataset's digest, at most: MLflow's limit. The whole sha256 is in the source."""


def log_dataset(run_id: str, dataset: Path, context: str) -> None:
    """Name a complete dataset folder as an input of a run; one that is named already stays. Not a dataset: nothing.

    context: what it was used for, "training" or "evaluation". The digest is the manifest's sha256; the source names the
    dataset repository (EDITLOOP_DATASET_REPO) and the version's tag in it.
    """
    from mlflow.entities import Dataset, DatasetInput, InputTag

    if not (dataset / MANIFEST).is_file():
        return
    manifest = read_manifest(dataset)
    sha256, facts = str(manifest["sha256"]), manifest["facts"]
    if "judgements_sha256" not in facts:
        return
    source = {"repo": DatasetSettings().dataset_repo, "tag": tag_of(sha256), "sha256": sha256}
    counts = {key: facts[key] for key in ("groups", "pairs") if key in facts}
    dataset_entity = Dataset(
        name="preferences",
        digest=sha256[:DIGEST],
        source_type="dvc",
        source=json.dumps(source),
        profile=json.dumps(counts | {"annotators": len(facts.get("annotators", []))}),
    )
    client().log_inputs(run_id, [DatasetInput(dataset_entity, [InputTag("mlflow.data.context", context)])])


def describe_verdict(run_id: str, gate: dict[str, Any]) -> None:
    """Put a gate's verdict {"verdict", "reasons"} on the page of the run that asked for it."""
    lines = [
        f"**{markdown_cell(str(gate['verdict']))}**",
        *(f"- {markdown_cell(str(reason))}" for reason in gate["reasons"]),
    ]
    api = client()
    api.set_tag(run_id, "mlflow.note.content", "\n".join(lines)[:MAX_DESCRIPTION])
    api.set_tag(run_id, "editloop.verdict", str(gate["verdict"]))
