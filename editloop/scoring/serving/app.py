"""The server's HTTP interface: authentication, limits, and the meaning of each refusal.

    POST /v1/score   ScoreRequest -> ScoreReply
    GET  /v1/model   ModelReply
    GET  /metrics    Prometheus
    GET  /healthz    the process is alive; needs no token
    GET  /readyz     a worker has loaded its model; needs no token

Refusals: 401 wrong or no token, 408 sent too slowly, 413 too large or too long to decode, 415 not JSON, 422 cannot be
judged, 429 the server is full or the client holds its share of it, 503 no worker could answer.
"""

import asyncio
import hmac
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from typing import Any, TypeVar

from fastapi import Depends, FastAPI, Request, Response
from fastapi.security import HTTPBearer
from pydantic import BaseModel
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import ClientDisconnect

from editloop.errors import EditLoopError
from editloop.scoring.server_messages import (
    MODEL_HEADER,
    VERSION_HEADER,
    ErrorReply,
    ModelReply,
    ScoreReply,
    ScoreRequest,
    WordingMessage,
)
from editloop.scoring.server_settings import ServeSettings
from editloop.scoring.serving.batching import Batcher, RefusedError
from editloop.scoring.serving.decoder_pool import DecoderPool
from editloop.scoring.serving.fair_share import FairShare, client_of
from editloop.scoring.serving.refusal import HttpRefusal, OverloadedError, UnavailableError
from editloop.text_file import whole_number

LOCAL_NAMES = ["127.0.0.1", "localhost", "[::1]", "::1"]
"""Host headers that a server without a token accepts."""
Answer = TypeVar("Answer")


class MemoryBudget:
    """A limit on the memory that requests in progress hold, shared by the clients."""

    def __init__(self, most: int):
        """Create the budget.

        Args:
            most: Bytes that all requests together may hold.
        """
        self.share = FairShare(most)

    @contextmanager
    def reserve(self, client: str, batcher: Batcher) -> Iterator[Callable[[int], None]]:
        """Reserve memory for a request within the block.

        Args:
            client: Who asks, by `client_of`.
            batcher: Estimates when there will be room.

        Yields:
            A function that reserves more bytes.

        Raises:
            OverloadedError: Other requests hold too much, or this client does. A request that is alone may have any
                size.
        """
        held_here = 0

        def more(added: int) -> None:
            nonlocal held_here
            if self.share.total > held_here and not self.share.fits(client, added):
                raise OverloadedError(batcher.retry_seconds(), self._reason(client, added))
            held_here += added
            self.share.take(client, added)

        try:
            yield more
        finally:
            self.share.take(client, -held_here)

    def _reason(self, client: str, added: int) -> str:
        held, most = self.share.holdings[client], self.share.capacity
        if self.share.total + added > most:
            return f"requests in progress hold the server's {most >> 20:,} MiB"
        return f"requests of your address hold {held >> 20:,} of {most >> 20:,} MiB; the rest is for others"


def make_app(
    settings: ServeSettings, batcher: Batcher, token: str | None, *, on_failure: Callable[[str], None]
) -> FastAPI:
    """Create the application around a batcher, which it starts and stops.

    Args:
        settings: Limits and memory.
        batcher: Scores the requests.
        token: The token that clients must send. None needs no token, but accepts only requests whose Host is local.
        on_failure: Called with the reason if the model cannot be opened.

    Returns:
        The application.
    """
    memory, limits, meters = MemoryBudget(settings.held_megabytes * 2**20), settings.limits, batcher.meters
    decoders = DecoderPool(settings, meters)
    stopping = False

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        nonlocal stopping
        batcher.start(on_failure)
        yield
        stopping = True
        await batcher.stop()
        decoders.stop()

    app = FastAPI(title="EditLoop scores", docs_url=None, redoc_url=None, lifespan=lifespan)
    needs_token = [] if token is None else [Depends(HTTPBearer(auto_error=False))]  # for the schema; `admit` decides
    if token is None:  # stops DNS rebinding: a web page in a local browser that asks under its own host name
        app.add_middleware(TrustedHostMiddleware, allowed_hosts=LOCAL_NAMES)

    def reply(status: int, content: BaseModel, headers: Mapping[str, str] | None = None) -> Response:
        model_headers = (
            {MODEL_HEADER: batcher.facts.name, VERSION_HEADER: batcher.facts.version} if batcher.facts else {}
        )
        return Response(
            content.model_dump_json(),
            status,
            headers={**model_headers, **(headers or {})},
            media_type="application/json",
        )

    def admit(request: Request) -> None:
        authorization = request.headers.get("Authorization", "").encode()
        if token is not None and not hmac.compare_digest(authorization, f"Bearer {token}".encode()):
            raise HttpRefusal(
                401, "wrong or no token; send Authorization: Bearer TOKEN", {"WWW-Authenticate": "Bearer"}
            )

    @app.exception_handler(HttpRefusal)
    async def refused(_: Request, refusal: HttpRefusal) -> Response:
        return reply(refusal.status_code, ErrorReply(error=refusal.detail), refusal.headers)

    @app.post(
        "/v1/score",
        response_model=ScoreReply,
        responses=_refusals(401, 408, 413, 415, 422, 429, 503),
        dependencies=needs_token,
        openapi_extra=_body_schema(),
    )
    async def score(request: Request) -> Response:
        admit(request)
        began = time.monotonic()
        status = 500
        try:
            content = await answer(request)
            status = 200
            meters.edits.inc(sum(not message.missing for message in content.scores))
            meters.missing.inc(sum(bool(message.missing) for message in content.scores))
            return reply(200, content)
        except HttpRefusal as refusal:
            status = refusal.status_code
            raise
        finally:
            meters.requests.labels(str(status)).inc()
            meters.seconds.observe(time.monotonic() - began)

    async def answer(request: Request) -> ScoreReply:
        kind = request.headers.get("Content-Type", "").partition(";")[0].strip().lower()
        if kind != "application/json":  # also keeps out HTML forms of other web pages
            raise HttpRefusal(415, f"Content-Type is {kind or 'missing'}; send application/json")
        most = limits.body_megabytes * 2**20
        content_length = whole_number(request.headers.get("Content-Length", "")) or 0
        if content_length > most:
            raise HttpRefusal(413, f"the request has {content_length:,} bytes; at most {most:,} are read")
        client, gone = client_of(request.client.host if request.client else None), threading.Event()
        try:
            with memory.reserve(client, batcher) as hold_more:
                body = await _read_body(request, most, settings.receive_seconds, hold_more)
                decoding = decoders.decode(client, body, gone)
                del body
                decoded = await _while_connected(request, decoding)
                hold_more(decoded.bytes)
                scoring = batcher.score(
                    decoded.instruction, decoded.source, decoded.task, decoded.edits, decoded.references, client=client
                )
                scores = await _while_connected(request, scoring)
        except OverloadedError as error:
            raise HttpRefusal(429, str(error), {"Retry-After": str(error.seconds)}) from None
        except (RefusedError, EditLoopError) as error:
            raise HttpRefusal(422, str(error)) from None
        except UnavailableError as error:
            raise HttpRefusal(503, str(error), {"Retry-After": str(batcher.retry_seconds())}) from None
        finally:
            gone.set()
        assert batcher.facts is not None
        return ScoreReply(model=batcher.facts.name, version=batcher.facts.version, scores=scores)

    @app.get("/v1/model", response_model=ModelReply, responses=_refusals(401, 503), dependencies=needs_token)
    async def model(request: Request, references: bool = False) -> Response:
        admit(request)
        if batcher.facts is None:
            raise HttpRefusal(503, "the model is being loaded", {"Retry-After": "1"})
        facts = batcher.facts
        wording = WordingMessage(**facts.wording._asdict()) if facts.wording else None
        content = ModelReply(
            model=facts.name,
            version=facts.version,
            axes=facts.axes,
            limits=limits,
            wording=wording,
            references=facts.takes_references if references else None,
        )
        return reply(200, content)

    @app.get(
        "/metrics",
        response_class=Response,
        responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}, **_refusals(401)},
        dependencies=needs_token,
    )
    async def metrics(request: Request) -> Response:
        admit(request)
        return Response(meters.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    @app.get("/healthz")
    async def healthz() -> dict[str, str]:
        return {"status": "alive"}

    @app.get("/readyz", responses=_refusals(503))
    async def readyz() -> Response:
        if stopping or batcher.ready == 0:
            raise HttpRefusal(503, "no worker has its model yet" if not stopping else "the server is stopping")
        return Response('{"status":"ready"}', media_type="application/json")

    return app


async def _read_body(request: Request, most: int, seconds: float, hold_more: Callable[[int], None]) -> bytes:
    """Return the body. Memory is reserved as it arrives: what a slow client has only announced is left to others."""
    body = bytearray()
    try:
        async with asyncio.timeout(seconds):
            async for part in request.stream():
                hold_more(len(part))
                body += part
                if len(body) > most:
                    raise HttpRefusal(413, f"the request has more than {most:,} bytes; that is what is read")
    except TimeoutError:
        raise HttpRefusal(408, f"the request did not arrive within {seconds:g} seconds; send it at once") from None
    except ClientDisconnect:
        raise HttpRefusal(499, "the asker left") from None
    return bytes(body)


async def _while_connected(request: Request, work: Awaitable[Answer]) -> Answer:
    """Return the result of `work`, or cancel it when the client disconnects.

    No worker then computes for a client that is gone.
    """
    task = asyncio.ensure_future(work)
    leaving = asyncio.ensure_future(request.receive())  # the body has been read: the next message is the disconnect
    try:
        await asyncio.wait({task, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise HttpRefusal(499, "the asker left")
        return task.result()
    finally:
        for future in (task, leaving):
            future.cancel()
        await asyncio.gather(task, leaving, return_exceptions=True)


def _refusals(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return what the schema says of refusals with some statuses."""
    return {status: {"model": ErrorReply} for status in statuses}


def _body_schema() -> dict[str, Any]:
    return {
        "requestBody": {"required": True, "content": {"application/json": {"schema": ScoreRequest.model_json_schema()}}}
    }
