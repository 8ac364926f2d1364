"""One reconcile pass: close the campaigns that are complete, start or report the pipelines that are due, and return.

The pass keeps no state of its own: Label Studio has the answers, MLflow the campaigns' records, which pipelines ran and
which models are champions. Each pipeline starts under a key made of its inputs, so that a second pass, here or
elsewhere, starts nothing twice.
"""

import json
import re
import shlex
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from annotation.campaigns.answers import CampaignProgress
from annotation.campaigns.campaign import Campaign, connect
from annotation.campaigns.campaign_settings import LONGEST_NAME
from annotation.campaigns.closing import close_campaign, readiness
from annotation.campaigns.kept_answers import keep_answers, latest_copy
from annotation.campaigns.label_studio import NotThereError
from annotation.campaigns.lead_queue import Snapshot, snapshot
from annotation.campaigns.locating import CampaignFiles, annotate_runs, campaign_files
from annotation.campaigns.people import record_joined
from annotation.campaigns.project import campaign_projects, mend_project
from annotation.campaigns.record import EARLIER, CampaignRecord, now, read_records
from annotation.campaigns.training import keep_trained
from annotation.campaigns.training_project import mend_training
from editloop.content import sha256_json
from editloop.data.vocabulary import Page
from editloop.datasets.settings import DatasetSettings
from editloop.datasets.withdrawal import Withdrawal, read_withdrawals
from editloop.errors import EditLoopError
from editloop.file_lock import file_lock
from editloop.lineage import registry, tracking
from editloop.lineage.mlflow_errors import mlflow_errors_in_one_line, server_name
from editloop.lineage.run_claim import latest_claim
from editloop.settings_file import shorten
from infra.settings import ServiceSettings, service_settings
from pipelines.backend import Start
from pipelines.catalogue import find_pipeline
from pipelines.follow_up import Arguments, FollowUp, kept_follow_up
from pipelines.reconcile_failures import (
    CampaignFailure,
    failure_reason,
    forget_failure,
    keep_failure,
    read_failure,
)
from pipelines.reconcile_settings import ReconcilePolicy
from pipelines.run_status import RunStatus

if TYPE_CHECKING:
    from mlflow.entities import Run
    from mlflow.entities.model_registry import ModelVersion

LAST_STAGE = {"collect-preferences": "annotate", "train-reward": "promote", "improve-editor": "editor_eval"}
"""The last stage of each pipeline, which tells whether a run finished."""
REWARD_CHAMPION = f"models:/edit-reward@{registry.CHAMPION}"
EDITOR_CHAMPION = f"models:/editor@{registry.CHAMPION}"
OF_AN_EDITOR = re.compile(r", editor \d+$")
"""End of the name of a campaign that asks about an improved editor's edits."""
ACTOR = "editloop reconcile"
"""Who a closing is by that no person made."""
COPY_SECONDS = 600
"""Seconds after which changed answers are copied into the campaign's record again."""


SHOWN_TITLES = 5
"""Campaigns without a record that a note names."""
OPENING = 20
"""Latest openings of campaigns among which one that goes on at this moment is looked for."""


@dataclass(frozen=True)
class PendingCampaign:
    """A campaign for which no pipeline can start yet."""

    campaign: Campaign
    progress: CampaignProgress
    reason: str
    """What the campaign waits for, and how to continue."""


@dataclass
class ReconcileResult:
    """Result of one reconcile pass."""

    campaigns: list[Campaign] = field(default_factory=list)
    """All campaigns."""
    waiting: list[PendingCampaign] = field(default_factory=list)
    edited: list[Campaign] = field(default_factory=list)
    """Campaigns whose answers were edited after their last closing. Closing them again starts a new training."""
    runs: list[RunStatus] = field(default_factory=list)
    """Where the runs stand that are due."""
    repairs: list[str] = field(default_factory=list)
    """What was mended in campaigns' projects, each with the campaign."""
    notes: list[str] = field(default_factory=list)
    """What keeps pipelines from following, and no campaign's failure."""
    failures: list[str] = field(default_factory=list)
    """Campaigns that could not be looked at, each with the reason."""

    @property
    def has_failed(self) -> bool:
        """Whether a campaign could not be looked at, or a run that is due has failed."""
        return bool(self.failures) or any(run.state == "failed" for run in self.runs)

    def lines(self) -> list[str]:
        """Return everything but the failures as lines for people."""
        return [
            *(
                f"waiting  {pending.campaign.name} ({pending.campaign.key}): {pending.reason}"
                for pending in self.waiting
            ),
            *(
                f"edited   {campaign.name} ({campaign.key}): `editloop campaign status` tells what changed"
                for campaign in self.edited
            ),
            *(f"mended   {repair}" for repair in self.repairs),
            *(f"note     {note}" for note in dict.fromkeys(self.notes)),
            *map(str, self.runs),
        ]


def reconcile(start: Start, root: Path | None, policy: ReconcilePolicy, *, again: bool = False) -> ReconcileResult:
    """Close every campaign that can close, and start what follows from it or report it as due, as the policy says.

    The first time, a campaign closes by itself, when all pages are answered and its gates hold. After that only people
    close it again (`editloop campaign close`). Train-reward is due for the latest closing, and again after an annotator
    or a task of the campaign was withdrawn; improve-editor for a reward champion that learnt from the campaign;
    collect-preferences, the next campaign, for an editor champion that learnt from such a reward model. The arguments
    are those of the campaign's `follow_up` (a parameter of collect-preferences). Without arguments for improve-editor
    or collect-preferences, that pipeline is not due. A campaign that fails, by whatever error, does not stop the
    others; later passes leave it alone for a while (`pipelines.reconcile_failures`).

    Args:
        start: Runs a pipeline.
        root: Folder of the lock that keeps two passes on this machine apart; None where a server keeps runs apart.
        policy: What is started and what is reported.
        again: Look also at campaigns that failed a short while ago.

    Returns:
        The pending and edited campaigns, where the runs stand, and the failures.

    Raises:
        EditLoopError: A service is away or refuses the log-in, or an experiment of MLflow's was deleted.
    """
    settings = service_settings()
    tracking.forget_experiments()
    tracking.find_experiment(tracking.client(), tracking.EXPERIMENT)  # where it was deleted, no campaign can be read
    if root:
        root.mkdir(parents=True, exist_ok=True)
    with file_lock(root / "reconcile.lock") if root else nullcontext():
        client = connect(settings)
        repo = DatasetSettings().dataset_repo
        current_pass = _Pass(start, policy, client, settings, read_withdrawals(repo) if repo else [], again)
        projects = campaign_projects(settings)
        records = read_records(settings)
        current_pass.note_unrecorded(projects, records)
        for record in records:
            if not record.cancelled:
                current_pass.result.campaigns.append(record.campaign)
                current_pass.look_at(record)
    return current_pass.result


@dataclass(frozen=True)
class _Pass:
    """One pass over all campaigns."""

    start: Start
    policy: ReconcilePolicy
    client: Any
    settings: ServiceSettings
    withdrawals: Sequence[Withdrawal]
    again: bool
    result: ReconcileResult = field(default_factory=ReconcileResult)

    def note_unrecorded(self, projects: Mapping[str, str], records: Sequence[CampaignRecord]) -> None:
        """Note the campaigns in Label Studio of which MLflow has no record: nothing follows from them."""
        unrecorded = [
            title for key, title in projects.items() if key not in {record.campaign.key for record in records}
        ]
        if unrecorded:
            titles = ", ".join(map(shorten, unrecorded[:SHOWN_TITLES])) + (", ..." if unrecorded[SHOWN_TITLES:] else "")
            self.result.notes.append(
                f"{server_name()} has no record of {len(unrecorded)} campaigns in Label Studio ({titles}), so nothing "
                f"follows from them: is MLFLOW_TRACKING_URI the server that they were opened with? {EARLIER}"
            )

    def look_at(self, record: CampaignRecord) -> None:
        """Advance a campaign; where that fails, keep the failure for later passes."""
        campaign, runs = record.campaign, list["Run"]()
        failure: CampaignFailure | None = None
        try:
            runs = annotate_runs(record)
            failure = read_failure(runs[0]) if runs else None
            if failure and not failure.has_paused and not self.again:
                self.result.failures.append(f"{campaign.name} ({campaign.key}): {failure}")
                return
            self.advance(record, runs)
            if failure:
                forget_failure(runs[0])
        except Exception as error:
            self.check_services()  # where one is away, that is no campaign's failure
            reason = failure_reason(error)
            self.result.failures.append(f"{campaign.name} ({campaign.key}): {reason}")
            if runs:
                keep_failure(runs[0], reason, failure)

    def check_services(self) -> None:
        """Raise EditLoopError where Label Studio or MLflow is away."""
        connect(self.settings)
        with mlflow_errors_in_one_line():
            tracking.client().search_experiments(max_results=1)

    def advance(self, record: CampaignRecord, runs: "Sequence[Run]") -> None:
        """Mend a campaign's project, close it if it can close, and start or report what is due for it."""
        if not runs:
            self.note_unopened(record)
            return
        record = record_joined(self.settings, record)
        files, campaign = campaign_files(record, runs), record.campaign
        pages = files.pages()
        record, live = self.mend(files, pages)
        campaign = record.campaign
        ready = readiness(self.settings, record, pages, live)
        campaign_closings = record.closings
        if not campaign_closings and (hindrance := ready.closing_obstacle or ready.gate_shortfall):
            self.result.waiting.append(PendingCampaign(campaign, ready.progress, hindrance))
            return
        opened: dict[str, str] = runs[0].data.tags
        if "editloop.uri.candidates" not in opened:
            return  # opened by `dvc repro` or stage by stage: whoever did so goes on
        closing = campaign_closings[-1] if campaign_closings else close_campaign(record, ready, live, by=ACTOR)
        follow_up = kept_follow_up(opened.get("editloop.follow_up", "{}"))
        training = {
            "campaign": campaign.key,
            "answers_sha256": closing.answers_sha256,
            "withdrawn_sha256": withdrawals_sha256(campaign, pages, self.withdrawals),
            **follow_up.get("train-reward", {}),
        }
        if closing.answers_sha256 != ready.answers_sha256:
            self.result.edited.append(campaign)
            if not has_finished_run("train-reward", _key("train-reward", campaign.key, training)):
                reason = (
                    f"Answers of campaign {campaign.name} were edited after it closed, and nothing was trained on "
                    f'it yet: `editloop campaign close "{campaign.name}"` takes them as they are now.'
                )
                self.result.waiting.append(PendingCampaign(campaign, ready.progress, reason))
                return
        self.once("train-reward", campaign.key, training)
        self.follow_champions(campaign, follow_up)

    def note_unopened(self, record: CampaignRecord) -> None:
        """Note that no run opened a campaign, unless one does at this moment."""
        campaign = record.campaign
        for run in tracking.find_runs(stage="annotate", campaign_key=campaign.key, deleted=True, limit=1):
            raise EditLoopError(
                f"{server_name()}: run {run.info.run_id}, which opened it, was deleted, so nothing follows. Restore "
                f"it: `mlflow runs restore --run-id {run.info.run_id}`."
            )
        opening = [run for run in tracking.find_runs(stage="annotate", limit=OPENING) if run.info.status == "RUNNING"]
        if campaign.name not in [run.data.params.get("name") for run in opening]:
            self.result.notes.append(
                f"{campaign.name} ({campaign.key}): {server_name()} has no run that opened it, so nothing follows. "
                "Open it again."
            )

    def mend(self, files: CampaignFiles, pages: Mapping[str, Page]) -> tuple[CampaignRecord, Snapshot]:
        """Undo what people did to a campaign's project, keep a copy of its answers, and return those."""
        record = files.record
        try:
            live = snapshot(self.settings, record, pages)
        except NotThereError:
            live = None
        if live is None or live.answers.disturbed(pages):
            guidelines = (files.folder / "guidelines.md").read_text()
            answers = live.answers if live else None
            mended = mend_project(self.client, self.settings, record, pages, guidelines, answers)
            record = mended.record
            self.result.repairs += [f"{record.campaign.name}: {repair}" for repair in mended.repairs]
            live = snapshot(self.settings, record, pages)
        if live.training and live.training.deleted:
            guidelines = (files.folder / "guidelines.md").read_text()
            record = mend_training(self.client, self.settings, record, guidelines)
            self.result.repairs.append(f"{record.campaign.name}: its training project was deleted, and is made anew")
        record = keep_trained(record, live.training)
        copy = latest_copy(record.campaign.key)
        stale = copy is None or abs((now() - copy.at).total_seconds()) > COPY_SECONDS  # ahead: the clock was set back
        if stale and live.digests and (copy is None or copy.answers_sha256 != live.sha256):
            keep_answers(record.campaign.key, live.kept_answers(), live.sha256)
        return record, live

    def follow_champions(self, campaign: Campaign, follow_up: FollowUp) -> None:
        """Start or report what is due for champions that learnt from a campaign."""
        improvement = follow_up.get("improve-editor", {})
        address = str(improvement.get("reward", REWARD_CHAMPION))
        reward = registry.find_version(address if address.startswith("models:/") else REWARD_CHAMPION)
        if reward and _learnt_from(reward, campaign) and "improve-editor" in follow_up:
            self.once("improve-editor", _short_sha256(reward), improvement)
        if "collect-preferences" not in follow_up:
            return
        name = improvement.get("registered_name")
        editor = registry.find_version(f"models:/{name}@{registry.CHAMPION}" if name else EDITOR_CHAMPION)
        teacher = self.teacher_of(editor) if editor else None
        if editor and teacher and _learnt_from(teacher, campaign):
            arguments = next_campaign(campaign, follow_up, f"models:/{editor.name}/{editor.version}")
            self.once("collect-preferences", _short_sha256(editor), arguments)

    def teacher_of(self, editor: "ModelVersion") -> "ModelVersion | None":
        """Return the reward model that an editor learnt from; None, with a note, where nothing says which."""
        address = editor.tags.get("editloop.reward")
        teacher = registry.find_version(address) if address else None
        if teacher is None:
            trouble = f"its reward model {address} is gone" if address else "it has no tag editloop.reward"
            self.result.notes.append(
                f"models:/{editor.name}/{editor.version}, the champion, leads to no campaign: {trouble}. Promote a "
                "version that stage editor_eval registered."
            )
        return teacher

    def once(self, pipeline: str, cause: str, arguments: Arguments) -> None:
        """Start a run of its key unless there is one, or report it as due."""
        key = _key(pipeline, cause, arguments)
        if has_finished_run(pipeline, key):
            self.result.runs.append(RunStatus(key, "done"))
            return
        form = find_pipeline(pipeline).arguments(arguments | {"run_key": key})
        if self.policy.decision(pipeline) == "report" and latest_claim(tracking.client(), key) is None:
            options = " ".join(f"--set {shlex.quote(f'{name}={_option_text(value)}')}" for name, value in form.items())
            detail = f"the policy leaves it to people: editloop run {pipeline} {options}"
            self.result.runs.append(RunStatus(key, "due", detail=detail))
            return
        self.result.runs.append(self.start(pipeline, form))


def next_campaign(campaign: Campaign, follow_up: FollowUp, editor: str) -> Arguments:
    """Return the arguments of the campaign about a new editor's edits.

    People and overlap are those of the campaign before, and so is what follows, where `follow_up` does not say
    otherwise. The name says which version of the editor is asked about.

    Args:
        campaign: The campaign that the editor learnt from.
        follow_up: Its `follow_up`, with arguments of collect-preferences: the edits folder, at least.
        editor: Address of the editor's version.
    """
    ending = f", editor {editor.rpartition('/')[2]}"
    name = f"{OF_AN_EDITOR.sub('', campaign.name)[: LONGEST_NAME - len(ending)].rstrip()}{ending}"
    return {
        "campaign": name,
        "annotators": list(campaign.annotators),
        "overlap": campaign.overlap,
        "lead": campaign.lead or "",
        "follow_up": json.dumps(follow_up, sort_keys=True),
        **follow_up["collect-preferences"],
        "image_editor": editor,
    }


def withdrawals_sha256(campaign: Campaign, pages: Mapping[str, Page], withdrawals: Sequence[Withdrawal]) -> str:
    """Return the content address of the withdrawals that concern a campaign; "" where none does.

    Args:
        campaign: The campaign. Its annotators and its lead count.
        pages: The campaign's pages. Their tasks count.
        withdrawals: All withdrawals of the dataset repository.
    """
    names: dict[str, set[str | None]] = {
        "annotator": {*campaign.annotators, campaign.lead},
        "task": {page.task_id for page in pages.values()},
    }
    concerned = sorted(
        [withdrawal.kind, withdrawal.name] for withdrawal in withdrawals if withdrawal.name in names[withdrawal.kind]
    )
    return sha256_json(concerned) if concerned else ""


def has_finished_run(pipeline: str, key: str) -> bool:
    """Return whether a run of the pipeline with this key finished its last stage.

    Args:
        pipeline: The pipeline, a key of LAST_STAGE.
        key: The run's key.
    """
    return bool(tracking.find_runs(stage=LAST_STAGE[pipeline], pipeline_run=key, finished=True, limit=1))


def _key(pipeline: str, cause: str, arguments: Arguments) -> str:
    return f"{pipeline}-{cause}-{sha256_json(arguments)[:8]}"


def _learnt_from(reward: "ModelVersion", campaign: Campaign) -> bool:
    return bool(reward.tags.get("editloop.campaign_key") == campaign.key)


def _short_sha256(version: "ModelVersion") -> str:
    """Return the beginning of the content address of a registered model."""
    sha256 = version.tags.get("editloop.sha256")
    if not sha256:
        raise EditLoopError(
            f"models:/{version.name}/{version.version} has no tag editloop.sha256: somebody registered it by hand. "
            "Promote a version that a pipeline registered."
        )
    return str(sha256)[:16]


def _option_text(value: object) -> str:
    """Return a form's value as `--set` takes it."""
    return value if isinstance(value, str) else json.dumps(value)
