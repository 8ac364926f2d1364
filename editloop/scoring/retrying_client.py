"""Asking a judge that is elsewhere, over HTTP: again while it is away or busy, as long as the asker has patience."""

import json

import httpx
from pydantic import SecretStr
from tenacity import RetryCallState, Retrying, retry_if_exception_type, stop_after_delay
from tenacity.wait import wait_random_exponential

from editloop.errors import EditLoopError
from editloop.models.judge_protocol import JudgeUnavailableError

REQUEST_FAULT_STATUSES = (400, 413, 422)
"""Answers that say what is wrong with this very request; other refusals would meet any."""
RETRY_STATUSES = (408, 429, 500, 502, 503, 504)
"""Answers after which the same request may succeed: the server's own, and those of a proxy before it."""
MAX_REASON_CHARACTERS = 500


class _RetryLaterError(Exception):
    def __init__(self, reason: str, seconds: float | None = None):
        super().__init__(reason)
        self.seconds = seconds


class RetryingClient:
    """An address that is asked. Several threads may use it at once."""

    def __init__(
        self,
        url: str,
        key: SecretStr | None,
        *,
        connections: int,
        seconds: float,
        patience: float,
        patience_name: str,
        key_advice: str,
        transport: httpx.BaseTransport | None = None,
    ):
        """key: shown as a bearer token. connections: requests at once, at most. seconds: the longest wait for one
        answer. patience: seconds after which a request that is always put off is given up; `patience_name` is the
        variable that sets it. key_advice: what to do where the key is refused. transport: by default the network.

        EditLoopError where the address is none.
        """
        self.url, self.patience, self.patience_name, self.key_advice = url, patience, patience_name, key_advice
        headers = {"Authorization": f"Bearer {key.get_secret_value()}"} if key else {}
        limits = httpx.Limits(max_connections=connections, max_keepalive_connections=connections)
        try:
            self._http = httpx.Client(
                base_url=url, headers=headers, timeout=seconds, limits=limits, transport=transport
            )
        except httpx.InvalidURL as error:
            raise EditLoopError(f"{url}: {error}; give http(s)://HOST:PORT.") from None

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def ask(self, method: str, path: str, body: bytes | None = None) -> bytes:
        """The body of a good answer (status 200).

        EditLoopError where the server says that this request is wrong, JudgeUnavailableError where it refuses for
        another reason, or is away or busy for longer than the patience.
        """
        retrying = Retrying(
            retry=retry_if_exception_type(_RetryLaterError),
            wait=_pause,
            stop=stop_after_delay(self.patience),
            reraise=True,
        )
        try:
            return retrying(self._once, method, path, body)
        except _RetryLaterError as error:
            raise JudgeUnavailableError(
                f"{self.url}: {error}; given up after {self.patience:g} s ({self.patience_name})."
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
            retry_after = answer.headers.get("Retry-After", "")
            raise _RetryLaterError(refusal, float(retry_after) if retry_after.isdigit() else None)
        if answer.status_code in REQUEST_FAULT_STATUSES:
            raise EditLoopError(f"{self.url}: {refusal}.")
        advice = f"; {self.key_advice}" if answer.status_code in (401, 403) else ""
        raise JudgeUnavailableError(f"{self.url}: {refusal}{advice}.")


def _reason(answer: httpx.Response) -> str:
    """What the body says is wrong, ours (`error`) or as others put it (`error.message`, `detail`, `message`)."""
    try:
        content = json.loads(answer.content)
    except ValueError:
        return answer.reason_phrase
    content = content if isinstance(content, dict) else {}
    error = content.get("error")
    for reason in (error, error.get("message") if isinstance(error, dict) else None, content.get("message")):
        if isinstance(reason, str) and reason:
            return reason[:MAX_REASON_CHARACTERS]
    return str(content.get("detail") or answer.reason_phrase)[:MAX_REASON_CHARACTERS]


def _pause(state: RetryCallState) -> float:
    """Seconds before the next try: what the server asked for, and a little at random so that not all come at once."""
    assert state.outcome is not None
    error = state.outcome.exception()
    server_seconds = error.seconds if isinstance(error, _RetryLaterError) else None
    return (server_seconds or 0.0) + wait_random_exponential(multiplier=0.1, max=5)(state)
