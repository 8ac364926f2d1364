"""What anybody who may log in to Label Studio can send as an answer, or make of a task, and what becomes of it."""

import json
from typing import Any

import pytest

from annotation.campaigns.answer_export import read_export
from annotation.campaigns.answers import extract_judgements, progress, read_answers
from editloop.errors import EditLoopError
from tests.fuzz.targets import campaign_export
from tests.json_changes import deep_value, with_value
from tests.unit.test_answers import page, record

PAGES = {key: page(key) for key in "pq"}
RESULT = (0, "annotations", 0, "result")
"""Place of ada's answer on page p in the export."""
NO_PARTS: dict[str, Any] = {
    "no mapping": 7,
    "nothing": None,
    "a list": [["if_1"]],
    "no name": {"value": {"choices": ["3"]}, "type": "choices"},
    "a list as name": {"from_name": ["if_1"], "value": {"choices": ["3"]}, "type": "choices"},
    "no value": {"from_name": "if_1", "type": "choices"},
    "a value that is none": {"from_name": "if_1", "type": "choices", "value": ["3"]},
    "a choice": {"from_name": "if_1", "type": "choices", "value": {"choices": "3"}},
    "a number": {"from_name": "if_1", "type": "choices", "value": {"choices": [3]}},
    "a list in a list": {"from_name": "if_1", "type": "choices", "value": {"choices": [["3"]]}},
    "a note": {"from_name": "note", "type": "textarea", "value": {"text": 5}},
    "half of a pair": {"from_name": "note", "type": "textarea", "value": {"text": ["\ud800"]}},
    "half of a pair as name": {"from_name": "\udc00", "value": {}},
    "many levels": {"from_name": "note", "type": "textarea", "value": {"text": [], "x": deep_value(300)}},
    "no number": {"from_name": "note", "value": {"x": float("nan")}},
}


def exported(place: tuple[str | int, ...], value: Any) -> bytes:
    tasks = [task for task in campaign_export() if task["data"]["key"] in PAGES]
    tasks[1]["annotations"] = []
    return json.dumps(with_value(tasks, place, value)).encode()


@pytest.mark.parametrize("part", NO_PARTS.values(), ids=NO_PARTS)
def test_what_no_control_says_is_told_and_stops_nothing(part: Any) -> None:
    honest = read_export(exported((), [*json.loads(exported((0, "id"), 1))])).tasks[0].annotations[0]["result"]
    answers = read_answers(read_export(exported(RESULT, [*honest[1:], part])), PAGES, record(PAGES))
    state = progress(record(PAGES), PAGES, answers)
    assert state.annotations == 1  # bo's
    assert state.unfinished == 1
    assert state.faults
    assert {judgement.annotator for judgement in extract_judgements(PAGES, answers)[0]} == {"bo"}
    assert [answer.model_dump_json() for answer in kept(answers)]


def kept(answers: Any) -> list[Any]:
    from annotation.campaigns.lead_queue import Snapshot

    export = read_export(b"[]")
    return Snapshot(export, export, answers, answers).kept_answers()


@pytest.mark.parametrize("seconds", [-1, 1e400, None])
def test_a_time_that_nobody_took_is_unknown(seconds: float | None) -> None:
    export = read_export(exported((0, "annotations", 0, "lead_time"), seconds))
    judged, _ = extract_judgements(PAGES, read_answers(export, PAGES, record(PAGES)))
    assert {judgement.seconds for judgement in judged if judgement.annotator == "ada"} == {None}


@pytest.mark.parametrize(
    ("place", "value", "words"),
    [
        ((0, "data"), None, "task 100 is none that EditLoop reads (data=None: Input should be a valid dictionary)"),
        ((0, "id"), "x", "task x is none that EditLoop reads (id=x: Input should be a valid integer)"),
        ((0,), 5, "task 5 is none that EditLoop reads"),
        ((0, "annotations", 0, "created_at"), "2026-01-01T00:00:00", "should have timezone info"),
        ((0, "annotations", 0, "created_at"), "2026-W01-1T00:00:00Z", "annotations.0.created_at=2026-W01-1T00:00:00Z"),
        ((0, "annotations", 0, "completed_by"), {"id": 1}, "annotations.0.completed_by="),
        ((0, "annotations", 1, "result"), {}, "annotations.1.result={}: Input should be a valid list"),
    ],
)
def test_a_task_that_label_studio_does_not_write_is_named(place: tuple[str | int, ...], value: Any, words: str) -> None:
    with pytest.raises(EditLoopError) as caught:
        read_export(exported(place, value))
    message = str(caught.value)
    assert message.startswith("Label Studio's export: ")
    assert words in message
    assert "\n" not in message


def test_levels_that_python_does_not_read_are_one_line() -> None:
    with pytest.raises(EditLoopError, match=r"too many levels of JSON inside each other .* Delete that"):
        read_export(b"[" + b"[" * 5000 + b"]" * 5001)
