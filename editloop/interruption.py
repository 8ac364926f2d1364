"""The signals that end a command: taken alike, and held back while something is started or stopped.

Ctrl-C sends SIGINT, `kill` and a cluster SIGTERM, a terminal that closes SIGHUP.
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
    """Take SIGTERM and SIGHUP for Ctrl-C within the block, so that what was started is stopped whichever comes."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    with _handled_by(interrupt, (signal.SIGTERM, signal.SIGHUP)):
        yield


@contextmanager
def defer_signals() -> Iterator[None]:
    """Hold back what would end the command until the block has ended, so that a second Ctrl-C leaves nothing half done.

    The first signal that came meanwhile is delivered then.
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
    """Handle signals within the block, but for those that are ignored, as SIGHUP is under `nohup`.

    Python handles signals in its main thread alone: in another thread the block changes nothing.
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
