"""Annotators' accounts in Label Studio, which people can log in to.

With an accounts file (`EDITLOOP_ANNOTATORS_FILE`, mode 600), EditLoop signs missing annotators up through the
invitation link, each with a random password that is stored only in that file, and then resets the link. Without the
file, annotators join on their own, by the invitation link.
"""

import json
import re
import secrets
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypedDict

import httpx
from pydantic import RootModel

from annotation.campaigns.label_studio import LabelStudioApi
from editloop.content import write_file
from editloop.data.account_name import account_name, email_of
from editloop.errors import EditLoopError
from editloop.json_file import read_json_record
from editloop.settings_file import FrozenModel
from infra.settings import ServiceSettings

TIMEOUT = 60


class Account(FrozenModel):
    """Login of one annotator. `token` is for the API, which simulated experts use; "" until it is known."""

    name: str
    email: str
    password: str
    token: str


class Accounts(RootModel[dict[str, Account]]):
    """Content of the accounts file."""


def read_accounts(settings: ServiceSettings) -> dict[str, Account]:
    """Read the accounts file.

    Args:
        settings: Settings that name the accounts file.

    Returns:
        Accounts by name; empty without an accounts file.

    Raises:
        EditLoopError: The file is damaged.
    """
    path = settings.annotators_file
    if path is None or not path.is_file():
        return {}
    return read_json_record(path, Accounts, "Restore it: nobody else knows the annotators' passwords.").root


def ensure_annotators(client: Any, names: Iterable[str], settings: ServiceSettings) -> dict[str, int]:
    """Make sure, where there is an accounts file, that every annotator has an account in Label Studio.

    Missing annotators are signed up. The file is written before each sign-up. Without the file they join by the
    invitation link (`annotation.campaigns.invitations`), now or later.

    Args:
        client: A LabelStudio client of the account that owns the campaigns.
        names: Annotators' names.
        settings: Address and token of Label Studio, and the accounts file.

    Returns:
        Label Studio's user id by name, of those who have an account.

    Raises:
        EditLoopError: Label Studio refuses a sign-up or a login.
    """
    names = list(names)
    ids = member_ids(settings)
    accounts = read_accounts(settings)
    missing = [name for name in names if spelling(name) not in ids] if settings.annotators_file else []
    url = settings.require("label_studio_url")
    for name in missing:
        password = secrets.token_urlsafe(16)
        # Written before it is used: an account whose password is lost could never log in.
        accounts[name] = Account(name=name, email=email_of(name), password=password, token="")
        _write_accounts(settings.annotators_file, accounts)
        token = _sign_up(url, client.organizations.invites.get_invite_link().token, accounts[name])
        accounts[name] = accounts[name].model_copy(update={"token": token})
        _write_accounts(settings.annotators_file, accounts)
    for name in names:
        if name in accounts and not accounts[name].token:  # of a call that was stopped right after a sign-up
            accounts[name] = accounts[name].model_copy(update={"token": _log_in(url, accounts[name])})
            _write_accounts(settings.annotators_file, accounts)
    if missing:
        _reset_invitation(url, settings)
        ids = member_ids(settings)
    return {name: ids[spelling(name)] for name in names if spelling(name) in ids}


def member_ids(settings: ServiceSettings) -> dict[str, int]:
    """Return the user ids of all who have an account in Label Studio, by account name.

    Args:
        settings: Address and token of Label Studio.
    """
    users: list[_User] = LabelStudioApi(settings).call("GET", "/api/users/")
    return {spelling(user["email"]): user["id"] for user in users}


def spelling(name: str) -> str:
    """Return the one spelling of an account name; of what is none, the text in small letters.

    Args:
        name: An account name or an address, of a campaign that an earlier version opened or from Label Studio.
    """
    try:
        return account_name(name)
    except ValueError:
        return name.lower()


class _User(TypedDict):
    """An account as Label Studio describes it."""

    id: int
    email: str


def _sign_up(url: str, invite: str, account: Account) -> str:
    """Make the account, and return its API token."""
    with httpx.Client(follow_redirects=True, timeout=TIMEOUT) as session:
        reply = _fill_form(session, f"{url}/user/signup/?token={invite}", account)
        if not (reply.is_success and session.cookies.get("sessionid")):
            messages = " ".join(re.findall(r'class="[^"]*error[^"]*"[^>]*>([^<]+)', reply.text))
            raise EditLoopError(f"Label Studio did not sign up {account.email}: {messages or reply.status_code}.")
        return _token(session, url, account)


def _reset_invitation(url: str, settings: ServiceSettings) -> None:
    """Invalidate the invitation link: every use of it leaves its token in Label Studio's request log."""
    owner = {"Authorization": f"Token {settings.require('label_studio_token')}"}
    httpx.post(f"{url}/api/invite/reset-token", headers=owner, timeout=TIMEOUT).raise_for_status()


def _log_in(url: str, account: Account) -> str:
    """Return the account's API token, read in a session that logs in through the login page."""
    with httpx.Client(follow_redirects=True, timeout=TIMEOUT) as session:
        _fill_form(session, f"{url}/user/login/", account)
        return _token(session, url, account)


def _token(session: httpx.Client, url: str, account: Account) -> str:
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
