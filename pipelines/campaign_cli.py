"""`editloop campaign`: commands of a campaign lead."""

import json
import logging
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from editloop.environment import login_name
from editloop.errors import EditLoopError
from editloop.settings_file import shorten
from editloop.terminal import text_console
from pipelines.environment import services_of
from pipelines.input_options import input_file, input_folder
from pipelines.service_option import DEFAULT_SERVICES, Services

if TYPE_CHECKING:
    from annotation.campaigns.record import CampaignRecord

campaign_app = typer.Typer(no_args_is_help=True, help="Open, follow, judge and close an annotation campaign.")


def _checked_actor(given: str | None) -> str | None:
    if given is not None and not (given.strip() and given.isprintable()):
        raise EditLoopError(f"--actor {shorten(given)}: give a name, in characters that can be seen.")
    return given


@campaign_app.command("open")
def open_campaign_command(
    file: Annotated[
        Path, typer.Argument(callback=input_file, help="The campaign's YAML file; docs/campaign.md explains every key.")
    ],
    out: Annotated[Path, typer.Option(help="Folder for the campaign's files.")],
    follow_up: Annotated[
        str, typer.Option(help="Arguments of the pipelines that start when the campaign has closed, as JSON.")
    ] = "{}",
    services: Services = DEFAULT_SERVICES,
) -> None:
    """Open a campaign in Label Studio, or bring an opened one to what its file says.

    Safe to repeat: nothing is asked twice, and an import that was cut off goes on. `editloop reconcile` starts the
    training when the campaign has closed, as it does for a campaign that a pipeline opened.
    """
    from annotation.campaigns.campaign import read_campaign
    from annotation.campaigns.campaign_settings import read_campaign_settings, stage_parameters
    from annotation.campaigns.invitations import invitation_lines, invitations
    from annotation.campaigns.record import read_record
    from components.annotate.declaration import ANNOTATE, AnnotateParameters
    from editloop.datasets.repository_check import check_dataset_repository
    from editloop.datasets.settings import DatasetSettings
    from editloop.lineage.step import run_step
    from infra.settings import service_settings
    from pipelines.follow_up import read_follow_up

    settings, candidates = read_campaign_settings(file)
    candidates, output = candidates.resolve(), out.resolve()
    parameters = stage_parameters(settings) | {"follow_up": follow_up}
    read_follow_up(AnnotateParameters.model_validate(parameters))
    logging.getLogger("editloop.annotate").setLevel("WARNING")  # what it says follows below, with the passwords
    with services_of(services):
        if (dataset := DatasetSettings()).dataset_repo:
            check_dataset_repository(dataset.dataset_repo, dataset.dataset_remote)
        run_step(
            ANNOTATE,
            pipeline_run=re.sub(r"[^\w.-]+", "-", f"campaign-{settings.name}"),
            inputs={"candidates": candidates},
            outputs={"output": output},
            parameters=parameters,
            tags={"uri.candidates": str(candidates), "uri.output": str(output)},
        )
        opened = read_campaign(output)
        training = read_record(service_settings(), opened.key).training
        invited = invitation_lines(invitations(service_settings(), opened), passwords=True)
    print(f"campaign  {opened.name} ({opened.key})")
    print(f"pages     {opened.pages}, of which {opened.tasks} are tasks and the others repeats, gold and norming")
    print(f"answers   {opened.wanted} wanted from {', '.join(opened.annotators)}")
    print(f"address   {opened.url}")
    if training:
        print(f"training  {training.campaign.url}, which everybody does first")
    print("people    send each of them their two lines:")
    print("\n".join(invited))


Name = Annotated[str, typer.Argument(help="The campaign's name, key, or folder.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
Actor = Annotated[
    str | None,
    typer.Option("--actor", callback=_checked_actor, help="Who does this, for the record; else your log-in name."),
]


@campaign_app.command("status")
def campaign_status_command(name: Name, as_json: Json = False, services: Services = DEFAULT_SERVICES) -> None:
    """Show how far a campaign is, what is wrong with its answers, and what was edited after it closed."""
    from pipelines.campaign_status import campaign_status, show_status

    with services_of(services):
        state = campaign_status(name)
    if as_json:
        print(json.dumps(state, indent=2))
    else:
        show_status(state)


@campaign_app.command("close")
def close_campaign_command(
    name: Name,
    accept: Annotated[
        str | None, typer.Option(help="Why it is closed although agreement is below its gate; kept in the lineage.")
    ] = None,
    actor: Annotated[
        str | None,
        typer.Option(
            "--actor",
            "--by",
            callback=_checked_actor,
            help="Who closes and accepts it, for the record; else the token's account.",
        ),
    ] = None,
    as_json: Json = False,
    services: Services = DEFAULT_SERVICES,
) -> None:
    """Close a campaign with the answers it has now; again after a late edit, for a new version of the judgements.

    What was made of an earlier closing stays as it is. `editloop reconcile` trains on the latest closing.
    """
    from annotation.campaigns.campaign import connect
    from annotation.campaigns.closing import close_campaign, readiness
    from annotation.campaigns.lead_queue import snapshot
    from annotation.campaigns.locating import locate_campaign
    from annotation.campaigns.record import Acceptance
    from infra.settings import service_settings

    with services_of(services):
        settings = service_settings()
        actor = actor or str(connect(settings).users.whoami().email)
        located = locate_campaign(settings, name)
        pages = located.pages()
        live = snapshot(settings, located.record, pages)
        ready = readiness(settings, located.record, pages, live)
        accepted = Acceptance(reason=accept, by=actor) if accept else None
        closing = close_campaign(located.record, ready, live, accepted, by=actor)
    if as_json:
        print(closing.model_dump_json(indent=2))
        return
    outcome = "was closed with these answers before" if closing in located.record.closings else "closed"
    print(f"{located.campaign.name}: {outcome}, {closing.at:%Y-%m-%d %H:%M} UTC, by {closing.by}")
    print(f"answers   {closing.answers_sha256}")
    for axis, alpha in closing.alpha.items():
        print(f"alpha {axis}  {'undefined' if alpha is None else f'{alpha:.3f}'}")
    if closing.accepted:
        print(f"accepted  by {closing.accepted.by}: {closing.accepted.reason}")
    print("`editloop reconcile --once` trains on it")


@campaign_app.command("list")
def list_campaigns_command(as_json: Json = False, services: Services = DEFAULT_SERVICES) -> None:
    """List all campaigns, with their state and their people."""
    from annotation.campaigns.record import read_records
    from infra.settings import service_settings

    with services_of(services):
        records = read_records(service_settings())
    if as_json:
        rows = [
            {**record.campaign.model_dump(mode="json"), "state": record.state, "left": sorted(record.left)}
            for record in records
        ]
        print(json.dumps(rows, indent=2))
        return
    table = Table("campaign", "key", "state", "pages", "annotators", "lead", "address", box=None)
    for record in records:
        campaign = record.campaign
        people = ", ".join(campaign.annotators)
        row = (
            campaign.name,
            campaign.key,
            record.state,
            str(campaign.pages),
            people,
            campaign.lead or "",
            campaign.url,
        )
        table.add_row(*row)
    text_console().print(table if records else "no campaign was opened yet")


@campaign_app.command("cancel")
def cancel_campaign_command(
    name: Name,
    reason: Annotated[str, typer.Option(help="Why; kept in the campaign's record.")],
    actor: Actor = None,
    services: Services = DEFAULT_SERVICES,
) -> None:
    """Cancel a campaign: nothing follows from it any more, and its name is free for another one.

    Its project and answers stay in Label Studio.

    For example: editloop campaign cancel kitchens --reason "opened with the wrong guidelines"
    """
    from annotation.campaigns.closing import cancellation_text
    from annotation.campaigns.locating import locate_campaign
    from annotation.campaigns.record import Cancelled, append_event, now
    from infra.settings import service_settings

    with services_of(services):
        record = locate_campaign(service_settings(), name).record
        if record.cancelled:
            raise EditLoopError(cancellation_text(record))
        campaign = record.campaign
        append_event(Cancelled(key=campaign.key, at=now(), by=_actor(actor), reason=reason), campaign.name)
    print(f"{campaign.name} ({campaign.key}): cancelled; its project stays at {campaign.url}")


@campaign_app.command("add-annotator")
def add_annotator_command(
    name: Name,
    annotators: Annotated[list[str], typer.Argument(help="Account names of those who join.")],
    actor: Actor = None,
    services: Services = DEFAULT_SERVICES,
) -> None:
    """Add annotators to an open campaign. They get the pages that still need answers, and all that everybody answers.

    For example: editloop campaign add-annotator kitchens cara@example.org
    """
    _change_people(name, joining=annotators, leaving=[], actor=actor, services=services)


@campaign_app.command("remove-annotator")
def remove_annotator_command(
    name: Name,
    annotators: Annotated[list[str], typer.Argument(help="Account names of those who leave.")],
    actor: Actor = None,
    services: Services = DEFAULT_SERVICES,
) -> None:
    """Remove annotators from an open campaign. Their answers stay and count; the others get their pages.

    For example: editloop campaign remove-annotator kitchens bo@example.org
    """
    _change_people(name, joining=[], leaving=annotators, actor=actor, services=services)


@campaign_app.command("replace")
def replace_annotator_command(
    name: Name,
    leaving: Annotated[str, typer.Argument(help="Account name of the annotator who leaves.")],
    joining: Annotated[str, typer.Argument(help="Account name of the annotator who takes over.")],
    actor: Actor = None,
    services: Services = DEFAULT_SERVICES,
) -> None:
    """Replace an annotator of an open campaign by another. The answers given so far stay and count.

    For example: editloop campaign replace kitchens bo@example.org cara@example.org
    """
    _change_people(name, joining=[joining], leaving=[leaving], actor=actor, services=services)


@campaign_app.command("adjudicate")
def adjudicate_command(name: Name, as_json: Json = False, services: Services = DEFAULT_SERVICES) -> None:
    """Bring the lead's queue up to date: tasks that annotators disagree on, without their votes.

    Open it at any time and as often as you like. The votes are shown to the lead on tasks that the lead has decided.
    """
    from annotation.campaigns.adjudication import adjudicate as bring_up_to_date
    from annotation.campaigns.campaign import connect
    from annotation.campaigns.lead_queue import snapshot
    from annotation.campaigns.locating import locate_campaign
    from infra.settings import service_settings

    with services_of(services):
        settings = service_settings()
        client = connect(settings)
        located = locate_campaign(settings, name)
        pages = located.pages()
        live = snapshot(settings, located.record, pages)
        queue = bring_up_to_date(client, settings, located.record, located.folder, pages, live)
    if as_json:
        print(queue.model_dump_json(indent=2))
        return
    print(f"in conflict  {queue.conflicts} tasks")
    print(f"in the queue {queue.tasks}, of which {queue.decided} are decided and show the votes")
    print(f"address      {queue.url or 'no queue was needed yet'}")


@campaign_app.command("simulate")
def simulate_command(
    folder: Annotated[
        Path, typer.Argument(callback=input_folder("campaign"), help="The campaign's folder, as it was opened into.")
    ],
    candidates: Annotated[
        Path, typer.Option(callback=input_folder("candidates"), help="Folder of the candidates that it asks about.")
    ],
    seed: Annotated[int, typer.Option(help="Draws the experts' characters and who answers what.")] = 0,
    services: Services = DEFAULT_SERVICES,
) -> None:
    """Let simulated experts give the answers that are missing, as in the demo: where the right results are known.

    For a trial of the loop, never for a campaign whose answers people are meant to give.
    """
    from annotation.simulated_experts import answer_campaign
    from infra.settings import service_settings

    with services_of(services):
        answer_count = answer_campaign(folder, candidates, settings=service_settings(), seed=seed)
    print(f"simulated experts gave {answer_count} answers")


@campaign_app.command("report")
def campaign_report_command(
    name: Annotated[str, typer.Argument(help="The campaign's name, key or folder; or a folder of judgements.")],
    out: Annotated[Path, typer.Option(help="Folder for page.html and quality.json.")],
    candidates: Annotated[
        Path | None,
        typer.Option(
            callback=input_folder("candidates"),
            help="Folder of the candidates, for task types and editors, if it is not found.",
        ),
    ] = None,
    services: Services = DEFAULT_SERVICES,
) -> None:
    """Write the quality of a campaign as a page with plots: agreement, and each annotator's work.

    Of the answers that Label Studio has now, or of those that stage collect wrote into a folder.
    """
    from pipelines.campaign_report import live_report, saved_report, write_quality_report

    folder = Path(name)
    if (folder / "judgements.jsonl").is_file():
        quality_report = saved_report(folder, candidates)
    else:
        with services_of(services):
            quality_report = live_report(name, candidates)
    for path in write_quality_report(quality_report, out):
        print(path)


def _change_people(name: str, *, joining: list[str], leaving: list[str], actor: str | None, services: Path) -> None:
    from annotation.campaigns.accounts import ensure_annotators
    from annotation.campaigns.campaign import connect
    from annotation.campaigns.closing import cancellation_text
    from annotation.campaigns.invitations import invitation_lines, invitations
    from annotation.campaigns.locating import locate_campaign
    from annotation.campaigns.people import check_people, name_people, with_people
    from annotation.campaigns.project import mend_project
    from infra.settings import service_settings

    with services_of(services):
        settings = service_settings()
        client = connect(settings)
        located = locate_campaign(settings, name)
        record, campaign = located.record, located.campaign
        if record.cancelled:
            raise EditLoopError(cancellation_text(record))
        annotators = with_people(record, *(_account_names(record, people) for people in (joining, leaving)))
        check_people(record, annotators)
        people = {*annotators, *filter(None, [campaign.lead])}
        accounts = ensure_annotators(client, people, settings)
        record = name_people(settings, record, annotators, campaign.lead, accounts, _actor(actor))
        guidelines = (located.folder / "guidelines.md").read_text()
        record = mend_project(client, settings, record, located.pages(), guidelines).record
        invited = invitation_lines(invitations(settings, record.campaign), passwords=True)
    print(f"{campaign.name}: annotators are {', '.join(record.campaign.annotators)}")
    print(f"address   {record.campaign.url}")
    print("\n".join(invited))


def _account_names(record: "CampaignRecord", people: list[str]) -> list[str]:
    """Return the account names of people, of which an annotator's is spelled as in the record."""
    from editloop.data.account_name import account_name

    try:
        return [person if person in record.campaign.annotators else account_name(person) for person in people]
    except ValueError as error:
        raise EditLoopError(f"{error}.") from None


def _actor(given: str | None) -> str:
    return given or login_name()
