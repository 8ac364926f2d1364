"""The record of campaigns in MLflow: what was opened for whom, who joined and left, every closing, and the answers.

Label Studio's community edition lets every member change a project's texts and settings, other people's answers, and
delete projects. What decides is therefore never read from there. Each event of a campaign is a run of MLflow's
experiment RECORDS, signed with the key in EDITLOOP_SIGNING_KEY; a run that no trusted key signed counts for nothing,
and a deleted run still counts. `docs/campaign.md` says what this keeps people from doing, and what it cannot.
"""

import json
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, TypeAdapter, ValidationError

from annotation.campaigns.campaign import Campaign
from editloop.content import canonical_json, sha256_bytes
from editloop.data.vocabulary import Axis, Record
from editloop.errors import EditLoopError
from editloop.lineage import tracking
from editloop.lineage.signing import SignatureError, TextSignature, sign_bytes, verify_bytes
from editloop.text_file import whole_number
from infra.settings import ServiceSettings

if TYPE_CHECKING:
    from mlflow.entities import Run
    from mlflow.tracking import MlflowClient

RECORDS = "editloop-campaigns"
"""MLflow experiment that holds the records."""
KEY_TAG, KIND_TAG, EVENT_TAG = "editloop.campaign_key", "editloop.kind", "editloop.event"
SIGNER_TAG, SIGNATURE_TAG = "editloop.signing_key", "editloop.signature"
TAG_CHARACTERS = 4000
"""Characters of an event in one tag; MLflow's limit is 8,000."""
EARLIER = "A campaign of release 0.2.0 or earlier has none: finish and collect it with that release."
"""What is told of a campaign without a record."""
OPENED: Literal["opened"] = "opened"
"""Kind of the first event of a campaign."""
KEPT = "answers"
"""Kind of the run that holds a campaign's answers as they were last seen; it is no event."""


class Acceptance(Record):
    """Reason why a campaign closes below a gate, and who gave it."""

    reason: str = Field(min_length=1)
    by: str = Field(min_length=1)


class Closing(Record):
    """One closing of a campaign."""

    answers_sha256: str
    """Content address of all votes and of the lead's decisions."""
    config_sha256: str
    at: datetime
    alpha: dict[Axis, float | None]
    """Krippendorff's alpha at the closing, by axis; None where it is undefined."""
    by: str = ""
    """Who closed it; empty in records of earlier versions."""
    accepted: Acceptance | None = None
    """Set only if a gate was not reached."""


class Event(Record):
    """What every event of a campaign tells."""

    key: str
    """The campaign's key."""
    at: datetime
    by: str
    """Who did it: a person's name, or the program's."""
    files: dict[str, str] = Field(default_factory=dict)
    """sha256 of each file that is kept with the event, by name."""


class Opened(Event):
    """The campaign was opened."""

    kind: Literal["opened"] = OPENED
    campaign: Campaign
    settings: dict[str, str]
    """The settings by name, each as JSON or, where that is long, as its sha256."""
    accounts: dict[str, int]
    """Label Studio's user ids of the annotators and the lead, by name."""


class PeopleChanged(Event):
    """Annotators were added or removed, or there is another lead."""

    kind: Literal["people"] = "people"
    annotators: tuple[str, ...]
    lead: str | None
    accounts: dict[str, int]


class ProjectMade(Event):
    """A project in Label Studio was made: in place of a deleted one, as the lead's queue, or for the training."""

    kind: Literal["project"] = "project"
    project_id: int
    queue: bool
    training: bool = False


class Trained(Event):
    """Annotators passed the training round; that holds, whatever becomes of its project."""

    kind: Literal["trained"] = "trained"
    passed: tuple[str, ...]


class Closed(Event):
    """The campaign was closed with its answers of that time."""

    kind: Literal["closed"] = "closed"
    closing: Closing


class Cancelled(Event):
    """The campaign was cancelled: nothing follows from it any more."""

    kind: Literal["cancelled"] = "cancelled"
    reason: str


AnyEvent = Annotated[Opened | PeopleChanged | ProjectMade | Trained | Closed | Cancelled, Field(discriminator="kind")]
_EVENTS: TypeAdapter[AnyEvent] = TypeAdapter(AnyEvent)


@dataclass(frozen=True)
class CampaignRecord:
    """All that the events of a campaign come to."""

    campaign: Campaign
    """With the present annotators, lead and project."""
    opened: Campaign
    """As it was opened."""
    settings: Mapping[str, str]
    accounts: Mapping[int, str]
    """Names of all who are or were the campaign's people, by Label Studio's user id."""
    left: Mapping[str, datetime]
    """When each former annotator was removed."""
    leads_left: Mapping[str, datetime]
    """When each former lead was replaced."""
    run_id: str
    """The MLflow run of the opening, which has the campaign's files as artifacts."""
    files: Mapping[str, str]
    """sha256 of those files, by name."""
    queue_id: int | None = None
    """Project of the lead's queue; None where there is none yet."""
    training_id: int | None = None
    """Project of the training round; None where there is none."""
    passed: frozenset[str] = frozenset()
    """Annotators who passed the training."""
    closings: tuple[Closing, ...] = ()
    """Oldest first."""
    closing_runs: tuple[str, ...] = ()
    """MLflow runs of the closings, which have the content addresses of the answers."""
    cancelled: Cancelled | None = None
    strangers: tuple[str, ...] = field(default=())
    """Runs in the record that count for nothing, each with the reason."""

    @property
    def state(self) -> str:
        """Where the campaign stands: open, closed or cancelled."""
        return "cancelled" if self.cancelled else "closed" if self.closings else "open"

    @property
    def queue(self) -> "CampaignRecord | None":
        """The lead's queue, as a campaign whose only annotator is the lead; None where there is none yet."""
        if self.queue_id is None:
            return None
        people: dict[str, object] = {
            "overlap": 1,
            "annotators": (self.campaign.lead,) if self.campaign.lead else (),
        }
        return replace(self, campaign=self._project(self.queue_id, people), left=self.leads_left)

    @property
    def training(self) -> "CampaignRecord | None":
        """The training round, as a campaign with the same annotators; None where there is none."""
        return None if self.training_id is None else replace(self, campaign=self._project(self.training_id, {}))

    def _project(self, project_id: int, changes: dict[str, object]) -> Campaign:
        """The campaign in another of its projects."""
        url = f"{self.campaign.url.rpartition('/projects/')[0]}/projects/{project_id}/data?labeling=1"
        return self.campaign.model_copy(update={"project_id": project_id, "url": url, **changes})

    def annotator(self, user_id: int, at: datetime) -> str | None:
        """Return who answered as annotator of the campaign.

        Args:
            user_id: Label Studio's user id.
            at: Time of the answer.

        Returns:
            The name; None where the account was none of the annotators' at that time.
        """
        name = self.accounts.get(user_id)
        if name is None or name in self.campaign.annotators:
            return name
        return name if name in self.left and at <= self.left[name] else None


def now() -> datetime:
    """Return the present time in UTC, as events state it."""
    return datetime.now(UTC)


def append_event(event: AnyEvent, name: str, files: Mapping[str, bytes] | None = None) -> str:
    """Add a signed event to a campaign's record.

    Args:
        event: The event.
        name: Name of the campaign, for the run's name in MLflow.
        files: Files to keep with it, by name; None for none.

    Returns:
        Id of the MLflow run that holds it.

    Raises:
        EditLoopError: EDITLOOP_SIGNING_KEY holds no usable key.
    """
    from mlflow.entities import RunTag

    digests = {file: sha256_bytes(data) for file, data in (files or {}).items()}
    text = canonical_json(event.model_copy(update={"files": digests}).model_dump(mode="json")).decode()
    signature = sign_bytes(text.encode())
    api = tracking.client()
    tags = {
        KEY_TAG: event.key,
        KIND_TAG: event.kind,
        SIGNER_TAG: signature.key,
        SIGNATURE_TAG: signature.value,
        **{f"{EVENT_TAG}.{part}": text[at : at + TAG_CHARACTERS] for part, at in _parts(len(text))},
    }
    experiment = tracking.require_experiment(api, RECORDS)
    begin = _after_all_others(api, experiment, event.key)
    run_id = str(api.create_run(experiment, begin, run_name=f"{name}: {event.kind}").info.run_id)
    keep_files(run_id, files or {})
    tags_of_run = [RunTag(name, value) for name, value in tags.items()]
    tracking.log_batch(api, run_id, tags=tags_of_run)  # with its tags the event is there, and not before
    api.set_terminated(run_id)
    return run_id


def _after_all_others(api: "MlflowClient", experiment: str, key: str) -> int:
    """The time of a new event in milliseconds: now, or after the campaign's latest, where a clock was ahead then.

    The order of events is that of their runs' beginnings.
    """
    from mlflow.entities import ViewType

    query = f"tags.`{KEY_TAG}` = {tracking.quoted(key)}"
    order = ["attributes.start_time DESC"]
    latest = api.search_runs([experiment], query, ViewType.ALL, max_results=1, order_by=order)
    return max([int(now().timestamp() * 1000), *(int(run.info.start_time) + 1 for run in latest)])


def read_records(settings: ServiceSettings, key: str | None = None) -> list[CampaignRecord]:
    """Return the records of all campaigns, oldest first.

    Args:
        settings: Address of Label Studio, for the links to its projects.
        key: A campaign's key, to read its record alone; None for all.

    Raises:
        EditLoopError: EDITLOOP_VERIFY_KEY is unset or holds no usable key.
    """
    from mlflow.entities import ViewType

    api = tracking.client()
    experiment = tracking.find_experiment(api, RECORDS)
    if experiment is None:
        return []
    query = f"tags.`{KEY_TAG}` = {tracking.quoted(key)}" if key else ""
    runs = tracking.all_pages(
        api.search_runs, [experiment], query, ViewType.ALL, order_by=["attributes.start_time ASC"]
    )
    records: dict[str, CampaignRecord] = {}
    strangers: dict[str, list[str]] = {}
    # Openings first: the clock of the machine that opened a campaign may be ahead of another's.
    for run in sorted(runs, key=lambda run: run.data.tags.get(KIND_TAG) != OPENED):
        if run.data.tags.get(KIND_TAG, KEPT) == KEPT:
            continue
        try:
            event = _event(run)
        except EventError as error:
            strangers.setdefault(run.data.tags.get(KEY_TAG, ""), []).append(f"run {run.info.run_id}: {error}")
            continue
        if record := _with_event(records.get(event.key), event, str(run.info.run_id), settings):
            records[event.key] = record
    return [replace(record, strangers=tuple(strangers.get(key, ()))) for key, record in records.items()]


def read_record(settings: ServiceSettings, key: str) -> CampaignRecord:
    """Return the record of one campaign.

    Args:
        settings: Address of Label Studio.
        key: The campaign's key.

    Raises:
        EditLoopError: MLflow has no record of it.
    """
    records = read_records(settings, key)
    if not records:
        raise EditLoopError(
            f"MLflow has no record of campaign {key}: is MLFLOW_TRACKING_URI the server that it was opened with? "
            f"{EARLIER}"
        )
    return records[0]


def is_recorded(key: str) -> bool:
    """Return whether MLflow has any run in a campaign's record, whoever signed it; deleted ones count too.

    Args:
        key: The campaign's key.
    """
    from mlflow.entities import ViewType

    api = tracking.client()
    experiment = tracking.find_experiment(api, RECORDS)
    query = f"tags.`{KEY_TAG}` = {tracking.quoted(key)}"
    return bool(experiment and tracking.all_pages(api.search_runs, [experiment], query, ViewType.ALL, limit=1))


def keep_files(run_id: str, files: Mapping[str, bytes]) -> None:
    """Log files to a run of the record.

    Args:
        run_id: The run.
        files: Content by file name.
    """
    with tempfile.TemporaryDirectory() as temporary:
        for name, data in files.items():
            path = Path(temporary) / name
            path.write_bytes(data)
            tracking.client().log_artifact(run_id, str(path))


def read_file(run_id: str, name: str) -> bytes:
    """Return the content of a file that was logged to a run of the record.

    Args:
        run_id: The run.
        name: Name of the file.

    Raises:
        MlflowException: The run has no such file.
    """
    with tempfile.TemporaryDirectory() as temporary:
        return Path(tracking.client().download_artifacts(run_id, name, temporary)).read_bytes()


class EventError(Exception):
    """A run in the record that is no event that a trusted key signed."""


def _parts(length: int) -> Iterable[tuple[int, int]]:
    return enumerate(range(0, length, TAG_CHARACTERS))


def _event(run: "Run") -> AnyEvent:
    tags = run.data.tags
    parts = [text for name, text in sorted(tags.items(), key=_part_number) if name.startswith(f"{EVENT_TAG}.")]
    text = "".join(parts)
    try:
        verify_bytes(text.encode(), TextSignature(tags.get(SIGNER_TAG, ""), tags.get(SIGNATURE_TAG, "")))
        return _EVENTS.validate_json(text)
    except SignatureError as error:
        raise EventError(str(error)) from error
    except ValidationError as error:
        raise EventError(f"not an event of this version of EditLoop ({error.error_count()} faults)") from error


def _part_number(tag: tuple[str, str]) -> int:
    number = whole_number(tag[0].removeprefix(f"{EVENT_TAG}."))
    return -1 if number is None else number


def _with_event(
    record: CampaignRecord | None, event: AnyEvent, run_id: str, settings: ServiceSettings
) -> CampaignRecord | None:
    """Return the record with one more event; None for an event of a campaign that was never opened."""
    if isinstance(event, Opened):
        if record:  # two openings at the same time: the first counts
            return record
        campaign = event.campaign.model_copy(update={"url": settings.project_link(event.campaign.project_id)})
        accounts = {user_id: name for name, user_id in event.accounts.items()}
        return CampaignRecord(campaign, campaign, event.settings, accounts, {}, {}, run_id, event.files)
    if record is None:
        return None
    campaign = record.campaign
    match event:
        case PeopleChanged():
            gone = {name: event.at for name in campaign.annotators if name not in event.annotators}
            left = {name: at for name, at in record.left.items() if name not in event.annotators} | gone
            accounts = {**record.accounts, **{user_id: name for name, user_id in event.accounts.items()}}
            people = campaign.model_copy(update={"annotators": event.annotators, "lead": event.lead})
            leads_left = {name: at for name, at in record.leads_left.items() if name != event.lead}
            if campaign.lead and campaign.lead != event.lead:
                leads_left[campaign.lead] = event.at
            return replace(record, campaign=people, accounts=accounts, left=left, leads_left=leads_left)
        case ProjectMade(queue=True):
            return replace(record, queue_id=event.project_id)
        case ProjectMade(training=True):
            return replace(record, training_id=event.project_id)
        case Trained():
            return replace(record, passed=record.passed | frozenset(event.passed))
        case ProjectMade():
            url = settings.project_link(event.project_id)
            return replace(record, campaign=campaign.model_copy(update={"project_id": event.project_id, "url": url}))
        case Closed():
            last = record.closings[-1:]
            if last and last[0].answers_sha256 == event.closing.answers_sha256:  # two closed it at the same time
                return record
            closings, runs = (*record.closings, event.closing), (*record.closing_runs, run_id)
            return replace(record, closings=closings, closing_runs=runs)
        case Cancelled():
            return replace(record, cancelled=event)


def opened_file(record: CampaignRecord, name: str) -> bytes:
    """Return a file of a campaign's opening.

    Args:
        record: The campaign's record.
        name: Name of the file.

    Raises:
        EditLoopError: The file in MLflow is not the one that was signed.
        MlflowException: The opening has no such file.
    """
    data = read_file(record.run_id, name)
    if sha256_bytes(data) != record.files.get(name):
        raise EditLoopError(
            f"{name} of campaign {record.campaign.name} in MLflow (run {record.run_id}) is not what was signed: it was "
            "damaged or replaced. Restore it from a back-up of MLflow's artifacts."
        )
    return data


def settings_texts(values: Mapping[str, object]) -> dict[str, str]:
    """Return settings as the record of an opening holds them.

    Args:
        values: Settings by name, of JSON's types.

    Returns:
        Each as JSON, or as its sha256 where that is longer than 200 characters.
    """
    texts = {name: json.dumps(value, sort_keys=True, ensure_ascii=False) for name, value in values.items()}
    return {name: text if len(text) <= 200 else f"sha256 {sha256_bytes(text.encode())}" for name, text in texts.items()}
