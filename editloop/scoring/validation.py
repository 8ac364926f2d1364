"""A score is whole and finite, or it is missing: what is checked before a score is written or sent."""

import math
from collections.abc import Sequence

from editloop.models.judge_protocol import Score


def validate_scores(score: Score, axes: Sequence[str]) -> Score:
    """The score as it is, or a missing one with the reason where a number is absent, not finite, or of another axis."""
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
