"""Batches made ahead by threads, so that the model does not wait for its data.

Threads do: reading, decoding, scaling and cutting of images all release Python's lock.
"""

import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import Generic, Self, TypeVar

Prepared = TypeVar("Prepared")
MOST_THREADS = 4
"""Default threads of a rank, at most: at 512 pixels they make over 200 images a second."""


class Prefetch(Generic[Prepared]):
    """Results of calls, made ahead by a pool of threads and yielded in order. Use it as a context manager.

    An error of a call is raised where its result would have come. `waited_seconds` is the time that the reader has
    spent waiting.
    """

    def __init__(self, makers: Iterable[Callable[[], Prepared]], *, threads: int, ahead: int):
        """Start the first calls.

        Args:
            makers: Functions without arguments, begun in order.
            threads: Number of calls that run at a time.
            ahead: Number of results that are made before they are asked for.
        """
        self.waited_seconds = 0.0
        self._makers, self._pool = iter(makers), ThreadPoolExecutor(threads, "prefetch")
        self._ahead = deque(self._submit(ahead))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """End the threads, even where calls are left. Those that run come to their end."""
        self._pool.shutdown(cancel_futures=True)

    def __iter__(self) -> Iterator[Prepared]:
        while self._ahead:
            began = time.perf_counter()
            prepared = self._ahead.popleft().result()
            self.waited_seconds += time.perf_counter() - began
            self._ahead += self._submit(1)
            yield prepared

    def _submit(self, count: int) -> list[Future[Prepared]]:
        return [self._pool.submit(make) for make in islice(self._makers, count)]


def loader_threads(ranks_here: int) -> int:
    """Return how many threads of a rank load data: its share of this process's processors, 1 to MOST_THREADS.

    Args:
        ranks_here: Ranks on this machine.
    """
    return max(1, min(MOST_THREADS, len(os.sched_getaffinity(0)) // ranks_here))
