"""Best-of-N by judges of several qualities, on one set of edits."""

import numpy as np
from numpy.typing import NDArray

from annotation.formats.edits_file import read_edits
from components.claims.reinforcement import BASE, BATCH
from components.claims.rewards import MODEL
from components.claims.store import Figures, Work
from components.editor_rl.evaluation import HeldOut, judge_scores, oracle_view
from components.editors.opening import open_editor
from components.judges.opening import open_judge

DOUBLINGS = (1, 2, 4, 8, 16)
MIDDLE = DOUBLINGS[len(DOUBLINGS) // 2]
JUDGES = {"learnt": "reward-full", "few": "reward-few"}


def best_of_n(work: Work) -> Figures:
    """Share of right edits when the best of N is taken by each judge, and by the oracle (`learnt_4`, `oracle_16`).

    `gain_*`: from N = 1 to the largest; `late_*`: from the middle of the doublings to the largest.
    """
    editor = open_editor(BASE)
    rows = read_edits(work.needs["world"] / "held-out")[: work.settings.best_of_tasks]
    tasks = HeldOut(rows, editor, steps=work.settings.steps, guidance=1.0, batch=BATCH)
    judges = {name: open_judge(str(work.needs[piece] / MODEL)) for name, piece in JUDGES.items()}
    right: list[NDArray[np.float64]] = []
    scores: dict[str, list[NDArray[np.float64]]] = {"oracle": [], **{name: [] for name in judges}}
    for number in range(DOUBLINGS[-1]):
        edits = tasks.edits(editor, number)
        seen = oracle_view(tasks.cases, edits)
        right.append(seen.right.astype(float))
        scores["oracle"].append(seen.mean)
        for name, judge in judges.items():
            scores[name].append(judge_scores(judge, tasks.cases, edits))
    found: Figures = {}
    for name, one in scores.items():
        curve = {count: best_of(np.stack(one, 1), np.stack(right, 1), count) for count in DOUBLINGS}
        found |= {f"{name}_{count}": value for count, value in curve.items()}
        found[f"gain_{name}"] = curve[DOUBLINGS[-1]] - curve[1]
        found[f"late_{name}"] = curve[DOUBLINGS[-1]] - curve[MIDDLE]
    return found


def best_of(scores: NDArray[np.float64], values: NDArray[np.float64], count: int) -> float:
    """Mean value of the best of `count` edits by their scores, both (tasks, edits).

    Each task's edits are taken in blocks of `count`, so that every N looks at the same edits. A missing score (NaN) is
    never the best; a block without any score takes its first edit.
    """
    blocks = np.where(np.isnan(scores), -np.inf, scores).reshape(-1, count)
    best = blocks.argmax(axis=1)
    return float(values.reshape(-1, count)[np.arange(len(best)), best].mean())
