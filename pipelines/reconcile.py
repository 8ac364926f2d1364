"""The gate that waits for people without waiting: look, start what is due, end.

Stateless: Label Studio says which campaigns are complete, MLflow which pipelines ran. Each pipeline starts under a key
made of what it works on, so that a second look, here or elsewhere, starts nothing twice.
"""

import fcntl
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from annotation.answers import Progress, export, progress
from annotation.campaign import Campaign, connect, find_campaigns
from infra import tracking
from infra.content import sha256_json
from infra.settings import service_settings

LAST_STAGE = {"collect-preferences": "annotate", "train-reward": "promote", "improve-editor": "editor_eval"}
CHAMPION = f"models:/edit-reward@{tracking.CHAMPION}"

Start = Callable[[str, dict[str, Any]], None]
"""Runs a pipeline, given its name and arguments, to its end or on a cluster."""


@dataclass
class Look:
    """What one look found and did."""

    waiting: list[tuple[Campaign, Progress]] = field(default_factory=list)
    started: list[str] = field(default_factory=list)
    """Keys of the runs that this look started."""
    done: list[str] = field(default_factory=list)
    """Keys of the runs that were finished before."""


def reconcile(start: Start, root: Path) -> Look:
    """Start train-reward for every complete campaign, and improve-editor for a champion that came of it.

    With what arguments, was said when the campaign was opened (collect-preferences' `follow_up`); where nothing was
    said of improve-editor, it does not start. `root` holds the lock that keeps two looks on this machine apart.
    """
    look, settings = Look(), service_settings()
    with _alone(root):
        client = connect(settings)
        for campaign in find_campaigns(client, settings):
            counted = progress(client, campaign, export(settings, campaign))
            if not counted.complete:
                look.waiting.append((campaign, counted))
                continue
            runs = tracking.find_runs(stage="annotate", campaign_key=campaign.key)
            opened: dict[str, str] = runs[0].data.tags if runs else {}
            if "editloop.uri.candidates" not in opened:
                continue  # opened by hand or by dvc repro, not by a pipeline: whoever did so goes on
            follow_up = json.loads(opened["editloop.follow_up"])
            training = {
                "candidates_uri": opened["editloop.uri.candidates"],
                "candidates_sha256": opened["editloop.input.candidates"],
                "campaign_uri": opened["editloop.uri.output"],
                "campaign_sha256": opened["editloop.output.output"],
            }
            training |= follow_up.get("train-reward", {})
            _once(look, start, "train-reward", campaign.key, training)
            champion = tracking.find_version(CHAMPION)
            if champion is None or champion.tags.get("editloop.campaign_key") != campaign.key:
                continue  # not this campaign's model: its own campaign improves the editor
            if "improve-editor" in follow_up:
                cause = champion.tags["editloop.sha256"][:16]
                _once(look, start, "improve-editor", cause, follow_up["improve-editor"])
    return look


def finished(pipeline: str, key: str) -> bool:
    """Whether a run of the pipeline with this key reached its end."""
    runs = tracking.find_runs(stage=LAST_STAGE[pipeline], pipeline_run=key)
    return any(run.info.status == "FINISHED" for run in runs)


def _once(look: Look, start: Start, pipeline: str, cause: str, arguments: dict[str, Any]) -> None:
    key = f"{pipeline}-{cause}-{sha256_json(arguments)[:8]}"
    if finished(pipeline, key):
        look.done.append(key)
        return
    start(pipeline, arguments | {"run_key": key})
    look.started.append(key)


@contextmanager
def _alone(root: Path) -> Iterator[None]:
    root.mkdir(parents=True, exist_ok=True)
    with (root / "reconcile.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
