"""Dynamic batching by task: requests that wait at the same time are judged together.

A request waits in a queue of bounded length. A free worker takes the oldest request, then those of the same task
(sources and instruction), then others, up to a number of edits. The oldest request waits for others for a limited time
only. Requests of one task become one group, so that the judge computes their sources and instruction once.
"""

import asyncio
import logging
import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from editloop.errors import EditLoopError
from editloop.models.judge_protocol import Picture, wording_note
from editloop.scoring.server_messages import ScoreMessage
from editloop.scoring.server_settings import ServeSettings
from editloop.scoring.serving.fair_share import within_share
from editloop.scoring.serving.meters import Meters
from editloop.scoring.serving.refusal import OverloadedError, UnavailableError
from editloop.scoring.serving.waiting import QueuedRequest, merge_by_task, take_batch
from editloop.scoring.serving.worker import ModelFacts, Refusal, Worker, WorkerDiedError

HEALTH_CHECK_SECONDS = 0.5
"""Time between two checks of an idle worker: one that died is replaced before a request meets it."""
MAX_RESTART_PAUSE = 30.0
"""Longest pause, in seconds, between two starts of a worker that does not come up."""
log = logging.getLogger(__name__)


class RefusedError(Exception):
    """The judge cannot judge the content of this request."""


class Batcher:
    """The queue and the workers that empty it. Every method runs on one event loop."""

    def __init__(self, workers: Sequence[Worker], settings: ServeSettings, meters: Meters):
        """Create the batcher; `start` starts the workers.

        Args:
            workers: The workers, not started yet.
            settings: Batch size, window, queue length, tries and time limit.
            meters: The metrics to update.
        """
        self.settings, self.meters = settings, meters
        self.facts: ModelFacts | None = None
        self.ready = 0
        self._workers = workers
        self._queue: deque[QueuedRequest] = deque()
        self._changed = asyncio.Condition()
        self._threads = ThreadPoolExecutor(len(workers), "worker")
        self._tasks: list[asyncio.Task[None]] = []
        self._on_failure: Callable[[str], None] = log.error
        self._pace = 0.1
        """Recent seconds per edit (moving average): the basis of `retry_seconds`."""

    @property
    def queued(self) -> int:
        """Number of edits that wait."""
        return sum(len(request.edits) for request in self._queue)

    def start(self, on_failure: Callable[[str], None]) -> None:
        """Begin to start the workers and return at once; requests may wait in the meantime.

        Args:
            on_failure: Called with the reason if the model cannot be opened: a worker fails to start before any has
                started.
        """
        self._on_failure = on_failure
        self._tasks = [asyncio.create_task(self._run_worker(worker)) for worker in self._workers]

    async def stop(self) -> None:
        """End the workers; every request that still waits fails with UnavailableError."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*(asyncio.to_thread(worker.stop) for worker in self._workers))
        await asyncio.gather(*self._tasks, return_exceptions=True)
        while self._queue:
            _fail(self._queue.popleft(), UnavailableError("the server is stopping"))
        self._threads.shutdown(wait=False)

    async def score(
        self,
        instruction: str,
        source: Picture,
        task: str,
        edits: list[Picture],
        references: Sequence[Picture] = (),
        *,
        client: str = "",
    ) -> list[ScoreMessage]:
        """Score the edits of one request.

        Args:
            instruction: The instruction.
            source: The source image.
            task: Digest of sources and instruction; requests with the same one are batched as one group.
            edits: The edits.
            references: The reference images.
            client: Who asks, by `client_of`.

        Returns:
            The scores, in the edits' order.

        Raises:
            OverloadedError: The queue is full, or the client has its share of it. An empty queue accepts a request of
                any size.
            RefusedError: The judge cannot judge these edits.
            UnavailableError: No worker answered in time, the judge was unavailable, or every worker that tried died.
        """
        if self._queue:
            self._check_share(client, len(edits))
        answer = asyncio.get_running_loop().create_future()
        request = QueuedRequest(instruction, source, task, edits, answer, references, client=client)
        await self._put(request)
        try:
            return await asyncio.wait_for(request.answer, self.settings.request_seconds)
        except TimeoutError:
            raise UnavailableError(f"no worker answered within {self.settings.request_seconds:g} s") from None

    def retry_seconds(self) -> int:
        """Return the estimated whole seconds until the present queue is worked off; at least 1."""
        return max(1, math.ceil(self.queued * self._pace / max(1, self.ready)))

    def _check_share(self, client: str, edits: int) -> None:
        held, most = sum(len(request.edits) for request in self._queue if request.client == client), self.settings.queue
        if within_share(edits, held=held, total=self.queued, capacity=most):
            return
        if self.queued + edits > most:
            raise OverloadedError(self.retry_seconds())
        raise OverloadedError(
            self.retry_seconds(),
            f"{held} edits of your address wait; of the {most} that may wait the rest is for others",
        )

    async def _put(self, *requests: QueuedRequest, first: bool = False) -> None:
        async with self._changed:
            if first:
                self._queue.extendleft(reversed(requests))
            else:
                self._queue.extend(requests)
            self.meters.queued.set(self.queued)
            self._changed.notify_all()

    async def _next_batch(self, worker: Worker) -> list[QueuedRequest]:
        """Wait for a request, then for its window or until a batch is full, and return the batch.

        Raises:
            WorkerDiedError: The worker died in the meantime.
        """
        async with self._changed:
            while True:
                if not self._queue:
                    await self._wait(HEALTH_CHECK_SECONDS)
                if not worker.alive():
                    raise WorkerDiedError("a worker ended while it had nothing to do")
                if not self._queue:
                    continue
                first = self._queue[0]
                window_left = first.entered + self.settings.window_ms / 1000 - time.monotonic()
                if not first.alone and window_left > 0 and self.queued < self.settings.max_batch:
                    await self._wait(window_left)
                    continue
                batch = take_batch(self._queue, self.settings.max_batch)
                self.meters.queued.set(self.queued)
                if batch:
                    return batch

    async def _wait(self, seconds: float) -> None:
        """Wait until the queue changes, for at most `seconds`."""
        try:
            await asyncio.wait_for(self._changed.wait(), seconds)
        except TimeoutError:
            pass

    async def _run_worker(self, worker: Worker) -> None:
        """Run one worker: start it, give it batches, and start it again when it dies."""
        while True:
            if not await self._start(worker):
                return
            batch: list[QueuedRequest] = []
            try:
                while True:
                    batch = []
                    batch = await self._next_batch(worker)
                    try:
                        await self._judge(worker, batch)
                    except asyncio.CancelledError:
                        for request in batch:
                            _fail(request, UnavailableError("the server is stopping"))
                        raise
            except WorkerDiedError as error:
                self.meters.deaths.inc()
                log.warning("%s; it is replaced, and its %d requests are tried again", error, len(batch))
                await self._requeue(batch, str(error))
            except Exception as error:  # a bug of the server: these requests fail, and the worker is replaced
                log.exception("a batch of %d requests failed", len(batch))
                for request in batch:
                    _fail(request, UnavailableError(f"the server failed on this batch ({type(error).__name__})"))
            finally:
                self.ready -= 1
                self.meters.ready.set(self.ready)

    async def _start(self, worker: Worker) -> bool:
        """Start a worker, with as many tries as it takes; return False if the model cannot be opened at all."""
        pause = 1.0
        while True:
            try:
                self.facts = await asyncio.get_running_loop().run_in_executor(self._threads, worker.start)
                break
            except (EditLoopError, OSError) as error:
                if self.facts is None:
                    self._on_failure(str(error))
                    return False
                log.error("a worker did not start: %s Next try in %g s.", error, pause)
                await asyncio.sleep(pause)
                pause = min(2 * pause, MAX_RESTART_PAUSE)
        self.ready += 1
        self.meters.ready.set(self.ready)
        self.meters.model.labels(self.facts.name, self.facts.version).set(1)
        log.info("a worker has %s %s%s", self.facts.name, self.facts.version, wording_note(self.facts.wording))
        return True

    async def _judge(self, worker: Worker, batch: list[QueuedRequest]) -> None:
        """Give a batch to a worker and divide the results among the requests."""
        merged = merge_by_task(batch)
        size = sum(len(request.edits) for request in batch)
        self.meters.batch_edits.observe(size)
        self.meters.batch_requests.observe(len(batch))
        self.meters.batch_groups.observe(len(merged))
        began = time.monotonic()
        groups = [group for group, _ in merged]
        results = await asyncio.get_running_loop().run_in_executor(self._threads, worker.judge, groups)
        seconds = time.monotonic() - began
        self.meters.batch_seconds.observe(seconds)
        self._pace = 0.8 * self._pace + 0.2 * seconds / size
        for (_, members), result in zip(merged, results, strict=True):
            if not isinstance(result, Refusal):
                scores = iter(result)
                for request in members:
                    _answer(request, [next(scores) for _ in request.edits])
            elif result.retryable:
                for request in members:
                    _fail(request, UnavailableError(result.reason))
            elif len(members) == 1:
                _fail(members[0], RefusedError(result.reason))
            else:
                await self._requeue(members, result.reason, tried=False)

    async def _requeue(self, requests: Sequence[QueuedRequest], reason: str, *, tried: bool = True) -> None:
        """Put requests back at the queue's head, each to be judged alone; those without tries left fail."""
        retried = []
        for request in requests:
            request.tries += tried
            request.alone = True
            if request.tries >= self.settings.tries:
                _fail(request, UnavailableError(f"{request.tries} workers died over this request, the last: {reason}"))
            elif not request.answer.done():
                retried.append(request)
        await self._put(*retried, first=True)


def _answer(request: QueuedRequest, scores: list[ScoreMessage]) -> None:
    if not request.answer.done():
        request.answer.set_result(scores)


def _fail(request: QueuedRequest, error: Exception) -> None:
    if not request.answer.done():
        request.answer.set_exception(error)
