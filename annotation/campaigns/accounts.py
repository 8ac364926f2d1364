"""Annotators' accounts in Label Studio, which people can log in to.

With an accounts file (`EDITLOOP_ANNOTATORS_FILE`, mode 600), EditLoop signs missing annotators up through the
invitation link, each with a random password that is stored only in that file, and then resets the link. Without the
file, annotators join on their own, and EditLoop only checks that they are there.
"""

import json
import re
import secrets
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import httpx

from editloop.content import write_file
from editloop.errors import EditLoopError
from editloop.settings_file import FrozenModel
from infra.settings import ServiceSettings

DOMAIN = "editloop.example"
"""Domain of the address of an annotator whose name has no @."""
TIMEOUT = 60


class Account(FrozenModel):
    """Login of one annotator. `token` is for the API, which simulated experts use; "" until it is known."""

    name: str
    email: str
    password: str
    token: str


def email_of(name: str) -> str:
    """Return the address of an annotator.

    Args:
        name: An address, or a name in DOMAIN.
    """
    return name if "@" in name else f"{name}@{DOMAIN}"


def read_accounts(settings: ServiceSettings) -> dict[str, Account]:
    """Read the accounts file.

    Args:
        settings: Settings that name the accounts file.

    Returns:
        Accounts by name; empty without an accounts file.
    """
    path = settings.annotators_file
    if path is None or not path.is_file():
        return {}
    return {name: Account(**fields) for name, fields in json.loads(path.read_text()).items()}


def ensure_annotators(client: Any, names: Iterable[str], settings: ServiceSettings) -> dict[str, int]:
    """Make sure that every annotator has an account in Label Studio.

    With an accounts file, missing annotators are signed up. The file is written before each sign-up.

    Args:
        client: A LabelStudio client of the account that owns the campaigns.
        names: Annotators' names.
        settings: Address and token of Label Studio, and the accounts file.

    Returns:
        Label Studio's user id by name.

    Raises:
        EditLoopError: Annotators are missing and there is no accounts file, or Label Studio refuses a sign-up or a
            login.
    """
    names = list(names)
    ids = _members(client)
    accounts = read_accounts(settings)
    missing = [name for name in names if email_of(name).lower() not in ids]
    url = settings.require("label_studio_url")
    if missing and settings.annotators_file is None:
        raise EditLoopError(
            f"Not in Label Studio yet: {', '.join(missing)}. Invite them: {settings.label_studio_link} > "
            "Organization > Add People, or name annotators who are there."
        )
    for name in missing:
        password = secrets.token_urlsafe(16)
        # Written before it is used: an account whose password is lost could never log in.
        accounts[name] = Account(name=name, email=email_of(name), password=password, token="")
        _write_accounts(settings.annotators_file, accounts)
        _sign_up(url, client.organizations.invites.get_invite_link().token, accounts[name])
    for name in names:
        if name in accounts and not accounts[name].token:
            accounts[name] = accounts[name].model_copy(update={"token": _token(url, accounts[name])})
            _write_accounts(settings.annotators_file, accounts)
    if missing:
        _reset_invitation(url, settings)
        ids = _members(client)
    return {name: ids[email_of(name).lower()] for name in names}


def _members(client: Any) -> dict[str, int]:
    return {user.email.lower(): user.id for user in client.users.list()}


def _sign_up(url: str, invite: str, account: Account) -> None:
    with httpx.Client(follow_redirects=True, timeout=TIMEOUT) as session:
        reply = _fill_form(session, f"{url}/user/signup/?token={invite}", account)
    if not (reply.is_success and session.cookies.get("sessionid")):
        messages = re.findall(r'class="[^"]*error[^"]*"[^>]*>([^<]+)', reply.text)
        raise EditLoopError(f"Label Studio did not sign up {account.email}: {' '.join(messages) or reply.status_code}.")


def _reset_invitation(url: str, settings: ServiceSettings) -> None:
    """Invalidate the invitation link: every use of it leaves its token in Label Studio's request log."""
    owner = {"Authorization": f"Token {settings.require('label_studio_token')}"}
    httpx.post(f"{url}/api/invite/reset-token", headers=owner, timeout=TIMEOUT).raise_for_status()


def _token(url: str, account: Account) -> str:
    """Return the account's API token, read in a session that logs in through the login page."""
    with httpx.Client(follow_redirects=True, timeout=TIMEOUT) as session:
        _fill_form(session, f"{url}/user/login/", account)
        reply = session.get(f"{url}/api/current-user/token")
    if reply.status_code != 200:
        raise EditLoopError(f"{account.email} cannot log in to Label Studio with the password of the accounts file.")
    return str(reply.json()["token"])


def _fill_form(session: httpx.Client, page: str, account: Account) -> httpx.Response:
    match = re.search(r'name="csrfmiddlewaretoken" value="([^"]+)"', session.get(page).text)
    if not match:
        raise EditLoopError("Label Studio's sign-up page has no form: is its address right, and is sign-up open?")
    form = {"csrfmiddlewaretoken": match.group(1), "email": account.email, "password": account.password}
    return session.post(page, data=form, headers={"Referer": page})


def _write_accounts(path: Path | None, accounts: dict[str, Account]) -> None:
    if path is None:
        return
    records = {name: account.model_dump() for name, account in sorted(accounts.items())}
    write_file(path, json.dumps(records, indent=2) + "\n")
