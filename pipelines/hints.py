"""An HTTP endpoint for hints that a campaign or a model changed, so that the reconciler looks now.

    POST /hint      from Label Studio's and MLflow's webhooks, or from anything that knows the secret
    GET  /healthz   200 while passes are made; needs no secret

A hint's body is never read as news: the reconciler asks the services themselves. Hints that come in a burst, or while a
pass is made, lead to one pass together.
"""

import asyncio
import base64
import hashlib
import hmac
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from fastapi import FastAPI, HTTPException, Request
from starlette.requests import ClientDisconnect

from editloop.errors import EditLoopError
from editloop.scoring.serving.connection import bounded_connection
from editloop.scoring.serving.fair_share import FairShare
from editloop.scoring.serving.listener import open_listener
from editloop.text_file import whole_number

SETTLE_SECONDS = 2.0
"""Pause between the first hint of a burst and the pass, during which further hints join it."""
LONGEST_AGE = 300.0
"""Seconds for which a signed hint counts, as MLflow's documentation advises: who saw one cannot send it for ever."""
LONGEST_BODY = 2**20
"""Bytes of a body whose signature is checked. MLflow's are a few hundred."""
TIMESTAMP = re.compile("[0-9]{1,12}")
"""Seconds since 1970, as MLflow's header has them."""
RECEIVE_SECONDS = 10.0
"""How long a sender may take for a hint's headers, and then for a body whose signature is checked."""
CONNECTIONS = 128
"""Open connections, of which no address holds more than it leaves to others."""
STUCK_SECONDS = 1800.0
"""Time without a finished pass, beyond the pause between two, after which `/healthz` answers 503."""


class HintQueue:
    """Hints that wait for the next pass. Any number of them makes one pass."""

    def __init__(self, pause_seconds: float, settle_seconds: float = SETTLE_SECONDS):
        """Begin without hints.

        Args:
            pause_seconds: Seconds after which a pass is made without any hint.
            settle_seconds: Seconds for which the hints of a burst are gathered.
        """
        self.pause_seconds, self.settle_seconds = pause_seconds, settle_seconds
        self._hinted = threading.Event()
        self._waiting_since = time.monotonic()

    def add(self) -> None:
        """Ask for a pass."""
        self._hinted.set()

    def wait(self) -> None:
        """Return when the next pass is due. Hints from now on ask for a further one."""
        self._waiting_since = time.monotonic()
        if self._hinted.wait(self.pause_seconds):
            time.sleep(self.settle_seconds)
        self._hinted.clear()

    @property
    def is_stuck(self) -> bool:
        """Whether the last pass has not ended in a long time."""
        return time.monotonic() - self._waiting_since > self.pause_seconds + STUCK_SECONDS


def make_hint_app(hints: HintQueue, secret: str) -> FastAPI:
    """Create the application that takes hints.

    Args:
        hints: Gets them.
        secret: What senders must know: sent as `Authorization: Bearer SECRET`, or as the key of MLflow's signature.
    """
    app = FastAPI(title="EditLoop reconciler", docs_url=None, redoc_url=None, openapi_url=None)

    @app.get("/healthz")
    def healthz() -> dict[str, str]:
        if hints.is_stuck:
            raise HTTPException(503, "no pass has ended in a long time")
        return {"status": "ok"}

    @app.post("/hint", status_code=202)
    async def hint(request: Request) -> dict[str, str]:
        if not (_knows_secret(request, secret) or await _is_signed(request, secret)):
            raise HTTPException(401, "send `Authorization: Bearer` and the secret in EDITLOOP_HINT_SECRET")
        hints.add()
        return {"status": "the next pass is soon"}

    return app


@contextmanager
def listen_for_hints(address: str, hints: HintQueue, secret: str) -> Iterator[str]:
    """Take hints over HTTP within the block.

    Args:
        address: HOST:PORT to listen on; port 0 takes a free one.
        hints: Gets the hints.
        secret: What senders must know.

    Yields:
        The address of the endpoint, for people.

    Raises:
        EditLoopError: The address is none, or cannot be listened on.
    """
    import uvicorn

    host, _, port = address.rpartition(":")
    number = whole_number(port)
    if not host or number is None or number > 65535:
        raise EditLoopError(f"--listen {address}: write HOST:PORT, such as 127.0.0.1:8421 or 0.0.0.0:8421.")
    with open_listener(host.strip("[]"), number, f"--listen {address}") as listener:
        server = uvicorn.Server(
            uvicorn.Config(
                make_hint_app(hints, secret),
                http=bounded_connection(RECEIVE_SECONDS, FairShare(CONNECTIONS)),
                log_level="warning",
                access_log=False,
                server_header=False,
            )
        )
        listener.listen()  # senders wait from now on, and are not refused while the server starts
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        try:
            yield f"http://{host}:{listener.getsockname()[1]}/hint"
        finally:
            server.should_exit = True
            thread.join()


def _knows_secret(request: Request, secret: str) -> bool:
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    return scheme.lower() == "bearer" and hmac.compare_digest(token.encode(), secret.encode())


async def _is_signed(request: Request, secret: str) -> bool:
    """Whether a request carries MLflow's signature of it, made with the secret, a short time ago."""
    signature = request.headers.get("x-mlflow-signature", "")
    length = whole_number(request.headers.get("content-length", ""))
    if not signature or length is None or length > LONGEST_BODY:
        return False
    sent_at = request.headers.get("x-mlflow-timestamp", "")
    if not TIMESTAMP.fullmatch(sent_at) or abs(time.time() - int(sent_at)) > LONGEST_AGE:
        return False
    try:
        body = await asyncio.wait_for(request.body(), RECEIVE_SECONDS)
    except (TimeoutError, ClientDisconnect):
        return False
    stamp = f"{request.headers.get('x-mlflow-delivery-id')}.{sent_at}."
    digest = hmac.new(secret.encode(), stamp.encode() + body, hashlib.sha256).digest()
    return hmac.compare_digest(signature.encode(), b"v1," + base64.b64encode(digest))
