"""Work that a thread does beside a block: copies, signs of life."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def running_beside(work: Callable[[threading.Event], None], name: str) -> Iterator[None]:
    """Run a function in a thread while the block runs, and wait for its end.

    Args:
        work: Called with an event that is set when the block is over; it returns soon after that.
        name: Name of the thread.
    """
    over = threading.Event()
    thread = threading.Thread(target=work, args=(over,), daemon=True, name=name)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
