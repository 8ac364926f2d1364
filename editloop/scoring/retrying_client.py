"""HTTP client of a remote judge: it retries while the server is away or busy, for a limited time."""

import json
from functools import partial

import httpx
from pydantic import Field, SecretStr
from tenacity import RetryCallState
from tenacity.wait import wait_random_exponential

from editloop.addresses import has_secrets
from editloop.certificates import shared_certificates
from editloop.environment import EnvironmentSettings
from editloop.errors import EditLoopError
from editloop.models.judge_protocol import JudgeUnavailableError
from editloop.retry import retry_call
from editloop.text_file import whole_number

REQUEST_FAULT_STATUSES = (400, 413, 422)
"""Statuses that say that this request is wrong; other refusals would meet any request."""
RETRY_STATUSES = (408, 429, 500, 502, 503, 504)
"""Statuses after which the same request may succeed: the server's own, and those of a proxy before it."""
MAX_REASON_CHARACTERS = 500
"""Longest reason of a refusal that an error message repeats."""

LONGEST_PAUSE = 60.0
"""Seconds before another try, at most, whatever a server asks for."""


class ClientSettings(EnvironmentSettings):
    """What the settings of all remote judges have in common."""

    connections: int = Field(16, ge=1)
    """Requests in flight at once."""
    seconds: float = Field(300.0, gt=0)
    """Longest wait for one answer, in seconds."""
    patience: float = Field(300.0, ge=0)
    """Seconds after which a request that keeps failing is given up."""


class _RetryLaterError(Exception):
    def __init__(self, reason: str, seconds: float | None = None):
        super().__init__(reason)
        self.seconds = seconds


class RetryingClient:
    """A client of one server. Several threads may use it at once."""

    def __init__(
        self,
        url: str,
        key: SecretStr | None,
        settings: ClientSettings,
        key_advice: str,
        transport: httpx.BaseTransport | None = None,
    ):
        """Create the client; nothing is sent yet.

        Args:
            url: Base address of the server.
            key: Sent as a bearer token; None sends none.
            settings: Connections and time limits.
            key_advice: What to do if the key is refused, for messages.
            transport: Carries the requests; None for the network.

        Raises:
            EditLoopError: `url` is not a valid address, or holds a secret.
        """
        if has_secrets(url):
            raise EditLoopError(
                f"{url}: a password or a token in a judge's address would be written into manifests and tags; leave it "
                f"out ({key_advice})."
            )
        self.url, self.settings, self.key_advice = url, settings, key_advice
        headers = {"Authorization": f"Bearer {key.get_secret_value()}"} if key else {}
        limits = httpx.Limits(max_connections=settings.connections, max_keepalive_connections=settings.connections)
        try:
            self._http = httpx.Client(
                base_url=url,
                headers=headers,
                timeout=settings.seconds,
                limits=limits,
                transport=transport,
                verify=shared_certificates(),
            )
        except httpx.InvalidURL as error:
            raise EditLoopError(f"{url}: {error}; give http(s)://HOST:PORT.") from None

    def ask(self, method: str, path: str, body: bytes | None = None) -> bytes:
        """Send a request and return the body of its answer with status 200.

        Args:
            method: HTTP method.
            path: Path below the base address.
            body: JSON to send; None for no body.

        Raises:
            EditLoopError: The server says that this request is wrong (REQUEST_FAULT_STATUSES), or the base address is
                not an http(s) address.
            JudgeUnavailableError: The server refuses for another reason, or is away or busy for longer than the
                patience.
        """
        try:
            return retry_call(
                partial(self._once, method, path, body),
                lambda error: isinstance(error, _RetryLaterError),
                seconds=self.settings.patience,
                wait=_pause,
            )
        except _RetryLaterError as error:
            variable = self.settings.variable("patience")
            raise JudgeUnavailableError(
                f"{self.url}: {error}; given up after {self.settings.patience:g} s ({variable})."
            ) from None

    def _once(self, method: str, path: str, body: bytes | None) -> bytes:
        try:
            headers = {"Content-Type": "application/json"} if body is not None else {}
            answer = self._http.request(method, path, content=body, headers=headers)
        except httpx.UnsupportedProtocol:
            raise EditLoopError(f"{self.url}: not an address; give http(s)://HOST:PORT.") from None
        except httpx.TransportError as error:
            raise _RetryLaterError(f"no connection ({error or type(error).__name__})") from None
        if answer.status_code == 200:
            return answer.content
        refusal = f"{answer.status_code}, {_reason(answer)}"
        if answer.status_code in RETRY_STATUSES:
            raise _RetryLaterError(refusal, whole_number(answer.headers.get("Retry-After", "")))
        if answer.status_code in REQUEST_FAULT_STATUSES:
            raise EditLoopError(f"{self.url}: {refusal}.")
        advice = f"; {self.key_advice}" if answer.status_code in (401, 403) else ""
        raise JudgeUnavailableError(f"{self.url}: {refusal}{advice}.")


def _reason(answer: httpx.Response) -> str:
    """Return the reason that a refusal gives.

    It is EditLoop's `error`, others' `error.message`, `message` or `detail`, or else the status's phrase.
    """
    try:
        content = json.loads(answer.content)
    except (ValueError, RecursionError):
        return answer.reason_phrase
    content = content if isinstance(content, dict) else {}
    error = content.get("error")
    for reason in (error, error.get("message") if isinstance(error, dict) else None, content.get("message")):
        if isinstance(reason, str) and reason:
            return reason[:MAX_REASON_CHARACTERS]
    return str(content.get("detail") or answer.reason_phrase)[:MAX_REASON_CHARACTERS]


def _pause(state: RetryCallState) -> float:
    """Return the seconds to wait before the next try.

    That is what the server asked for, LONGEST_PAUSE at most, plus a random part so that clients do not all return at
    once.
    """
    assert state.outcome is not None
    error = state.outcome.exception()
    server_seconds = error.seconds if isinstance(error, _RetryLaterError) else None
    return min(server_seconds or 0.0, LONGEST_PAUSE) + wait_random_exponential(multiplier=0.1, max=5)(state)
