"""The processes that read requests, from the server's side: a deadline for each request, a share for each client."""

import asyncio
import json
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

import numpy as np

from editloop.models.judge_protocol import Picture
from editloop.scoring.server_settings import Limits, ServeSettings
from editloop.scoring.serving.decoding import BODY_COPIES, NEXT, PICTURE_MEMORY
from editloop.scoring.serving.fair_share import FairShare
from editloop.scoring.serving.meters import Meters
from editloop.scoring.serving.refusal import HttpRefusal, UnavailableError

STOPPING = "the server is stopping"
START_SECONDS = 60.0
"""Longest time for a process to start."""
END_SECONDS = 5.0
"""Longest wait for the exit code of a process that has closed its pipe."""
OUTSIDE_SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
"""Signals that come from outside: a machine short of memory, or a person. A decoder's own faults end it by others."""


class DecoderKilledError(UnavailableError):
    """Something outside killed the process while it decoded a request."""


class DecodedRequest(NamedTuple):
    """A request with its images decoded."""

    instruction: str
    task: str
    """Digest of sources and instruction: equal for requests of one task."""
    source: Picture
    references: list[Picture]
    edits: list[Picture]
    bytes: int
    """Memory of the different images."""


class Decoder:
    """One process that reads requests. Its methods block and must be called from one thread at a time."""

    def __init__(self, limits: Limits, seconds: float, memory: int = PICTURE_MEMORY):
        """Create it; the first request starts the process.

        Args:
            limits: Limits of a request.
            seconds: Longest time for a request; a process that takes longer is killed.
            memory: Bytes that decoding may take beside the body.
        """
        self.limits, self.seconds = limits, seconds
        self.memory = memory + BODY_COPIES * limits.body_megabytes * 2**20
        self._process: subprocess.Popen[bytes] | None = None
        self._pipe: Connection | None = None

    def decode(self, body: bytes, gone: threading.Event) -> DecodedRequest:
        """Return a request with its images.

        Args:
            body: The request's body.
            gone: Set once the client has left: the next image is not decoded then.

        Raises:
            HttpRefusal: It cannot be read, is beyond the limits, takes too long, or ends the process; or status 499,
                the client has left.
            UnavailableError: The process does not start; DecoderKilledError where it was killed from outside.
        """
        if self._process is None or self._process.poll() is not None:
            self._start()
        process, pipe = self._process, self._pipe
        assert process is not None
        assert pipe is not None
        deadline, current = time.monotonic() + self.seconds, "the request"
        try:
            pipe.send_bytes(self.limits.model_dump_json().encode())
            pipe.send_bytes(body)
            head = _receive(pipe, deadline)
            pictures: list[Picture] = []
            size = 0
            for name in head["pictures"]:
                current = name
                if gone.is_set():
                    pipe.send_bytes(b"stop")
                    raise HttpRefusal(499, "the asker left")
                pipe.send_bytes(NEXT)
                picture_head = _receive(pipe, deadline)
                if "same" in picture_head:
                    pictures.append(pictures[picture_head["same"]])
                    continue
                picture = np.empty(picture_head["shape"], np.uint8)
                _wait(pipe, deadline)
                pipe.recv_bytes_into(picture.data.cast("B"))
                pictures.append(picture)
                size += picture.nbytes
        except TimeoutError:
            self.stop()
            raise HttpRefusal(
                413,
                f"{current}: the request was not decoded within {self.seconds:g} s; send fewer or smaller pictures",
            ) from None
        except (EOFError, OSError):
            code = _exit_code(process)
            self.stop()
            if code is not None and -code in OUTSIDE_SIGNALS:
                raise DecoderKilledError(
                    f"{current}: the process that decoded it was killed ({signal.Signals(-code).name})"
                ) from None
            raise HttpRefusal(
                422,
                f"{current}: its decoding ended with exit code {code}: it takes too much memory, or breaks "
                "the decoder; send less at once",
            ) from None
        sources = head["sources"]
        return DecodedRequest(
            head["instruction"], head["task"], pictures[0], pictures[1:sources], pictures[sources:], size
        )

    def stop(self) -> None:
        """End the process; may be called from another thread."""
        process, pipe = self._process, self._pipe
        self._process = self._pipe = None
        if process is not None:
            process.kill()
            process.wait()
        if pipe is not None:
            pipe.close()

    def _start(self) -> None:
        self.stop()
        self._pipe, other_end = Pipe()
        with other_end:
            arguments = [str(other_end.fileno()), str(self.memory)]
            command = [sys.executable, "-m", "editloop.scoring.serving.decoding", *arguments]
            try:
                self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, pass_fds=[other_end.fileno()])
            except OSError as error:
                raise UnavailableError(f"no process to decode pictures can be started ({error.strerror})") from None
        try:
            if self._pipe.poll(START_SECONDS):
                self._pipe.recv_bytes()
                return
        except (EOFError, OSError):
            pass
        self.stop()
        raise UnavailableError("the process that decodes pictures does not start; see the server's output")


class DecoderPool:
    """The decoders of a server, shared by its clients. Every method runs on one event loop."""

    def __init__(self, settings: ServeSettings, meters: Meters):
        """Create the pool; processes start as they are needed.

        Args:
            settings: Number of decoders, time and limits of a request.
            meters: The metrics to update.
        """
        self._idle = [Decoder(settings.limits, settings.decode_seconds) for _ in range(settings.decoders)]
        self._all = tuple(self._idle)
        self._share = FairShare(settings.decoders)
        self._threads = ThreadPoolExecutor(settings.decoders, "decode")
        self._waiting: deque[tuple[str, asyncio.Future[Decoder]]] = deque()
        self._meters = meters
        self._stopping = False

    async def decode(self, client: str, body: bytes, gone: threading.Event) -> DecodedRequest:
        """Return a request with its images, once it is the client's turn.

        Args:
            client: The client, by `client_of`.
            body: The request's body.
            gone: Set once the client has left.

        Raises:
            HttpRefusal: See `Decoder.decode`.
            UnavailableError: No process starts, two were killed from outside over the request, or the server is
                stopping.
        """
        turn: asyncio.Future[Decoder] = asyncio.get_running_loop().create_future()
        self._waiting.append((client, turn))
        self._admit()
        try:
            decoder = await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():  # its turn came as the client left
                self._give_back(client, turn.result())
            raise
        if self._stopping:
            self._give_back(client, decoder)
            raise UnavailableError(STOPPING)
        work = asyncio.get_running_loop().run_in_executor(self._threads, self._decode, decoder, body, gone)
        work.add_done_callback(lambda done: self._finish(client, decoder, done))
        try:
            return await asyncio.shield(work)  # a decoder is idle once its thread has ended, not once its client left
        except (HttpRefusal, DecoderKilledError):
            if self._stopping:
                raise UnavailableError(STOPPING) from None
            raise

    def stop(self) -> None:
        """End all processes; every request that is decoded or waits fails with UnavailableError."""
        self._stopping = True
        for decoder in self._all:
            decoder.stop()
        self._threads.shutdown(wait=False)

    def _decode(self, decoder: Decoder, body: bytes, gone: threading.Event) -> DecodedRequest:
        try:
            return decoder.decode(body, gone)
        except DecoderKilledError:
            if self._stopping:
                raise
            return decoder.decode(body, gone)  # in a new process

    def _admit(self) -> None:
        """Give idle decoders to those who wait: the oldest first, of the clients that may have one more."""
        still_waiting: deque[tuple[str, asyncio.Future[Decoder]]] = deque()
        for client, turn in self._waiting:
            if turn.done():
                continue
            if self._share.fits(client, 1):
                self._share.take(client, 1)
                turn.set_result(self._idle.pop())
            else:
                still_waiting.append((client, turn))
        self._waiting = still_waiting

    def _finish(self, client: str, decoder: Decoder, done: "asyncio.Future[DecodedRequest]") -> None:
        if not done.cancelled() and isinstance(done.exception(), HttpRefusal):
            self._meters.undecoded.inc()
        self._give_back(client, decoder)

    def _give_back(self, client: str, decoder: Decoder) -> None:
        self._share.take(client, -1)
        self._idle.append(decoder)
        self._admit()


def _receive(pipe: Connection, deadline: float) -> dict[str, Any]:
    """Return the next head, or raise what it refuses."""
    _wait(pipe, deadline)
    head: dict[str, Any] = json.loads(pipe.recv_bytes())
    if "status" in head:
        raise HttpRefusal(head["status"], head["error"])
    return head


def _exit_code(process: subprocess.Popen[bytes]) -> int | None:
    """Return the exit code of a process that has closed its pipe; None where it goes on all the same."""
    try:
        return process.wait(END_SECONDS)
    except subprocess.TimeoutExpired:
        return None


def _wait(pipe: Connection, deadline: float) -> None:
    if not pipe.poll(max(0.0, deadline - time.monotonic())):
        raise TimeoutError
