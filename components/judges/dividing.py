"""A judge refuses a whole batch for one bad edit: what is refused is divided until that edit alone is missing."""

from collections.abc import Sequence

from components.judges.protocol import EditGroup, Judge, JudgeUnavailableError, Score
from infra.errors import EditLoopError


def judged(judge: Judge, groups: Sequence[EditGroup]) -> list[Score]:
    """Scores of the groups' edits, in their order; an edit that the judge refuses alone is missing, with its words.

    JudgeUnavailableError where the judge is away.
    """
    if not groups:
        return []
    try:
        return [score for found in judge.judge(groups) for score in found]
    except JudgeUnavailableError:
        raise
    except EditLoopError as error:
        if len(groups) > 1:
            return [score for group in groups for score in judged(judge, [group])]
        (group,) = groups
        if len(group.edits) > 1:
            alone = [EditGroup(group.instruction, group.source, [edit], group.key) for edit in group.edits]
            return [score for one in alone for score in judged(judge, [one])]
        return [Score(missing=str(error))]
