"""What a lead sends to a campaign's people, so that each of them lands on the campaign's pages."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

from annotation.campaigns.accounts import member_ids, read_accounts, spelling
from annotation.campaigns.campaign import Campaign
from annotation.campaigns.label_studio import LabelStudioApi
from annotation.campaigns.record import read_record
from editloop.data.account_name import email_of
from editloop.pages.templates import render
from infra.settings import ServiceSettings

PAGE = "page.html"


class Invitation(NamedTuple):
    """The way into a campaign for one of its people."""

    name: str
    role: str
    """annotator, lead, or both."""
    task: str
    """What the person does: log in, or sign up, and as whom."""
    address: str
    """Where: the page leads on to the campaign."""
    password: str = ""
    """Password of an account that EditLoop made; empty where the person chose, or will choose, one."""


class Invitations(NamedTuple):
    """What a lead sends to a campaign's people."""

    people: Sequence[Invitation]
    notes: Sequence[str]
    """What else to tell, and how long the addresses and log-ins hold: a sentence each."""


def invitations(settings: ServiceSettings, campaign: Campaign) -> Invitations:
    """Return what the lead sends to each of a campaign's people.

    Label Studio's community edition has one invitation link, the same for everybody. It takes whatever address a person
    signs up with, so the address is part of what is sent.

    Args:
        settings: Address and token of Label Studio, and the accounts file.
        campaign: The campaign.
    """
    accounts, members = read_accounts(settings), member_ids(settings)
    path = campaign.url.removeprefix(settings.label_studio_link)
    log_in = f"{settings.label_studio_link}/user/login/?next={quote(path, safe='')}"
    names = dict.fromkeys((*campaign.annotators, *filter(None, [campaign.lead])))
    people: list[Invitation] = []
    notes = ["Log-ins hold until the account is deleted in Label Studio."]
    if campaign.training and (training := read_record(settings, campaign.key).training):
        notes.insert(0, f"Annotators begin with the training round: {training.campaign.url}")
    sign_up = ""
    for name in names:
        role = " and ".join(
            role for role, held in (("annotator", name in campaign.annotators), ("lead", name == campaign.lead)) if held
        )
        if name in accounts:
            task = f"log in as {accounts[name].email}"
            people.append(Invitation(name, role, task, log_in, accounts[name].password))
        elif spelling(name) in members:
            people.append(Invitation(name, role, f"log in as {email_of(name)}, with your own password", log_in))
        else:
            if not sign_up:
                token = LabelStudioApi(settings).call("GET", "/api/invite")["token"]
                sign_up = f"{settings.label_studio_link}/user/signup/?token={token}&next={quote(path, safe='')}"
                notes.append(
                    "The sign-up link is one for all, so send it to these people alone. It holds until it is reset in "
                    "Label Studio (Organization > Add People > Reset link), which EditLoop does after it made accounts."
                )
            people.append(Invitation(name, role, f"sign up as {email_of(name)}, with exactly this address", sign_up))
    return Invitations(people, notes)


def invitation_lines(invited: Invitations, *, passwords: bool) -> list[str]:
    """Return invitations as lines of text: for each person what to do and where.

    Args:
        invited: The invitations.
        passwords: Whether passwords are shown. They belong in a person's terminal, never in a log.
    """
    lines = list[str]()
    for person in invited.people:
        secret = f", password {person.password}" if passwords else ", password in the accounts file"
        lines += [
            f"  {person.name} ({person.role}): {person.task}{secret if person.password else ''}",
            f"    {person.address}",
        ]
    return [*lines, *invited.notes]


def write_page(invited: Invitations, campaign: Campaign, target: Path) -> None:
    """Write the page of an opened campaign, which KFP's UI shows: what the lead has to send. It has no passwords.

    Args:
        invited: The invitations.
        campaign: The campaign.
        target: File to write.
    """
    template = Path(__file__).with_name("invitations.html.j2")
    target.write_text(render(template, campaign=campaign, invited=invited), encoding="utf-8")
