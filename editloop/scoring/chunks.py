"""Score edits so that one bad edit does not cost a batch.

A batch that the judge refuses is divided until only the bad edit is missing.
"""

from collections.abc import Sequence
from dataclasses import replace

from editloop.errors import EditLoopError
from editloop.models.judge_protocol import (
    EditGroup,
    Judge,
    JudgeUnavailableError,
    Score,
    no_place_for_references,
    takes_references,
)


def score_in_chunks(judge: Judge, groups: Sequence[EditGroup]) -> list[Score]:
    """Score the edits of all groups.

    If the judge refuses the batch, each group is scored by itself; if it refuses a group, each of its edits is.

    Args:
        judge: The judge to ask.
        groups: The groups to score; may be empty.

    Returns:
        One score per edit, flat, in the groups' order. An edit that the judge refuses by itself has a missing score
        with the judge's message as the reason; so has an edit with reference images that the judge does not read.

    Raises:
        JudgeUnavailableError: The judge cannot be reached.
    """
    can_judge = [takes_references(judge) or not group.references for group in groups]
    judged = iter(_scores(judge, [group for group, can in zip(groups, can_judge, strict=True) if can]))
    return [
        next(judged) if can else Score(missing=no_place_for_references(judge))
        for group, can in zip(groups, can_judge, strict=True)
        for _ in group.edits
    ]


def _scores(judge: Judge, groups: Sequence[EditGroup]) -> list[Score]:
    if not groups:
        return []
    try:
        return [score for group_scores in judge.judge(groups) for score in group_scores]
    except JudgeUnavailableError:
        raise
    except EditLoopError as error:
        if len(groups) > 1:
            return [score for group in groups for score in _scores(judge, [group])]
        (group,) = groups
        if len(group.edits) > 1:
            single_edits = [replace(group, edits=[edit]) for edit in group.edits]
            return [score for single_edit in single_edits for score in _scores(judge, [single_edit])]
        return [Score(missing=str(error))]
