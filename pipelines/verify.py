"""Lineage, checked: from a registered model back to the people whose judgements it learnt from.

    editloop verify models:/edit-reward@champion
    editloop verify models:/editor@champion

Each link is looked up where it lives (registry, runs, dataset repository, Label Studio) and compared by content.
"""

import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from annotation.campaigns.answers import changed_annotations
from annotation.campaigns.campaign import Campaign, connect, find_campaigns, live_config_sha256
from annotation.campaigns.closing import Closing, closing_of, closings
from annotation.campaigns.lead_queue import Snapshot, snapshot
from infra import registry, tracking
from infra.content import read_manifest, sha256_bytes
from infra.datarepo import Version, fetch_dataset
from infra.errors import EditLoopError
from infra.settings import service_settings
from pipelines.campaign_status import kept_snapshot

COMMIT = "mlflow.source.git.commit"


class Gap(Exception):  # noqa: N818 - the field's word
    """A link of the chain that is missing or does not hold; the message begins with its name."""


@dataclass
class Chain:
    """The links that hold, in order from the model to the annotators, and the first that does not."""

    model: str
    links: list[dict[str, str]] = field(default_factory=list)
    gap: str | None = None

    @property
    def complete(self) -> bool:
        return self.gap is None

    def add(self, name: str, value: str) -> None:
        """A link that holds."""
        self.links.append({"name": name, "value": value})

    def summary(self) -> dict[str, Any]:
        """{"complete", "gap", "links": [{"name", "value"}]}"""
        return {"complete": self.complete, "gap": self.gap, "links": self.links}


def verify(model: str) -> Chain:
    """Walk the chain of a registered reward model or editor as far as it holds."""
    chain = Chain(model)
    try:
        _walk(chain, model)
    except Gap as gap:
        chain.gap = str(gap)
    return chain


def _walk(chain: Chain, model: str) -> None:
    version = registry.find_version(model)
    if version is None:
        raise Gap(f"registry: {model} points at no version")
    chain.add("registered version", f"{version.name} version {version.version}")
    folder = _checked("model content", lambda: registry.fetch_version(version))
    sha256 = str(read_manifest(folder)["sha256"])
    chain.add("model content", sha256)
    run = _run_of(chain, version, sha256)
    if run.data.tags["editloop.stage"] == "editor_rl":
        _compared(chain, run)
        reward = version.tags.get("editloop.reward", "")
        teacher = registry.find_version(reward) if reward else None
        taught_by = run.data.tags.get("editloop.reward_sha256")
        if teacher is None or teacher.tags.get("editloop.sha256") != taught_by:
            raise Gap(f"reward model: run {run.info.run_id} learnt from {taught_by}, which is not {reward or 'named'}")
        _walk(chain, reward)
    else:
        _measured(chain, sha256)
        facts = _dataset(chain, version, run)
        _judgements(chain, facts)


def _run_of(chain: Chain, version: Any, sha256: str) -> Any:
    """The run that trained the version: finished, with this output, of a known commit and pipeline run."""
    run = _checked("training run", lambda: tracking.client().get_run(version.run_id))
    if run.info.status != "FINISHED" or sha256 not in _outputs(run):
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


def _compared(chain: Chain, run: Any) -> None:
    """The evaluation that the editor's gate decided on."""
    tuned = str(run.data.tags.get("editloop.output.output"))
    found = [other for other in tracking.find_runs({"input.editor": tuned}, stage="editor_eval") if _done(other)]
    if not found:
        raise Gap(f"evaluation: no finished editor_eval run compared {tuned}")
    chain.add("evaluation run", found[0].info.run_id)


def _measured(chain: Chain, sha256: str) -> None:
    """The benchmark that the reward model's gate decided on."""
    found = [other for other in tracking.find_runs({"input.model": sha256}, stage="benchmark") if _done(other)]
    if not found:
        raise Gap(f"benchmark: no finished benchmark run measured {sha256}")
    chain.add("benchmark run", found[0].info.run_id)


def _dataset(chain: Chain, version: Any, run: Any) -> dict[str, Any]:
    """The dataset as its repository has it; returns its facts."""
    sha256 = run.data.tags.get("editloop.input.dataset")
    tags = version.tags
    if not sha256 or tags.get("editloop.dataset_sha256") != sha256:
        raise Gap(f"dataset: trained on {sha256}, registered with {tags.get('editloop.dataset_sha256')}")
    chain.add("dataset", sha256)
    kept = Version(
        dvc_rev=tags.get("editloop.dvc_rev", ""),
        tag=tags.get("editloop.dvc_tag", ""),
        sha256=sha256,
        repo=service_settings().dataset_repo or tags.get("editloop.dataset_repo", ""),
    )
    with tempfile.TemporaryDirectory() as temporary:
        fetched = Path(temporary) / "dataset"
        _checked("DVC revision", lambda: fetch_dataset(kept, fetched))
        facts: dict[str, Any] = read_manifest(fetched)["facts"]
    chain.add("DVC revision", f"{kept['tag']} ({kept['dvc_rev'][:12]})")
    return facts


def _judgements(chain: Chain, facts: dict[str, Any]) -> None:
    """From the dataset's facts to the export in MLflow, the campaign, its answers and the annotators."""
    judgements = str(facts.get("judgements_sha256"))
    found = [run for run in tracking.find_runs({"output.output": judgements}, stage="collect") if _done(run)]
    if not found:
        raise Gap(f"judgements: no finished collect run made {judgements}")
    chain.add("judgements", judgements)
    run_id = found[0].info.run_id
    kept = _checked("label export", lambda: kept_snapshot(run_id))
    if sha256_bytes(kept.votes) != facts.get("export_sha256"):
        raise Gap(f"label export: run {run_id} keeps {sha256_bytes(kept.votes)}, not {facts.get('export_sha256')}")
    chain.add("label export", str(facts["export_sha256"]))
    _campaign(chain, facts, kept)
    if not facts.get("annotators"):
        raise Gap("annotators: the dataset names none")
    chain.add("annotators", ", ".join(facts["annotators"]))


def _campaign(chain: Chain, facts: dict[str, Any], kept: Snapshot) -> None:
    """The campaign, with its labelling config and answers as Label Studio has them now."""
    key, expected, settings = str(facts.get("campaign_key")), facts.get("config_sha256"), service_settings()
    studio = _checked("campaign", lambda: connect(settings))
    campaign = next((one for one in find_campaigns(studio, settings) if one.key == key), None)
    if campaign is None:
        raise Gap(f"campaign: Label Studio has none with key {key}")
    chain.add("campaign", f"{campaign.name} ({key})")
    live = live_config_sha256(studio, campaign)
    if live != expected:
        raise Gap(f"labelling config: campaign {key} was judged with {expected}, Label Studio has {live}")
    chain.add("labelling config", live)
    _answers(chain, facts, kept, campaign, closings(studio, campaign))
    _gate(chain, facts)


def _gate(chain: Chain, facts: dict[str, Any]) -> None:
    """The campaign's gates on agreement, and who accepted it below them."""
    alphas, gates, accepted = facts.get("alpha") or {}, facts.get("gates") or {}, facts.get("accepted")
    told = ", ".join(f"{axis} {_figure(alphas.get(axis))} (gate {gate:g})" for axis, gate in gates.items())
    if accepted:
        told += f", accepted by {accepted['by']}: {accepted['reason']}"
    elif any(alphas.get(axis) is None or alphas[axis] < gate for axis, gate in gates.items()):
        raise Gap(f"agreement gate: {told}, and nobody accepted that")
    chain.add("agreement gate", told or "none was set")


def _answers(chain: Chain, facts: dict[str, Any], kept: Snapshot, campaign: Campaign, known: list[Closing]) -> None:
    """The answers that the judgements were read from, against those that Label Studio has now."""
    settings, trained = service_settings(), facts.get("answers_sha256")
    if kept.sha256 != trained:
        raise Gap(f"answers: the export holds {kept.sha256}, the judgements were of {trained}")
    live = _checked("answers", lambda: snapshot(connect(settings), settings, campaign))
    if live.sha256 == trained:
        chain.add("answers", str(trained))
        return
    changed = changed_annotations(kept.digests, live.digests)
    closing = closing_of(known, live.sha256)
    if closing is None:
        raise Gap(
            f"answers: edited since the judgements were read: {changed}. Restore them, or take them as they are now by "
            f'`editloop campaign close "{campaign.name}"`, which trains anew'
        )
    chain.add("answers", f"{trained}; {changed} later, closed again on {closing.at:%Y-%m-%d %H:%M} UTC")


def _figure(alpha: float | None) -> str:
    return "undefined" if alpha is None else f"{alpha:.3f}"


def _outputs(run: Any) -> set[str]:
    return {value for key, value in run.data.tags.items() if key.startswith("editloop.output.")}


def _done(run: Any) -> bool:
    return bool(run.info.status == "FINISHED")


def _checked(name: str, look: Callable[[], Any]) -> Any:
    """What `look` finds; whatever keeps it from finding is the gap."""
    from mlflow.exceptions import MlflowException

    try:
        return look()
    except (EditLoopError, MlflowException, OSError) as error:
        raise Gap(f"{name}: {error}") from error
