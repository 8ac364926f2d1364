"""Batches made ahead by a thread, so that the model does not wait for its data."""

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import Generic, TypeVar

Prepared = TypeVar("Prepared")
PREFETCH_DEPTH = 3
"""Number of results that are made ahead: one being made, two waiting."""


class Prefetch(Generic[Prepared]):
    """Results of calls, made ahead in a thread and yielded in order.

    An error of a call is raised where its result would have come. `waited_seconds` is the time that the reader has
    spent waiting.
    """

    def __init__(self, makers: Iterable[Callable[[], Prepared]]):
        """Start the first calls.

        Args:
            makers: Functions without arguments, called in order, PREFETCH_DEPTH results ahead.
        """
        self.waited_seconds = 0.0
        self._makers, self._pool = iter(makers), ThreadPoolExecutor(1, "prefetch")
        self._ahead = deque(self._submit(PREFETCH_DEPTH))

    def __iter__(self) -> Iterator[Prepared]:
        while self._ahead:
            began = time.perf_counter()
            prepared = self._ahead.popleft().result()
            self.waited_seconds += time.perf_counter() - began
            self._ahead += self._submit(1)
            yield prepared

    def close(self) -> None:
        """End the thread, even where calls are left."""
        self._pool.shutdown(cancel_futures=True)

    def _submit(self, count: int) -> list[Future[Prepared]]:
        return [self._pool.submit(make) for make in islice(self._makers, count)]
