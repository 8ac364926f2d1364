"""A judge refuses a whole batch for one bad edit: what is refused is divided until that edit alone is missing."""

from collections.abc import Sequence

from editloop.errors import EditLoopError
from editloop.models.judge_protocol import EditGroup, Judge, JudgeUnavailableError, Score


def score_in_chunks(judge: Judge, groups: Sequence[EditGroup]) -> list[Score]:
    """Scores of the groups' edits, in their order; an edit that the judge refuses alone is missing, with its words.

    JudgeUnavailableError where the judge is away.
    """
    if not groups:
        return []
    try:
        return [score for group_scores in judge.judge(groups) for score in group_scores]
    except JudgeUnavailableError:
        raise
    except EditLoopError as error:
        if len(groups) > 1:
            return [score for group in groups for score in score_in_chunks(judge, [group])]
        (group,) = groups
        if len(group.edits) > 1:
            single_edits = [EditGroup(group.instruction, group.source, [edit], group.key) for edit in group.edits]
            return [score for single_edit in single_edits for score in score_in_chunks(judge, [single_edit])]
        return [Score(missing=str(error))]
