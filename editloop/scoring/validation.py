"""Validation of a judge's scores before they are written or sent: a score is complete and finite, or it is missing."""

import math
from collections.abc import Sequence

from editloop.models.judge_protocol import Score


def validate_scores(score: Score, axes: Sequence[str]) -> Score:
    """Return the score if it is complete and finite, else a missing score with the reason.

    Args:
        score: The judge's score; a missing one is returned without numbers.
        axes: The axes that it must have, in this order.
    """
    if score.missing:
        return Score(missing=score.missing, answers=score.answers)
    if list(score.axes) != list(axes) or score.fused is None or score.overall is None or score.reward is None:
        reason = f"the judge left out a number; it scores {', '.join(axes)}, fused, overall and reward"
        return Score(missing=reason, answers=score.answers)
    beliefs = [*score.axes.values(), score.fused]
    numbers = [number for belief in beliefs for number in (belief.mean, belief.sigma)]
    if not all(math.isfinite(number) for number in (*numbers, score.overall, score.reward)):
        return Score(missing="the judge's score is not a finite number", answers=score.answers)
    return score
