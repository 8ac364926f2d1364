"""Handling of the signals that end a command: treat them all like Ctrl-C, or defer them during a start or a stop.

Ctrl-C sends SIGINT, `kill` and clusters send SIGTERM, and a terminal that closes sends SIGHUP.
"""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

ENDING_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

Handler = Callable[[int, FrameType | None], None]


@contextmanager
def interrupt_on_termination() -> Iterator[None]:
    """Raise KeyboardInterrupt on SIGTERM and SIGHUP within the block. One clean-up then serves Ctrl-C and both."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    with _handled_by(interrupt, (signal.SIGTERM, signal.SIGHUP)):
        yield


@contextmanager
def defer_signals() -> Iterator[None]:
    """Defer SIGINT, SIGTERM and SIGHUP until the block ends, so that a second Ctrl-C cannot interrupt the clean-up.

    Afterwards the first signal that arrived is delivered; later ones are dropped.
    """
    arrived: list[int] = []
    try:
        with _handled_by(lambda number, frame: arrived.append(number), ENDING_SIGNALS):
            yield
    finally:
        if arrived:
            signal.raise_signal(arrived[0])


@contextmanager
def _handled_by(handler: Handler, numbers: tuple[signal.Signals, ...]) -> Iterator[None]:
    """Handle signals with `handler` within the block, except ignored ones, such as SIGHUP under `nohup`.

    Python handles signals in its main thread only: in another thread the block changes nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in numbers}
    replaced = {number: old for number, old in before.items() if old not in (signal.SIG_IGN, None)}
    try:
        for number in replaced:
            signal.signal(number, handler)
        yield
    finally:
        for number, old in replaced.items():
            signal.signal(number, old)
