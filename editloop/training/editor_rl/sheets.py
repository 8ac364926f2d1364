"""Contact sheets of an evaluation: the first held-out tasks, and the tasks that changed most for better and worse."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from editloop.content import write_file
from editloop.data.picture_file import png_bytes
from editloop.data.picture_size import Picture
from editloop.evaluation.editors import EvaluationTask
from editloop.pages.contact_sheet import contact_sheet

SHEETS = "sheets"
"""Folder of the sheets, one per evaluation."""
SHOWN, EXTREMES = 12, 4
"""Number of tasks on a sheet, always the first held-out ones; and of best and of worst changes."""


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
    """Write the sheets of an evaluation.

    Args:
        folder: Folder to write to.
        step: Number of iterations done.
        cases: T held-out tasks.
        base: The base editor's edit of each task.
        now: The present editor's edit of each task.
        judge: Name of the judge of the scores, for captions.
        before: Scores of the base editor's edits, (T,); NaN where missing.
        after: Scores of the present edits, (T,); NaN where missing. Tasks without both scores are neither best nor
            worst.

    Returns:
        File within `folder` of each sheet, by caption.
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
        references = [cases[at].references for at in places]
        sheet = contact_sheet([cases[at].instruction for at in places], columns, notes, references)
        write_file(folder / file, png_bytes(sheet))
        written[caption] = file
    return written


def _note(judge: str, before: float, after: float) -> str:
    score_texts = ["missing" if np.isnan(score) else f"{score:.2f}" for score in (before, after)]
    return f"{judge}: {score_texts[0]}, now {score_texts[1]}"
