"""What a turn of the loop must end with, whatever happened to it on the way."""

import json
from pathlib import Path
from typing import Any

from annotation.campaigns.campaign import read_campaign
from annotation.campaigns.project import task_rows
from editloop.content import sha256_json
from editloop.lineage import registry, tracking
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
        campaign_folder = _output(out, "annotate", "campaign")
        judgements = (_output(out, "collect", "judgements") / "judgements.jsonl").read_text().splitlines()
        rated = sorted([json.loads(line)[key] for key in RATING] for line in judgements)
        campaign = read_campaign(campaign_folder)
        pages = (campaign_folder / "pages.jsonl").read_text().splitlines()
        tasks = task_rows(service_settings(), campaign)
        return {
            "dataset": summary["dataset"]["sha256"],
            "judgements": sha256_json(rated),
            "pages": len(pages),
            "tasks": sum(map(len, tasks.values())),
            "models": {name: _versions(name) for name in MODELS},
            "promotions": {name: [(one.action, one.version) for one in registry.promotions(name)] for name in MODELS},
            "stages": [stage["status"] for stage in summary["stages"]],
            "lineage": {name: chain["complete"] for name, chain in summary["verify"].items()},
        }


def _versions(name: str) -> list[str]:
    versions = tracking.client().search_model_versions(f"name = '{name}'")
    return sorted(f"{version.version}: {version.tags['editloop.sha256']}" for version in versions)


def _output(out: Path, stage: str, name: str) -> Path:
    """The folder that the last finished step of a stage wrote."""
    return max((out / "steps").glob(f"*/{stage.replace('_', '-')}/{name}"))
