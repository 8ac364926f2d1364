"""Which tasks are in conflict: by the rule, and nothing else."""

from datetime import UTC, datetime

import pytest

from annotation.quality.conflicts import conflicts
from editloop.data.vocabulary import Judgement


def judged(task: str, votes: dict[str, dict[str, tuple[int, int]]]) -> list[Judgement]:
    """{annotator: {candidate: (if, vq)}} as judgements."""
    return [
        Judgement.model_validate(
            {
                "task_id": task,
                "candidate_id": candidate,
                "annotator": who,
                "if": following,
                "vq": quality,
                "position": 0,
                "annotation_id": 1,
                "created_at": datetime(2026, 1, 1, tzinfo=UTC),
            }
        )
        for who, given in votes.items()
        for candidate, (following, quality) in given.items()
    ]


CASES = {
    "one opinion": ({"ada": {"x": (1, 4), "y": (4, 1)}}, []),
    "all agree": ({"ada": {"x": (1, 4), "y": (4, 1)}, "bo": {"x": (1, 4), "y": (4, 1)}}, []),
    "neighbouring levels": ({"ada": {"x": (1, 3), "y": (2, 1)}, "bo": {"x": (2, 2), "y": (1, 1)}}, []),
    "two levels on an axis": (
        {"ada": {"x": (1, 3)}, "bo": {"x": (3, 3)}, "chi": {"x": (2, 3)}},
        ["Instruction following of x: 1 to 3"],
    ),
    "two levels on the other": ({"ada": {"x": (2, 4)}, "bo": {"x": (2, 2)}}, ["Visual quality of x: 2 to 4"]),
    "opposite orders": (
        {"ada": {"x": (3, 3), "y": (2, 2)}, "bo": {"x": (2, 2), "y": (3, 3)}},
        ["x and y are ordered opposite ways"],
    ),
    "an order against a tie": ({"ada": {"x": (3, 3), "y": (2, 2)}, "bo": {"x": (3, 3), "y": (3, 3)}}, []),
    "opposite by a point": ({"ada": {"x": (3, 3), "y": (2, 2)}, "bo": {"x": (3, 2), "y": (3, 3)}}, []),
    "nobody saw both": ({"ada": {"x": (4, 4)}, "bo": {"y": (1, 1)}}, []),
}


@pytest.mark.parametrize("case", CASES)
def test_a_task_is_in_conflict_for_these_reasons(case: str) -> None:
    votes, reasons = CASES[case]
    found = conflicts([*judged("t", votes), *judged("other", {"ada": {"x": (1, 1)}, "bo": {"x": (1, 2)}})])
    assert found == ({"t": reasons} if reasons else {})


def test_reasons_name_no_annotator() -> None:
    votes = {"ada": {"x": (1, 1), "y": (4, 4)}, "bo": {"x": (4, 4), "y": (1, 1)}}
    (reasons,) = conflicts(judged("t", votes)).values()
    assert len(reasons) == 5
    assert not [reason for reason in reasons if "ada" in reason or "bo " in reason]
