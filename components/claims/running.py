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

from components.claims import worker
from components.claims.store import Store
from infra.interruption import uninterrupted
from infra.launch import stop_tree

SECONDS_BETWEEN_LOOKS = 0.2
STOP_SECONDS = 60.0
"""How long a piece that is stopped may take to save what it has."""
ONE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}

Key = tuple[str, int]
"""A piece's name and its seed."""


class State(NamedTuple):
    """How far it is, told whenever a piece begins or ends."""

    done: int
    pieces: int
    ended: Key | None
    """The piece that has just ended."""
    seconds: float
    """What it took."""
    running: list[Key]
    left: float
    """Seconds that the rest takes, by plan and pace so far."""


class Outcome(NamedTuple):
    failed: dict[Key, Path]
    """The log of each piece that failed."""
    waiting: list[Key]
    """Pieces that were not begun: for lack of time, or because what they need has failed."""


class _Running(NamedTuple):
    process: ForkServerProcess
    began: float


def waiting_pieces(store: Store, names: Sequence[str], seeds: Sequence[int]) -> list[Key]:
    """What is not done yet, seed after seed, each piece after those it needs."""
    ordered = store.ordered(list(names))
    return [(name, seed) for seed in seeds for name in ordered if store.figures(name, seed) is None]


def planned(store: Store, waiting: Sequence[Key], processes: int, *, pace: float = 1.0) -> float:
    """Seconds that `waiting` takes, as `run_pieces` would schedule it, when every piece takes `pace` times its plan."""
    ends: dict[Key, float] = {}
    free = [0.0] * processes
    left = list(waiting)
    while left:
        begin = min(free)
        ready = [key for key in left if all(ends.get(one, 0.0) <= begin for one in _needs(store, key, waiting))]
        if not ready:
            free[free.index(begin)] = min(end for end in ends.values() if end > begin)
            continue
        key = _first(store, ready)
        left.remove(key)
        ends[key] = begin + pace * store.pieces[key[0]].seconds
        free[free.index(begin)] = ends[key]
    return max(ends.values(), default=0.0)


def run_pieces(
    store: Store, waiting: Sequence[Key], *, processes: int, seconds: float, tell: Callable[[State], None]
) -> Outcome:
    """Make pieces, `processes` at a time; none is begun that would by plan not end within `seconds` from now.

    A piece that fails takes those with it that need it; the others go on. An interrupt stops what runs; a next call
    goes on there.
    """
    begin, left, running, forks = time.monotonic(), list(waiting), dict[Key, _Running](), _forks(store)
    outcome = Outcome({}, [])
    before = [
        (made.seconds, store.pieces[name].seconds) for name, seed in _all(store) if (made := store.spent(name, seed))
    ]
    spent, plan = sum(one for one, _ in before), sum(one for _, one in before)

    def pace() -> float:
        return spent / plan if plan > 0 else 1.0

    def told(ended: Key | None, took: float) -> None:
        rest = [*running, *left]
        tell(State(len(waiting) - len(rest), len(waiting), ended, took, list(running),
                   planned(store, rest, processes, pace=pace())))  # fmt: skip

    try:
        while left or running:
            for key in [key for key in left if set(_needs(store, key, [*outcome.failed, *outcome.waiting]))]:
                left.remove(key)
                outcome.waiting.append(key)
            blocked = [*left, *running]
            ready = [key for key in left if not _needs(store, key, blocked)]
            while ready and len(running) < processes:
                key = _first(store, ready)
                ready.remove(key)
                left.remove(key)
                if time.monotonic() - begin + pace() * store.pieces[key[0]].seconds > seconds:
                    outcome.waiting.append(key)
                    continue
                running[key] = _Running(_start(forks, store, key), time.monotonic())
                told(None, 0.0)
            time.sleep(SECONDS_BETWEEN_LOOKS)
            for key in [key for key, one in running.items() if one.process.exitcode is not None]:
                one = running.pop(key)
                took = time.monotonic() - one.began
                if store.figures(*key) is None:
                    outcome.failed[key] = log_of(store, key)
                else:
                    spent, plan = spent + took, plan + store.pieces[key[0]].seconds
                told(key, took)
    finally:
        with uninterrupted():
            for one in running.values():
                one.process.terminate()
            for one in running.values():
                if one.process.is_alive():
                    stop_tree(psutil.Process(one.process.pid), STOP_SECONDS)
    return outcome


def log_of(store: Store, key: Key) -> Path:
    """Where a piece's own output goes."""
    return store.folder(*key) / "log.txt"


def _forks(store: Store) -> ForkServerContext:
    """Where forks with the store's catalogue come from; told of one thread before anything is imported there."""
    forks = multiprocessing.get_context("forkserver")
    forks.set_forkserver_preload([store.catalogue])
    kept = {name: os.environ.get(name) for name in ONE_THREAD}
    os.environ.update(ONE_THREAD)
    try:
        forkserver.ensure_running()
    finally:
        for name, value in kept.items():
            os.environ.pop(name)
            if value is not None:
                os.environ[name] = value
    return forks


def _start(forks: ForkServerContext, store: Store, key: Key) -> ForkServerProcess:
    store.work(*key)
    process = forks.Process(target=worker.make, args=(store, *key, log_of(store, key)))
    process.start()
    return process


def _first(store: Store, ready: Sequence[Key]) -> Key:
    """Which of the pieces that could begin does: what verdicts hang on, of the first seed, with most work behind it."""
    return min(ready, key=lambda key: (store.pieces[key[0]].beside, key[1], -_behind(store, key[0])))


def _behind(store: Store, name: str) -> float:
    """Seconds of the longest chain of pieces that begins with this one."""
    after = [_behind(store, one.name) for one in store.pieces.values() if name in one.needs]
    return store.pieces[name].seconds + max(after, default=0.0)


def _needs(store: Store, key: Key, among: Sequence[Key]) -> list[Key]:
    """Those of `among` that a piece needs."""
    name, seed = key
    return [(one, seed) for one in store.pieces[name].needs if (one, seed) in among]


def _all(store: Store) -> list[Key]:
    folder = store.output / "pieces"
    names = [path.name.rsplit("-", 2) for path in sorted(folder.iterdir())] if folder.is_dir() else []
    return [(one[0], int(one[1])) for one in names if len(one) == 3 and one[0] in store.pieces and one[1].isdigit()]
