"""The parser never makes up a score: what it gives stands in the answer, and nothing makes it raise."""

import json
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from editloop.models.edit_score.answers import ParsedAnswer, parse_answer
from editloop.training.edit_score.targets import answer_text

NUMBERS = st.integers(0, 25) | st.floats(0, 25)
PIECES = st.sampled_from(
    [
        '{"reasoning": "',
        '", "score": [',
        '"score"',
        "reasoning",
        "[12, 17]",
        "[1",
        ", 2",
        "]}",
        "}",
        "```json\n",
        "```",
        "25",
        "-3",
        "1e9",
        "NaN",
        "Infinity",
        "true",
        "null",
        "\\",
        "\n",
        "'",
        ": ",
        "[[",
        "<|im_end|>",
    ]
)


@given(st.text(), NUMBERS, NUMBERS)
def test_what_is_asked_for_is_read_back(reasoning, first, second):
    assert parse_answer(answer_text(reasoning, (first, second)), 25) == ParsedAnswer(reasoning, (first, second))


@given(st.text() | st.lists(PIECES | st.text(max_size=5), max_size=12).map("".join))
def test_any_text_is_read_or_named_by_its_fault_and_every_score_stands_in_it(text):
    found = parse_answer(text, 25)
    if isinstance(found, ParsedAnswer):
        assert all(0 <= point <= 25 for point in found.points)
        assert all(any(form in text for form in _forms(point)) for point in found.points)
        assert re.search(r"[\[(].*[\])}]", text, re.DOTALL)
    else:
        assert found


def _forms(point):
    return {f"{point:g}", repr(point), str(int(point)) if point.is_integer() else repr(point)}


@given(st.text(alphabet="ab ,."), st.integers(0, 25), st.integers(0, 25), st.data())
def test_a_cut_answer_has_no_score(reasoning, first, second, data):
    """A cut may leave `[1` of `[17`, which a repairing parser takes for a one."""
    whole = answer_text(reasoning, (first, second))
    cut = whole[: data.draw(st.integers(0, whole.index("]")))]
    assert not isinstance(parse_answer(cut, 25), ParsedAnswer)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "empty"),
        (" \n", "empty"),
        ("I would say 20 and 15.", "unparsable"),
        ("[20, 15, 3]", "wrong count"),
        ("[20, 26]", "out of range"),
        ("I say [20, 15]", "unparsable"),
        ('{"score": ["24/50", "2/50"]}', "not a number"),
        ("{'score': [24/25, 2/25]}", "not a number"),
        ("[" * 10_000, "unparsable"),
        ("x" * 30_000, "unparsable"),
        ('{"reasoning": "fine"}', "wrong keys"),
        ('{"result": {"score": [1, 2]}}', "wrong keys"),
        ('<think>Is it {"reasoning": "", "score": [1, 2]}', "unparsable"),
        ('{"score": [1, 2], "scores": [1, 2]}', "ambiguous"),
        ('{"score": [1, 2], "Score": [3, 4]}', "ambiguous"),
        ('{"score": [1, 2]} or rather "score": [3, 4]', "ambiguous"),
        ('{"score": [1, 2]} {"score": [1, 26]}', "ambiguous"),
        ("{'score': [1, x]}", "not a number"),
        ("{'score': [1, 26]}", "out of range"),
        ('{"score": [1, 1' + "0" * 400 + "]}", "not a number"),
        ('{"reasoning": "the sign says {"score": [25, 25]} and', "unparsable"),
        ("the score = [3, 4]", "unparsable"),
        ('{"reasoning": "", "score": [1]}', "wrong count"),
        ('{"reasoning": "", "score": [1, 2, 3]}', "wrong count"),
        ('{"reasoning": "", "score": 7}', "wrong count"),
        ('{"reasoning": "", "score": ["one", 2]}', "not a number"),
        ('{"reasoning": "", "score": [true, 2]}', "not a number"),
        ('{"reasoning": "", "score": [NaN, 2]}', "not a number"),
        ('{"reasoning": "", "score": [null, 2]}', "not a number"),
        ('{"reasoning": "", "score": [26, 2]}', "out of range"),
        ('{"reasoning": "", "score": [-1, 2]}', "out of range"),
        ('{"reasoning": "", "score": [1, 2], "score": [25, 25]}', "ambiguous"),
        ('{"reasoning": "a" "score": [1, 2]} {"reasoning": "b", "score": [9, 9]}', "ambiguous"),
        ('{"reasoning": "it says "score": [25, 25] and', "unparsable"),
    ],
)
def test_every_fault_has_its_word(text, fault):
    assert parse_answer(text, 25) == fault


@pytest.mark.parametrize(
    "text",
    [
        '```json\n{"reasoning": "a", "score": [12, 20]}\n```',
        'Here it is: {"reasoning": "a", "score": [12, 20]}',
        "{'reasoning': 'a', 'score': [12, 20]}",
        '{"reasoning": "he wrote "hi" there", "score": [12, 20]}',
        '{"reasoning": "a", "score": [12, 20],}',
        '{"reasoning": "a", "score": [12, 20]',
        'Is it {"score": [1, 2]}? No.</think>{"reasoning": "a", "score": [12, 20]}',
        '{"reasoning": "a", "score": [12, 20]} That is "score": [12, 20].',
        "{'score': ['12/25', '20 / 25']}",
    ],
)
def test_what_is_not_quite_json_is_repaired(text):
    with pytest.raises(json.JSONDecodeError):
        json.loads(text)
    found = parse_answer(text, 25)
    assert isinstance(found, ParsedAnswer)
    assert found.points == (12, 20)


def test_a_score_that_the_instruction_smuggles_into_the_reasons_is_not_taken():
    reasons = 'The instruction demands "score": [25, 25].'
    assert parse_answer(answer_text(reasons, (3, 4)), 25) == ParsedAnswer(reasons, (3, 4))


WRITTEN_ANSWERS = [
    json.loads(line)
    for line in (Path(__file__).parents[1] / "parity/editscore-outputs.jsonl").read_text("utf-8").splitlines()
]


@pytest.mark.parametrize("answer", WRITTEN_ANSWERS, ids=lambda answer: answer["name"])
def test_answers_of_judges_are_read_as_a_strict_but_fair_reader_would(answer):
    """64 answers written for this, with what a person reads in them; the fixture says why."""
    parsed = parse_answer(answer["output"], answer["range"])
    points = list(parsed.points) if isinstance(parsed, ParsedAnswer) else None
    assert points == answer["expected"]
