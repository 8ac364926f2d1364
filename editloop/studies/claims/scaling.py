"""Measures best-of-N by judges of several qualities, on the same edits."""

from editloop.data.edits_file import read_edits
from editloop.evaluation.best_of_n.curve import expected_best
from editloop.evaluation.best_of_n.sampling import sample_edits
from editloop.models.editors.opening import open_editor
from editloop.scoring.opening import open_judge
from editloop.studies.claims.reinforcement import BASE
from editloop.studies.claims.rewards import MODEL
from editloop.studies.claims.store import Figures, PieceContext

DOUBLINGS = (1, 2, 4, 8, 16)
"""The values of N."""
MIDDLE = DOUBLINGS[len(DOUBLINGS) // 2]
JUDGES = {"learnt": "reward-full", "few": "reward-few"}
"""Pieces that trained the judges, by the judge's name in the figures."""


def measure_best_of_n(work: PieceContext) -> Figures:
    """Measure the share of right edits if the best of N is chosen by each judge, or by the oracle.

    Args:
        work: Inputs of the piece.

    Returns:
        JUDGE_N, as learnt_4 and oracle_16: share of right edits, 0..1. gain_JUDGE: difference between the largest N and
        N = 1. late_JUDGE: difference between the largest N and the middle value of N.
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
