"""The gate that waits for people without waiting: look, start what is due, end.

Stateless: Label Studio says which campaigns are complete, MLflow which pipelines ran. Each pipeline starts under a key
made of what it works on, so that a second look, here or elsewhere, starts nothing twice.
"""

import fcntl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from annotation.answers import Progress, export, progress
from annotation.campaign import Campaign, connect, find_campaigns
from infra import tracking
from infra.content import read_manifest, sha256_json
from infra.settings import service_settings
from pipelines.settings import LoopSettings

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


def reconcile(start: Start, loop: LoopSettings, *, prompts: str | None, heldout: str | None, root: Path) -> Look:
    """Start train-reward for every complete campaign, and improve-editor for a champion that came of it.

    Without `prompts` and `heldout` (edits folders, paths or URIs) no editor is improved. `root` holds the lock that
    keeps two looks on this machine apart.
    """
    look, settings = Look(), service_settings()
    with _alone(root):
        client = connect(settings)
        for campaign in find_campaigns(client, settings):
            counted = progress(client, campaign, export(settings, campaign))
            if not counted.complete:
                look.waiting.append((campaign, counted))
                continue
            _once(look, start, "train-reward", campaign.key, _training(campaign, loop))
            champion = tracking.find_version(CHAMPION)
            if champion is None or champion.tags.get("editloop.campaign_key") != campaign.key:
                continue  # not this campaign's model: its own campaign improves the editor
            if prompts and heldout:
                sha256 = champion.tags["editloop.sha256"]
                _once(look, start, "improve-editor", sha256[:16], _improving(prompts, heldout, loop))
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


def _training(campaign: Campaign, loop: LoopSettings) -> dict[str, Any]:
    """Arguments of train-reward: the folders as the run that opened the campaign left them."""
    run = tracking.find_runs(stage="annotate", campaign_key=campaign.key)[0]
    tags = run.data.tags
    return {
        "candidates_uri": tags["editloop.uri.candidates"],
        "candidates_sha256": tags["editloop.input.candidates"],
        "campaign_uri": tags["editloop.uri.output"],
        "campaign_sha256": tags["editloop.output.output"],
        **loop.reward.model_dump(),
        **loop.benchmark.model_dump(),
        "seed": loop.seed,
    }


def _improving(prompts: str, heldout: str, loop: LoopSettings) -> dict[str, Any]:
    return {
        "prompts_uri": prompts,
        "prompts_sha256": _sha256(prompts),
        "heldout_uri": heldout,
        "heldout_sha256": _sha256(heldout),
        **loop.editor_rl.model_dump(),
        **loop.editor_eval.model_dump(),
        "seed": loop.seed,
    }


def _sha256(folder: str) -> str:
    """Content address of an edits folder of this machine; a remote one's is not asked for."""
    return "" if "://" in folder else str(read_manifest(Path(folder))["sha256"])


@contextmanager
def _alone(root: Path) -> Iterator[None]:
    root.mkdir(parents=True, exist_ok=True)
    with (root / "reconcile.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
