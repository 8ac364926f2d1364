"""Best-of-N by judges of several qualities, on one set of edits."""

from editloop.data.edits_file import read_edits
from editloop.evaluation.best_of_n.curve import expected_best
from editloop.evaluation.best_of_n.sampling import sample_edits
from editloop.models.editors.opening import open_editor
from editloop.scoring.opening import open_judge
from editloop.studies.claims.reinforcement import BASE
from editloop.studies.claims.rewards import MODEL
from editloop.studies.claims.store import Figures, PieceContext

DOUBLINGS = (1, 2, 4, 8, 16)
MIDDLE = DOUBLINGS[len(DOUBLINGS) // 2]
JUDGES = {"learnt": "reward-full", "few": "reward-few"}


def measure_best_of_n(work: PieceContext) -> Figures:
    """Share of right edits when the best of N is taken by each judge, and by the oracle (`learnt_4`, `oracle_16`).

    `gain_*`: from N = 1 to the largest; `late_*`: from the middle of the doublings to the largest.
    """
    rows = read_edits(work.needs["world"] / "held-out")[: work.settings.best_of_tasks]
    judges = {name: open_judge(str(work.needs[piece] / MODEL)) for name, piece in JUDGES.items()}
    sampled = sample_edits(open_editor(BASE), rows, judges, edits_per_task=DOUBLINGS[-1], steps=work.settings.steps)
    figures: Figures = {}
    for name, scores in sampled.scores.items():
        curve = {count: float(expected_best(scores, sampled.right, count).mean()) for count in DOUBLINGS}
        figures |= {f"{name}_{count}": value for count, value in curve.items()}
        figures[f"gain_{name}"] = curve[DOUBLINGS[-1]] - curve[1]
        figures[f"late_{name}"] = curve[DOUBLINGS[-1]] - curve[MIDDLE]
    return figures
