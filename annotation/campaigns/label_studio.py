"""Label Studio's HTTP API where thousands of tasks go through it: plain requests, patient while it is away."""

import json
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import requests
from tenacity import RetryCallState, Retrying, retry_if_exception, stop_after_delay, wait_exponential

from editloop.errors import EditLoopError
from infra.settings import ServiceSettings

REQUEST_SECONDS = 300
AWAY_SECONDS = 180
"""How long a Label Studio that is away is waited for: a restart with migrations takes a minute."""
LONGEST_WAIT = 5
AWAY = (502, 503, 504)
"""Said by a proxy whose Label Studio is not there."""
THREADS = 4

Item = TypeVar("Item")
Result = TypeVar("Result")


class LabelStudioApi:
    """The API as one account sees it; by default the account that owns the campaigns. Safe to use in threads."""

    def __init__(self, settings: ServiceSettings, token: str | None = None):
        self.url = settings.require("label_studio_url").rstrip("/")
        self.session = requests.Session()
        self.session.headers["Authorization"] = f"Token {token or settings.require('label_studio_token')}"
        for scheme in ("http://", "https://"):
            self.session.mount(scheme, requests.adapters.HTTPAdapter(pool_maxsize=THREADS))

    def call(self, method: str, path: str, **request: Any) -> Any:
        """The JSON that `method` `path` answers, None for an empty answer. `request` is what requests takes.

        While Label Studio is away the call is made again for AWAY_SECONDS, so a call that changes something may be
        done twice: whoever makes it counts afterwards. EditLoopError where it stays away or refuses.
        """
        content = self.fetch(method, path, **request)
        return json.loads(content) if content else None

    def fetch(self, method: str, path: str, **request: Any) -> bytes:
        """The bytes that `method` `path` answers; otherwise like `call`."""
        retrying = Retrying(
            retry=retry_if_exception(_is_away),
            wait=wait_exponential(multiplier=0.25, max=LONGEST_WAIT),
            stop=stop_after_delay(AWAY_SECONDS),
            retry_error_callback=self._gave_up,
        )
        return retrying(self._call, method, path, **request)

    def each(self, work: Callable[[Item], Result], items: Iterable[Item]) -> Iterable[Result]:
        """`work` done on every item, some at once; the results in the items' order."""
        with ThreadPoolExecutor(THREADS) as pool:
            yield from pool.map(work, items)

    def _call(self, method: str, path: str, **request: Any) -> bytes:
        reply = self.session.request(method, f"{self.url}{path}", **{"timeout": REQUEST_SECONDS, **request})
        if reply.status_code in (401, 403):
            raise EditLoopError(
                f"Label Studio at {self.url} refuses the token for {method} {path} ({reply.status_code}): it was "
                "revoked, has expired or may not do this. Get a token under Account & Settings there and set "
                "EDITLOOP_LABEL_STUDIO_TOKEN."
            )
        if reply.status_code in AWAY:
            reply.raise_for_status()
        if not reply.ok:
            message = " ".join(reply.text.split())[:300]
            raise EditLoopError(f"Label Studio refused {method} {path}: {reply.status_code} {message}")
        return reply.content

    def _gave_up(self, state: RetryCallState) -> Any:
        error = state.outcome.exception() if state.outcome else None
        raise EditLoopError(
            f"Label Studio at {self.url} has been away for {AWAY_SECONDS} s ({type(error).__name__}). Start it "
            "(`editloop up`, `editloop status`) and make the same call again: it goes on where it stopped."
        ) from error


def _is_away(error: BaseException) -> bool:
    exceptions = requests.exceptions
    return isinstance(
        error, exceptions.ConnectionError | exceptions.Timeout | exceptions.HTTPError | exceptions.ChunkedEncodingError
    )
