"""Dynamic batching by task: requests that wait at the same time are judged together, and those of one task share it.

A request waits in a queue of bounded length. A free worker takes the oldest, with it those of the same task (source and
instruction), then others, up to a number of edits; the oldest waits at most a window for company. Requests of one task
become one group, so that the judge computes their source and instruction once.
"""

import asyncio
import logging
import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

from editloop.errors import EditLoopError
from editloop.models.judge_protocol import EditGroup, Picture
from editloop.scoring.server_messages import ScoreMessage
from editloop.scoring.server_settings import ServeSettings
from editloop.scoring.serving.meters import Meters
from editloop.scoring.serving.waiting import QueuedRequest, merge_by_task, take_batch
from editloop.scoring.serving.worker import ModelFacts, Refusal, WorkerDiedError

HEALTH_CHECK_SECONDS = 0.5
"""How often an idle worker is looked at: one that died is replaced before a request finds it."""
MAX_RESTART_PAUSE = 30.0
"""Seconds between two starts of a worker that does not come up, at most."""
log = logging.getLogger(__name__)


class OverloadedError(Exception):
    """The queue is full; `seconds` from now it should have room."""

    def __init__(self, seconds: int):
        super().__init__(f"the queue is full; ask again in {seconds} s")
        self.seconds = seconds


class UnavailableError(Exception):
    """No worker could answer this request."""


class RefusedError(Exception):
    """The judge cannot judge what this request holds."""


class BatchWorker(Protocol):
    """What the batcher asks of a worker; all block."""

    def start(self) -> ModelFacts: ...
    def alive(self) -> bool: ...
    def judge(self, groups: Sequence[EditGroup]) -> list[list[ScoreMessage] | Refusal]: ...
    def stop(self) -> None: ...


class Batcher:
    """The queue and the workers that empty it. All methods run on one event loop."""

    def __init__(self, workers: Sequence[BatchWorker], settings: ServeSettings, meters: Meters):
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
        """Seconds an edit, of late: what a time to come back is estimated from."""

    @property
    def queued(self) -> int:
        """Edits that wait."""
        return sum(len(request.edits) for request in self._queue)

    def start(self, on_failure: Callable[[str], None]) -> None:
        """Begin to start the workers; requests may wait meanwhile.

        `on_failure` is called where the model cannot be opened at all: a worker's first start fails before any came up.
        """
        self._on_failure = on_failure
        self._tasks = [asyncio.create_task(self._run_worker(worker)) for worker in self._workers]

    async def stop(self) -> None:
        """End the workers; whatever still waits is told so."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*(asyncio.to_thread(worker.stop) for worker in self._workers))
        await asyncio.gather(*self._tasks, return_exceptions=True)
        while self._queue:
            _fail(self._queue.popleft(), UnavailableError("the server is stopping"))
        self._threads.shutdown(wait=False)

    async def score(self, instruction: str, source: Picture, task: str, edits: list[Picture]) -> list[ScoreMessage]:
        """The scores of the edits, in their order.

        OverloadedError where the queue is full, RefusedError where the judge cannot judge them, UnavailableError where
        no worker answered in time or each that tried died.
        """
        if self._queue and self.queued + len(edits) > self.settings.queue:
            raise OverloadedError(self.retry_seconds())
        request = QueuedRequest(instruction, source, task, edits, asyncio.get_running_loop().create_future())
        await self._put(request)
        try:
            return await asyncio.wait_for(request.answer, self.settings.request_seconds)
        except TimeoutError:
            raise UnavailableError(f"no worker answered within {self.settings.request_seconds:g} s") from None

    def retry_seconds(self) -> int:
        """Whole seconds until the queue as it is should be worked off."""
        return max(1, math.ceil(self.queued * self._pace / max(1, self.ready)))

    async def _put(self, *requests: QueuedRequest, first: bool = False) -> None:
        async with self._changed:
            if first:
                self._queue.extendleft(reversed(requests))
            else:
                self._queue.extend(requests)
            self.meters.queued.set(self.queued)
            self._changed.notify_all()

    async def _next_batch(self, worker: BatchWorker) -> list[QueuedRequest]:
        """The next batch; waits for a request, then for its window or until a batch is full.

        WorkerDiedError where the worker ended meanwhile.
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
        """Until the queue changes, or so long."""
        try:
            await asyncio.wait_for(self._changed.wait(), seconds)
        except TimeoutError:
            pass

    async def _run_worker(self, worker: BatchWorker) -> None:
        """One worker's life: started, given batches, and started again when it dies."""
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
            except Exception as error:  # a defect of ours: these requests are told, and the worker is replaced
                log.exception("a batch of %d requests failed", len(batch))
                for request in batch:
                    _fail(request, UnavailableError(f"the server failed on this batch ({type(error).__name__})"))
            finally:
                self.ready -= 1
                self.meters.ready.set(self.ready)

    async def _start(self, worker: BatchWorker) -> bool:
        """Start a worker, however often it takes; False where the model cannot be opened at all."""
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
        return True

    async def _judge(self, worker: BatchWorker, batch: list[QueuedRequest]) -> None:
        """Give a batch to a worker and split what comes back."""
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
        """Put requests back at the queue's head, each to be judged alone; those out of tries are told why."""
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
