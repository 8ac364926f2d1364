"""Contact sheets of an evaluation: the same first tasks each time, and those that changed most for better and worse."""

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from editloop.content import write_file
from editloop.data.picture_size import Picture
from editloop.evaluation.editors import EvaluationTask
from editloop.pages.contact_sheet import contact_sheet

SHEETS = "sheets"
"""Folder of the sheets of all evaluations."""
SHOWN, EXTREMES = 12, 4
"""Tasks on the sheet, always the first of the held-out ones; and the best and the worst."""


def write_sheets(
    folder: Path,
    step: int,
    cases: Sequence[EvaluationTask],
    base: Sequence[Picture],
    now: Sequence[Picture],
    judge: str,
    before: NDArray[np.float64],
    after: NDArray[np.float64],
) -> dict[str, str]:
    """Write the sheets of the evaluation after `step` iterations into `folder`; returns file by caption.

    before, after: (T,) scores by the judge called `judge`, of the base editor and now; tasks without both are neither
    best nor worst.
    """
    change = after - before
    order = [int(at) for at in np.argsort(-change, kind="stable") if np.isfinite(change[at])]
    few = min(EXTREMES, len(order) // 2)
    chosen = {
        f"The first held-out tasks, after {step} iterations": (
            f"{SHEETS}/{step:06d}.png",
            range(min(SHOWN, len(cases))),
        ),
        f"Best changes, by {judge}": ("best.png", order[:few]),
        f"Worst changes, by {judge}": ("worst.png", order[len(order) - few :][::-1]),
    }
    written: dict[str, str] = {}
    for caption, (file, places) in chosen.items():
        if not len(places):
            continue
        targets = [target for at in places if (target := cases[at].wanted) is not None]
        columns = {"source": [cases[at].source for at in places], "base": [base[at] for at in places]}
        columns |= {"now": [now[at] for at in places]} | ({"wanted": targets} if len(targets) == len(places) else {})
        notes = [_note(judge, before[at], after[at]) for at in places]
        sheet = contact_sheet([cases[at].instruction for at in places], columns, notes)
        _write(sheet, folder / file)
        written[caption] = file
    return written


def _note(judge: str, before: float, after: float) -> str:
    score_texts = ["missing" if np.isnan(score) else f"{score:.2f}" for score in (before, after)]
    return f"{judge}: {score_texts[0]}, now {score_texts[1]}"


def _write(sheet: Image.Image, path: Path) -> None:
    buffer = io.BytesIO()
    sheet.save(buffer, format="PNG")
    write_file(path, buffer.getvalue())
