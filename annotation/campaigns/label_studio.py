"""Client of Label Studio's HTTP API for bulk work, with retries while Label Studio is unreachable."""

import json
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import count
from typing import Any, TypedDict, TypeVar

import httpx

from editloop.certificates import shared_certificates
from editloop.errors import EditLoopError
from editloop.retry import retry_call
from infra.settings import ServiceSettings

REQUEST_SECONDS = 300
AWAY_SECONDS = 180
"""How long to retry while Label Studio is unreachable: a restart with migrations takes a minute."""
AWAY = (502, 503, 504)
"""Status codes of a proxy that cannot reach Label Studio."""
AWAY_ERRORS = (httpx.TransportError, httpx.HTTPStatusError)
THREADS = 4
PROJECTS = 100
"""Projects in one request: Label Studio lists no more, whatever it is asked for."""

Item = TypeVar("Item")
Result = TypeVar("Result")


class NotThereError(EditLoopError):
    """Label Studio has no such thing, or no longer."""


class LabelStudioApi:
    """The API with one account's token. Safe to use in threads."""

    def __init__(self, settings: ServiceSettings, token: str | None = None):
        """Prepare a session; nothing is sent yet.

        Args:
            settings: Address of Label Studio, and the token of the account that owns the campaigns.
            token: Token of another account to use; None for the owner's.

        Raises:
            EditLoopError: The address or the token is not set.
        """
        self.url = settings.require("label_studio_url").rstrip("/")
        headers = {"Authorization": f"Token {token or settings.require('label_studio_token')}"}
        self.session = httpx.Client(
            headers=headers, timeout=REQUEST_SECONDS, follow_redirects=True, verify=shared_certificates()
        )

    def call(self, method: str, path: str, **request: Any) -> Any:
        """Send a request and return the JSON of the reply.

        While Label Studio is unreachable, the request is repeated for AWAY_SECONDS. A request that changes something
        may therefore be carried out twice; the caller has to check for that afterwards.

        Args:
            method: HTTP method.
            path: Path below Label Studio's address, with a leading slash.
            **request: Further arguments of `httpx.Client.request`.

        Returns:
            The decoded JSON; None for an empty reply.

        Raises:
            EditLoopError: Label Studio stays unreachable, refuses the token, or answers with an error; NotThereError
                where it has nothing at this path.
        """
        content = self.fetch(method, path, **request)
        return json.loads(content) if content else None

    def fetch(self, method: str, path: str, **request: Any) -> bytes:
        """Send a request and return the bytes of the reply; otherwise like `call`.

        Args:
            method: HTTP method.
            path: Path below Label Studio's address, with a leading slash.
            **request: Further arguments of `httpx.Client.request`.

        Raises:
            EditLoopError: Label Studio stays unreachable, refuses the token, or answers with an error.
        """
        try:
            return retry_call(
                partial(self._call, method, path, **request),
                lambda error: isinstance(error, AWAY_ERRORS),
                seconds=AWAY_SECONDS,
            )
        except AWAY_ERRORS as error:
            raise EditLoopError(
                f"Label Studio at {self.url} has been away for {AWAY_SECONDS} s ({type(error).__name__}). Start it "
                "(`editloop up`, `editloop status`) and make the same call again: it goes on where it stopped."
            ) from error

    def each(self, work: Callable[[Item], Result], items: Iterable[Item]) -> Iterable[Result]:
        """Apply a function to every item, in up to THREADS threads.

        Args:
            work: The function.
            items: Its inputs.

        Yields:
            The results, in the order of the items.
        """
        with ThreadPoolExecutor(THREADS) as pool:
            yield from pool.map(work, items)

    def _call(self, method: str, path: str, **request: Any) -> bytes:
        try:
            reply = self.session.request(method, f"{self.url}{path}", **request)
        except httpx.UnsupportedProtocol:
            raise EditLoopError(
                f"EDITLOOP_LABEL_STUDIO_URL={self.url}: no address; give http(s)://HOST:PORT."
            ) from None
        if reply.status_code in (401, 403):
            raise EditLoopError(
                f"Label Studio at {self.url} refuses the token for {method} {path} ({reply.status_code}): it was "
                "revoked, has expired or may not do this. Get a token under Account & Settings there and set "
                "EDITLOOP_LABEL_STUDIO_TOKEN."
            )
        if reply.status_code in AWAY:
            reply.raise_for_status()
        if reply.status_code == 404:
            raise NotThereError(f"Label Studio has nothing at {path}.")
        if not reply.is_success:
            message = " ".join(reply.text.split())[:300]
            raise EditLoopError(f"Label Studio refused {method} {path}: {reply.status_code} {message}")
        return reply.content


def list_projects(api: LabelStudioApi, *fields: str) -> Iterator[dict[str, Any]]:
    """Yield all projects of Label Studio, in requests of PROJECTS projects.

    Args:
        api: The API.
        *fields: What to read of each, such as "id" and "title".

    Yields:
        The projects as Label Studio's JSON.
    """
    for number in count(1):
        query = {"page": number, "page_size": PROJECTS, "include": ",".join(fields)}
        reply = api.call("GET", "/api/projects/", params=query)
        yield from reply["results"]
        if not reply["next"]:
            return


class ProjectData(TypedDict):
    """A project as Label Studio describes it, as far as campaigns need it."""

    id: int
    description: str | None
    label_config: str
    task_number: int


def read_project(api: LabelStudioApi, project_id: int, name: str) -> ProjectData:
    """Return what Label Studio says of a campaign's project.

    Args:
        api: The API.
        project_id: The project.
        name: Name of the campaign, for the message.

    Raises:
        NotThereError: The project was deleted; the message says how it comes back.
    """
    try:
        project: ProjectData = api.call("GET", f"/api/projects/{project_id}/")
    except NotThereError as error:
        raise NotThereError(
            f"Campaign {name}: its project {project_id} was deleted in Label Studio. `editloop reconcile --once` makes "
            "it anew, with the answers that the campaign's record keeps; so does opening the campaign again."
        ) from error
    return project
