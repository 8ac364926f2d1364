"""Batches made ahead by a thread, so that the model does not wait for its data; how long it did wait is kept."""

import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Generic, TypeVar

Prepared = TypeVar("Prepared")
PREFETCH_DEPTH = 2


class Prefetch(Generic[Prepared]):
    """Calls each of `makers` in a thread, `AHEAD` results in advance, and yields the results in order.

    An error of a maker is raised where its result would have come. `waited` is the seconds that the reader spent
    waiting; `close` ends the thread early.
    """

    def __init__(self, makers: Iterable[Callable[[], Prepared]]):
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
        """End the thread, whatever is left to make."""
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
