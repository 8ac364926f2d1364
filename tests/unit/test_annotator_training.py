"""Who passes a training round: by the known ratings, on all pages, with answers as they were first given."""

import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from annotation.campaigns.answer_export import read_export
from annotation.campaigns.answers import progress, read_answers
from annotation.campaigns.campaign import Campaign
from annotation.campaigns.campaign_settings import Training
from annotation.campaigns.labelling import result_of
from annotation.campaigns.record import CampaignRecord
from annotation.campaigns.training import TrainingResult, TrainingState, training_results
from editloop.data.vocabulary import Page

NAMES = {1: "ada", 2: "bo"}
PAGES = {
    key: Page(
        key=key,
        kind="training",
        task_id=f"task-{key}",
        instruction="Make it red.",
        source="s",
        candidates=("x", "y"),
        images=("i", "j"),
        overlap=2,
        expected={"x": {"if": (3, 4), "vq": (3, 4)}, "y": {"if": (1, 2)}},
    )
    for key in ("one", "two")
}
RIGHT, TWO_OF_THREE, WRONG = [(4, 3), (1, 4)], [(4, 2), (1, 1)], [(1, 1), (4, 4)]


def record(passing: float = 0.8, required: bool = True, **given: Any) -> CampaignRecord:
    campaign = Campaign(
        key="k",
        name="kitchen",
        project_id=7,
        url="http://studio/projects/7/data?labeling=1",
        config_sha256="",
        candidates_sha256="",
        pages_sha256="",
        pages=1,
        wanted=1,
        tasks=1,
        places=2,
        tiny=True,
        overlap=1,
        annotators=("ada", "bo"),
        lead=None,
        training=Training(pages=2, passing=passing, required=required),
        gates={},
        seed=0,
    )
    return CampaignRecord(campaign, campaign, {}, NAMES, given.pop("left", {}), {}, "run", {}, training_id=8, **given)


def answer(who: int, levels: list[tuple[int, int]] | str, updated: str = "00.4") -> dict[str, Any]:
    reason = levels if isinstance(levels, str) else None
    ratings = [] if isinstance(levels, str) else [{"if": one, "vq": other} for one, other in levels]
    return {
        "completed_by": who,
        "updated_by": who,
        "import_id": None,
        "lead_time": None,
        "result": result_of(ratings, reason),
        "was_cancelled": False,
        "created_at": "2026-03-02T10:00:00.1Z",
        "updated_at": f"2026-03-02T10:00:{updated}Z",
    }


def results(opened: CampaignRecord | None = None, **answers: list[dict[str, Any]]) -> dict[str, TrainingResult]:
    rows = [
        {
            "id": number,
            "data": {"key": key},
            "annotations": [{"id": 10 * number + place, **one} for place, one in enumerate(given)],
            "total_annotations": len(given),
        }
        for number, (key, given) in enumerate(answers.items(), 1)
    ]
    training = (opened or record()).training
    assert training
    assert training.campaign.url == "http://studio/projects/8/data?labeling=1"
    return training_results(PAGES, read_export(json.dumps(rows).encode()), training)


@pytest.mark.parametrize(
    ("one", "two", "share", "passed"),
    [
        (answer(1, RIGHT), answer(1, RIGHT), 1.0, True),
        (answer(1, RIGHT), answer(1, TWO_OF_THREE), 5 / 6, True),
        (answer(1, TWO_OF_THREE), answer(1, TWO_OF_THREE), 4 / 6, False),
        (answer(1, RIGHT), answer(1, WRONG), 3 / 6, False),
        (answer(1, RIGHT), answer(1, "other"), 3 / 6, False),
        (answer(1, RIGHT), answer(1, RIGHT, updated="30.0"), 3 / 6, False),
    ],
    ids=["right", "a slip", "two slips", "wrong", "cannot judge", "changed afterwards"],
)
def test_the_share_of_known_ratings_decides(one, two, share, passed):
    found = results(one=[one], two=[two])
    assert found["ada"].right == pytest.approx(share)
    assert found["ada"].passed is passed
    assert (found["bo"].answered, found["bo"].right, found["bo"].passed) == (0, None, False)


def test_nobody_passes_before_all_pages_are_answered_and_the_setting_is_the_limit():
    assert not results(one=[answer(2, RIGHT)])["bo"].passed
    slips = {"one": [answer(2, TWO_OF_THREE)], "two": [answer(2, TWO_OF_THREE)]}
    assert not results(**slips)["bo"].passed
    assert results(record(passing=4 / 6), **slips)["bo"].passed


def test_who_passed_once_has_passed_whatever_becomes_of_the_answers():
    found = results(record(passed=frozenset({"bo"})), one=[answer(1, RIGHT)], two=[answer(1, RIGHT)])
    assert {name for name, result in found.items() if result.passed} == {"ada", "bo"}
    assert found["bo"].right is None


def test_only_a_required_training_keeps_answers_from_counting():
    found = results(one=[answer(1, RIGHT)], two=[answer(1, RIGHT)])
    left = {"chi": datetime(2026, 3, 1, tzinfo=UTC), "dia": datetime(2026, 3, 1, tzinfo=UTC)}
    for required, untrained in ((True, {"bo", "dia"}), (False, set())):
        state = TrainingState(url="", deleted=False, passing=0.8, required=required, annotators=found)
        assert state.untrained(record(required=required, left=left, passed=frozenset({"chi"}))) == untrained
    given = [{"id": who, **answer(who, RIGHT)} for who in NAMES]
    row = {"id": 1, "data": {"key": "one"}, "annotations": given, "total_annotations": 2}
    answers = read_answers(read_export(json.dumps([row]).encode()), PAGES, record())
    assert {name for _, name in answers.counting()} == {"ada", "bo"}
    trained = replace(answers, untrained=frozenset({"bo"}))
    assert {name for _, name in trained.counting()} == {"ada"}
    state = progress(record(), PAGES, trained)
    assert (state.annotations, state.untrained, state.repeated) == (1, 1, 0)
