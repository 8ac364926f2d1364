"""What a turn of the loop must end with, whatever happened to it on the way."""

import json
from pathlib import Path
from typing import Any

from annotation.campaigns.campaign import read_campaign
from annotation.campaigns.project import campaign_projects, task_rows
from annotation.campaigns.record import read_record
from editloop.content import read_manifest, sha256_json
from editloop.lineage import registry, tracking
from editloop.lineage.run_claim import CLAIMS, latest_claim
from editloop.lineage.stored_folders import recorded_folder
from infra.settings import service_settings
from pipelines.environment import services_of

RATING = ("task_id", "candidate_id", "annotator", "if", "vq")
MODELS = ("edit-reward", "editor")


def outcome(out: Path) -> dict[str, Any]:
    """Return what must be equal, and what would be there twice where something was done twice.

    The services are started where they do not run, and stopped at the end.

    Args:
        out: Folder of a demo that has ended well.
    """
    summary = json.loads((out / "summary.json").read_text())
    with services_of(out):
        judgements = (_output("collect") / "judgements.jsonl").read_text().splitlines()
        rated = sorted([json.loads(line)[key] for key in RATING] for line in judgements)
        campaign = read_campaign(_output("annotate"))
        pages = (_output("annotate") / "pages.jsonl").read_text().splitlines()
        tasks = task_rows(service_settings(), campaign)
        return {
            "dataset": summary["dataset"]["sha256"],
            "dataset folder": read_manifest(_output("dataset"), check=True)["sha256"],
            "judgements": sha256_json(rated),
            "pages": len(pages),
            "tasks": sum(map(len, tasks.values())),
            "projects": len(campaign_projects(service_settings())),
            "closings": len(read_record(service_settings(), campaign.key).closings),
            "models": {name: _versions(name) for name in MODELS},
            "promotions": {name: [(one.action, one.version) for one in registry.promotions(name)] for name in MODELS},
            "stages": [stage["status"] for stage in summary["stages"]],
            "lineage": {name: chain["complete"] for name, chain in summary["verify"].items()},
            "locks": _locks(),
        }


def _versions(name: str) -> list[str]:
    versions = tracking.client().search_model_versions(f"name = '{name}'")
    return sorted(f"{version.version}: {version.tags['editloop.sha256']}" for version in versions)


def _output(stage: str) -> Path:
    """The folder that the last finished step of a stage wrote."""
    (run,) = tracking.find_runs(stage=stage, finished=True, limit=1)
    folder = recorded_folder(run.data.tags, "output")
    assert folder
    return folder


def _locks() -> list[str]:
    """The locks in MLflow that keep somebody off: rights to promote, and claims of runs that are not abandoned."""
    api = tracking.client()
    names = [experiment.name for experiment in tracking.all_pages(api.search_experiments)]
    keys = {name.removeprefix(f"{CLAIMS}/").rpartition("/")[0] for name in names if name.startswith(f"{CLAIMS}/")}
    claims = [claim for key in keys if (claim := latest_claim(api, key)) and not (claim.run_id or claim.is_abandoned)]
    held = [f"{claim.key}/{claim.attempt}" for claim in claims]
    return sorted([name for name in names if name.startswith(f"{registry.RECORDS}/")] + held)
