"""Plans pieces and runs them in parallel, each in a process with one thread; a later call resumes stopped pieces.

The processes are forks of one that has imported everything already, as the imports take 8 seconds of a core.
"""

import multiprocessing
import time
from collections.abc import Callable, Sequence
from multiprocessing import forkserver
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path
from typing import NamedTuple

import psutil

from editloop.environment import environment_variables
from editloop.interruption import defer_signals
from editloop.processes import stop_tree
from editloop.studies.claims import worker
from editloop.studies.claims.store import Store

SECONDS_BETWEEN_LOOKS = 0.2
"""Time between two checks of the running processes."""
STOP_SECONDS = 60.0
"""Time in which a stopped piece can save its state before it is killed."""
ONE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}

PieceKey = tuple[str, int]
"""A piece's name and its seed."""


class PiecesProgress(NamedTuple):
    """Progress of a run, reported whenever a piece starts or ends."""

    done: int
    """Pieces that no longer run or wait, for whatever reason."""
    pieces: int
    """All pieces of the run."""
    ended: PieceKey | None
    """The piece that has just ended; None if one has started."""
    seconds: float
    """Time that the ended piece took; 0 if one has started."""
    running: list[PieceKey]
    left: float
    """Expected seconds for the rest, by plan and by the pace so far."""


class UnfinishedPieces(NamedTuple):
    """Pieces that a run did not finish."""

    failed: dict[PieceKey, Path]
    """Log file of each piece that failed."""
    waiting: list[PieceKey]
    """Pieces that were not started: for lack of time, or because a piece that they need failed or was not started."""


class _Running(NamedTuple):
    process: ForkServerProcess
    began: float


def waiting_pieces(store: Store, names: Sequence[str], seeds: Sequence[int]) -> list[PieceKey]:
    """Return the pieces that are not done yet, including those that the named ones need.

    Args:
        store: The results so far.
        names: Names of the pieces.
        seeds: The seeds.

    Returns:
        Name and seed of each piece, seed by seed, each piece after those it needs.
    """
    ordered = store.ordered(list(names))
    return [(name, seed) for seed in seeds for name in ordered if store.figures(name, seed) is None]


def planned_seconds(store: Store, waiting: Sequence[PieceKey], processes: int, *, pace: float = 1.0) -> float:
    """Return the expected time for pieces, scheduled as `run_pieces` does.

    Args:
        store: The results so far.
        waiting: The pieces. Pieces that they need and that are not among them count as done.
        processes: Number of pieces that run at a time.
        pace: Expected time of a piece as a multiple of its planned time.

    Returns:
        Seconds.
    """
    ends: dict[PieceKey, float] = {}
    free = [0.0] * processes
    left = list(waiting)
    while left:
        begin = min(free)
        ready = [key for key in left if all(ends.get(needed, 0.0) <= begin for needed in _needs(store, key, waiting))]
        if not ready:
            free[free.index(begin)] = min(end for end in ends.values() if end > begin)
            continue
        key = _first(store, ready)
        left.remove(key)
        ends[key] = begin + pace * store.pieces[key[0]].seconds
        free[free.index(begin)] = ends[key]
    return max(ends.values(), default=0.0)


def run_pieces(
    store: Store, waiting: Sequence[PieceKey], *, processes: int, seconds: float, tell: Callable[[PiecesProgress], None]
) -> UnfinishedPieces:
    """Run pieces in parallel.

    If a piece fails, those that need it are not started; the others go on. An interrupt stops the running pieces, which
    save their state; a later call resumes them.

    Args:
        store: The results so far.
        waiting: The pieces to run, from `waiting_pieces`.
        processes: Number of pieces that run at a time.
        seconds: Time limit. A piece that is not expected to end within it, by plan and pace, is not started.
        tell: Called with the progress whenever a piece starts or ends.
    """
    begin, left, running, forks = time.monotonic(), list(waiting), dict[PieceKey, _Running](), _forks(store)
    unfinished = UnfinishedPieces({}, [])
    before = [
        (cost.seconds, store.pieces[name].seconds)
        for name, seed in _piece_keys_on_disk(store)
        if (cost := store.spent(name, seed))
    ]
    spent, plan = sum(duration for duration, _ in before), sum(duration for _, duration in before)

    def pace() -> float:
        return spent / plan if plan > 0 else 1.0

    def told(ended: PieceKey | None, duration: float) -> None:
        rest = [*running, *left]
        seconds_left = planned_seconds(store, rest, processes, pace=pace())
        done = len(waiting) - len(rest)
        tell(PiecesProgress(done, len(waiting), ended, duration, list(running), seconds_left))

    try:
        while left or running:
            for key in [key for key in left if set(_needs(store, key, [*unfinished.failed, *unfinished.waiting]))]:
                left.remove(key)
                unfinished.waiting.append(key)
            blocked = [*left, *running]
            ready = [key for key in left if not _needs(store, key, blocked)]
            while ready and len(running) < processes:
                key = _first(store, ready)
                ready.remove(key)
                left.remove(key)
                if time.monotonic() - begin + pace() * store.pieces[key[0]].seconds > seconds:
                    unfinished.waiting.append(key)
                    continue
                running[key] = _Running(_start(forks, store, key), time.monotonic())
                told(None, 0.0)
            time.sleep(SECONDS_BETWEEN_LOOKS)
            for key in [key for key, child in running.items() if child.process.exitcode is not None]:
                child = running.pop(key)
                duration = time.monotonic() - child.began
                if store.figures(*key) is None:
                    unfinished.failed[key] = log_path(store, key)
                else:
                    spent, plan = spent + duration, plan + store.pieces[key[0]].seconds
                told(key, duration)
    finally:
        with defer_signals():
            for child in running.values():
                child.process.terminate()
            for child in running.values():
                if child.process.is_alive():
                    stop_tree(psutil.Process(child.process.pid), STOP_SECONDS)
    return unfinished


def log_path(store: Store, key: PieceKey) -> Path:
    """Return the file for a piece's output.

    Args:
        store: The results so far.
        key: Name and seed of the piece.
    """
    return store.folder(*key) / "log.txt"


def _forks(store: Store) -> ForkServerContext:
    """Start the server whose forks have the store's catalogue imported, with one thread set before any import."""
    forks = multiprocessing.get_context("forkserver")
    forks.set_forkserver_preload([store.catalogue])
    with environment_variables(**ONE_THREAD):
        forkserver.ensure_running()
    return forks


def _start(forks: ForkServerContext, store: Store, key: PieceKey) -> ForkServerProcess:
    store.work(*key)
    process = forks.Process(target=worker.make_piece, args=(store, *key, log_path(store, key)))
    process.start()
    return process


def _first(store: Store, ready: Sequence[PieceKey]) -> PieceKey:
    """The piece to start next: required ones first, then the lowest seed, then the longest chain that begins there."""
    return min(ready, key=lambda key: (store.pieces[key[0]].optional, key[1], -_behind(store, key[0])))


def _behind(store: Store, name: str) -> float:
    """Planned seconds of the longest chain of pieces that begins with this one."""
    after = [_behind(store, piece.name) for piece in store.pieces.values() if name in piece.needs]
    return store.pieces[name].seconds + max(after, default=0.0)


def _needs(store: Store, key: PieceKey, among: Sequence[PieceKey]) -> list[PieceKey]:
    """The pieces in `among` that a piece needs."""
    name, seed = key
    return [(needed, seed) for needed in store.pieces[name].needs if (needed, seed) in among]


def _piece_keys_on_disk(store: Store) -> list[PieceKey]:
    folder = store.output / "pieces"
    names = [path.name.rsplit("-", 2) for path in sorted(folder.iterdir())] if folder.is_dir() else []
    return [
        (name_parts[0], int(name_parts[1]))
        for name_parts in names
        if len(name_parts) == 3 and name_parts[0] in store.pieces and name_parts[1].isdigit()
    ]
