"""Pieces side by side, a process with one thread each: planned, watched, and gone on with after a stop.

Their processes are forks of one that has imported everything already: that takes 8 seconds of a core.
"""

import multiprocessing
import os
import time
from collections.abc import Callable, Sequence
from multiprocessing import forkserver
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path
from typing import NamedTuple

import psutil

from editloop.interruption import defer_signals
from editloop.processes import stop_tree
from editloop.studies.claims import worker
from editloop.studies.claims.store import Store

SECONDS_BETWEEN_LOOKS = 0.2
STOP_SECONDS = 60.0
"""How long a piece that is stopped may take to save what it has."""
ONE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}

PieceKey = tuple[str, int]
"""A piece's name and its seed."""


class PiecesProgress(NamedTuple):
    """How far it is, told whenever a piece begins or ends."""

    done: int
    pieces: int
    ended: PieceKey | None
    """The piece that has just ended."""
    seconds: float
    """What it took."""
    running: list[PieceKey]
    left: float
    """Seconds that the rest takes, by plan and pace so far."""


class UnfinishedPieces(NamedTuple):
    failed: dict[PieceKey, Path]
    """The log of each piece that failed."""
    waiting: list[PieceKey]
    """Pieces that were not begun: for lack of time, or because what they need has failed."""


class _Running(NamedTuple):
    process: ForkServerProcess
    began: float


def waiting_pieces(store: Store, names: Sequence[str], seeds: Sequence[int]) -> list[PieceKey]:
    """What is not done yet, seed after seed, each piece after those it needs."""
    ordered = store.ordered(list(names))
    return [(name, seed) for seed in seeds for name in ordered if store.figures(name, seed) is None]


def planned_seconds(store: Store, waiting: Sequence[PieceKey], processes: int, *, pace: float = 1.0) -> float:
    """Seconds that `waiting` takes, as `run_pieces` would schedule it, when every piece takes `pace` times its plan."""
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
    """Make pieces, `processes` at a time; none is begun that would by plan not end within `seconds` from now.

    A piece that fails takes those with it that need it; the others go on. An interrupt stops what runs; a next call
    goes on there.
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
        tell(
            PiecesProgress(
                len(waiting) - len(rest),
                len(waiting),
                ended,
                duration,
                list(running),
                planned_seconds(store, rest, processes, pace=pace()),
            )
        )

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
    """Where a piece's own output goes."""
    return store.folder(*key) / "log.txt"


def _forks(store: Store) -> ForkServerContext:
    """Where forks with the store's catalogue come from; told of one thread before anything is imported there."""
    forks = multiprocessing.get_context("forkserver")
    forks.set_forkserver_preload([store.catalogue])
    previous = {name: os.environ.get(name) for name in ONE_THREAD}
    os.environ.update(ONE_THREAD)
    try:
        forkserver.ensure_running()
    finally:
        for name, value in previous.items():
            os.environ.pop(name)
            if value is not None:
                os.environ[name] = value
    return forks


def _start(forks: ForkServerContext, store: Store, key: PieceKey) -> ForkServerProcess:
    store.work(*key)
    process = forks.Process(target=worker.make_piece, args=(store, *key, log_path(store, key)))
    process.start()
    return process


def _first(store: Store, ready: Sequence[PieceKey]) -> PieceKey:
    """Which of the pieces that could begin does: what verdicts hang on, of the first seed, with most work behind it."""
    return min(ready, key=lambda key: (store.pieces[key[0]].optional, key[1], -_behind(store, key[0])))


def _behind(store: Store, name: str) -> float:
    """Seconds of the longest chain of pieces that begins with this one."""
    after = [_behind(store, piece.name) for piece in store.pieces.values() if name in piece.needs]
    return store.pieces[name].seconds + max(after, default=0.0)


def _needs(store: Store, key: PieceKey, among: Sequence[PieceKey]) -> list[PieceKey]:
    """Those of `among` that a piece needs."""
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
