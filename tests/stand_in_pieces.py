"""Pieces that measure nothing real, in no time: what the scheduler of the claims is tested with."""

import os
import time
from pathlib import Path

from editloop.studies.claims.store import Figures, Piece, PieceContext


def first(work: PieceContext) -> Figures:
    """Says when it began and ended, and with how many threads."""
    begun = time.time()
    time.sleep(0.3)
    (work.folder / "left").write_text("for the next")
    return {
        "seed": float(work.seed),
        "begun": begun,
        "ended": time.time(),
        "threads": float(os.environ["OMP_NUM_THREADS"]),
    }


def second(work: PieceContext) -> Figures:
    """Needs what the first left; fails while its folder's neighbour `fail` is there."""
    if (work.folder.parent.parent / "fail").exists():
        raise ValueError("planted")
    return {"letters": float(len((work.needs["first"] / "left").read_text())), "begun": time.time()}


def slow(work: PieceContext) -> Figures:
    """Never ends by itself; asked to, it says so."""
    (work.folder.parent.parent / "slow-began").touch()
    try:
        time.sleep(600)
    except KeyboardInterrupt:
        Path(work.folder.parent.parent / "slow-stopped").touch()
        raise
    return {}


PIECES = {
    piece.name: piece
    for piece in (
        Piece("first", first, 1, (), ("tasks",)),
        Piece("beside", first, 1, (), ("tasks",)),
        Piece("second", second, 1, ("first",), ("steps",)),
        Piece("third", second, 1, ("first", "second"), ()),
        Piece("extra", first, 1, (), ("tasks",), optional=True),
        Piece("slow", slow, 50),
    )
}
