"""Runs a piece in a process of its own."""

import os
import resource
import signal
import time
from pathlib import Path
from typing import Any

from editloop.studies.claims.store import PieceCost, Store


def make_piece(store: Store, name: str, seed: int, log: Path) -> None:
    """Run a piece and store its figures.

    On SIGTERM the piece stops its trainings, which save their state. A Ctrl-C at the terminal does not reach it, as it
    runs in a session of its own.

    Args:
        store: The store of results.
        name: Name of the piece.
        seed: Its seed.
        log: File to which all output is appended.
    """
    os.setsid()
    with log.open("ab") as stream:
        os.dup2(stream.fileno(), 1)
        os.dup2(stream.fileno(), 2)
    signal.signal(signal.SIGTERM, _interrupt)
    began = time.monotonic()
    figures = store.pieces[name].make(store.work(name, seed))
    store.keep(name, seed, figures, PieceCost(time.monotonic() - began, _processor_seconds()))


def _processor_seconds() -> float:
    """Processor time of this process and of its child processes that have ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in used)


def _interrupt(number: int, frame: Any) -> None:
    raise KeyboardInterrupt
