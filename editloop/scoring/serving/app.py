"""The server's HTTP interface: authentication, limits, and the meaning of each refusal.

    POST /v1/score   ScoreRequest -> ScoreReply
    GET  /v1/model   ModelReply
    GET  /metrics    Prometheus
    GET  /healthz    the process is alive; needs no token
    GET  /readyz     a worker has loaded its model; needs no token

Refusals: 401 wrong or no token, 408 sent too slowly, 413 too large, 415 not JSON, 422 cannot be judged, 429 overloaded,
503 no worker could answer.
"""

import asyncio
import hashlib
import hmac
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from typing import Any, TypeVar

import numpy as np
from fastapi import FastAPI, HTTPException, Request, Response
from pydantic import BaseModel, ValidationError
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import ClientDisconnect

from editloop.data.picture_file import read_picture
from editloop.errors import EditLoopError
from editloop.models.judge_protocol import Picture
from editloop.scoring.server_messages import (
    MODEL_HEADER,
    VERSION_HEADER,
    ErrorReply,
    ModelReply,
    ScoreReply,
    ScoreRequest,
    WordingMessage,
    describe_validation_error,
)
from editloop.scoring.server_settings import ServeSettings
from editloop.scoring.serving.batching import Batcher, OverloadedError, RefusedError, UnavailableError

DECODERS = 2
"""Threads that decode images; Pillow releases the GIL meanwhile."""
LOCAL_NAMES = ["127.0.0.1", "localhost", "[::1]", "::1"]
"""Host headers that a server without a token accepts."""
Answer = TypeVar("Answer")


class HttpRefusal(HTTPException):
    """A request that gets an error status instead of a result; `detail` says what is wrong, for the client."""


class DecodedRequest:
    """A request with its images decoded."""

    def __init__(self, request: ScoreRequest, most_pixels: int, gone: threading.Event):
        """Decode the images; equal files are decoded once.

        Args:
            request: The request.
            most_pixels: Largest number of pixels of all different images together.
            gone: Set once the client has left: the next image is not decoded then.

        Raises:
            EditLoopError: An image cannot be read.
            HttpRefusal: Status 413, the images have more pixels than `most_pixels`; or 499, the client has left.
        """
        self.instruction = request.instruction
        references, edits = len(request.references), len(request.edits)
        names = ["source", *(f"references[{k}]" for k in range(references)), *(f"edits[{k}]" for k in range(edits))]
        encoded = (request.source, *request.references, *request.edits)
        pictures_by_bytes: dict[bytes, Picture] = {}
        pictures, pixels = [], 0
        for name, data in zip(names, encoded, strict=True):
            if gone.is_set():
                raise HttpRefusal(499, "the asker left")
            if data not in pictures_by_bytes:
                pictures_by_bytes[data] = np.asarray(read_picture(data, name))
                pixels += pictures_by_bytes[data].shape[0] * pictures_by_bytes[data].shape[1]
            if pixels > most_pixels:
                raise HttpRefusal(413, f"the pictures have over {most_pixels:,} pixels together; send fewer at once")
            pictures.append(pictures_by_bytes[data])
        self.source, self.references, self.edits = (
            pictures[0],
            pictures[1 : 1 + references],
            pictures[1 + references :],
        )
        self.bytes = 3 * pixels
        digests = b"".join(hashlib.sha256(data).digest() for data in (request.source, *request.references))
        self.task = hashlib.sha256(digests + request.instruction.encode()).hexdigest()


class MemoryBudget:
    """A limit on the memory that requests in progress hold."""

    def __init__(self, most: int):
        """Create the budget.

        Args:
            most: Bytes that all requests together may hold.
        """
        self.most, self.held = most, 0

    @contextmanager
    def reserve(self, size: int, batcher: Batcher) -> Iterator[Callable[[int], None]]:
        """Reserve memory for a request within the block.

        Args:
            size: Bytes to reserve at once.
            batcher: Estimates when there will be room.

        Yields:
            A function that reserves more bytes.

        Raises:
            OverloadedError: Other requests hold too much. A request that is alone may have any size.
        """
        held_here = 0

        def more(added: int) -> None:
            nonlocal held_here
            if self.held > held_here and self.held + added > self.most:
                raise OverloadedError(batcher.retry_seconds())
            held_here += added
            self.held += added

        try:
            more(size)
            yield more
        finally:
            self.held -= held_here


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
    decoders = ThreadPoolExecutor(DECODERS, "decode")
    stopping = False

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        nonlocal stopping
        batcher.start(on_failure)
        yield
        stopping = True
        await batcher.stop()
        decoders.shutdown()

    app = FastAPI(title="EditLoop scores", docs_url=None, redoc_url=None, lifespan=lifespan)
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

    @app.post("/v1/score", response_model=ScoreReply, openapi_extra=_body_schema())
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
        content_length = request.headers.get("Content-Length", "")
        if content_length.isdigit() and int(content_length) > most:
            raise HttpRefusal(413, f"the request has {int(content_length):,} bytes; at most {most:,} are read")
        gone = threading.Event()
        try:
            with memory.reserve(0, batcher) as hold_more:
                body = await _read_body(request, most, settings.receive_seconds, hold_more)
                decoding = asyncio.get_running_loop().run_in_executor(decoders, decode, body, gone)
                del body
                decoded = await _while_connected(request, decoding)
                hold_more(decoded.bytes)
                scoring = batcher.score(
                    decoded.instruction, decoded.source, decoded.task, decoded.edits, decoded.references
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

    def decode(body: bytes, gone: threading.Event) -> DecodedRequest:
        try:
            request = ScoreRequest.model_validate_json(body)
        except ValidationError as error:
            raise HttpRefusal(422, describe_validation_error(error)) from None
        if len(request.edits) > limits.edits:
            raise HttpRefusal(413, f"edits: {len(request.edits)} pictures; at most {limits.edits} a request")
        if len(request.instruction) > limits.instruction_characters:
            raise HttpRefusal(
                422, f"instruction: {len(request.instruction):,} characters; at most {limits.instruction_characters:,}"
            )
        return DecodedRequest(request, limits.picture_megapixels * 1_000_000, gone)

    @app.get("/v1/model", response_model=ModelReply)
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

    @app.get("/metrics")
    async def metrics(request: Request) -> Response:
        admit(request)
        return Response(meters.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    @app.get("/healthz")
    async def healthz() -> dict[str, str]:
        return {"status": "alive"}

    @app.get("/readyz")
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


def _body_schema() -> dict[str, Any]:
    return {
        "requestBody": {"required": True, "content": {"application/json": {"schema": ScoreRequest.model_json_schema()}}}
    }
