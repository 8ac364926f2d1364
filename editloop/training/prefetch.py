"""Batches made ahead by a thread, so that the model does not wait for its data."""

import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Generic, TypeVar

Prepared = TypeVar("Prepared")
PREFETCH_DEPTH = 2
"""Number of results that wait in the queue."""


class Prefetch(Generic[Prepared]):
    """Results of calls, made ahead in a thread and yielded in order.

    An error of a call is raised where its result would have come. `waited_seconds` is the time that the reader has
    spent waiting.
    """

    def __init__(self, makers: Iterable[Callable[[], Prepared]]):
        """Start the thread.

        Args:
            makers: Functions without arguments, called in order, about PREFETCH_DEPTH results ahead.
        """
        self.waited_seconds = 0.0
        self._ready: queue.Queue[tuple[Prepared | None, BaseException | None]] = queue.Queue(PREFETCH_DEPTH)
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._make, args=(iter(makers),), daemon=True, name="prefetch")
        self._thread.start()

    def __iter__(self) -> Iterator[Prepared]:
        while True:
            began = time.perf_counter()
            prepared, error = self._ready.get()
            self.waited_seconds += time.perf_counter() - began
            if error is not None:
                if isinstance(error, StopIteration):
                    return
                raise error
            assert prepared is not None
            yield prepared

    def close(self) -> None:
        """End the thread, even where calls are left."""
        self._closed.set()
        while self._thread.is_alive():
            try:
                self._ready.get(timeout=0.05)
            except queue.Empty:
                pass

    def _make(self, makers: Iterator[Callable[[], Prepared]]) -> None:
        try:
            for make in makers:
                if self._closed.is_set():
                    return
                self._ready.put((make(), None))
            self._ready.put((None, StopIteration()))
        except BaseException as error:
            self._ready.put((None, error))
