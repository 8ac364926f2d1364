"""The parsers that `make fuzz` gives random files, given some hundred: without atheris, the same ones each time."""

from pathlib import Path
from random import Random

import pytest

from tests.fuzz.targets import TARGETS
from tests.json_changes import change_text, places_in, value_at, with_value

INPUTS = 150
VALID = {"edits": 3, "answers": 3, "judge-answers": 40, "exports": 18, "weights": 6}
"""How many seeds are read, at least; the others are refused."""


@pytest.mark.parametrize("name", TARGETS)
def test_a_changed_seed_is_read_or_refused(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target, chance = TARGETS[name], Random(0)
    if name == "answers":  # the target puts its own in place
        from annotation.campaigns import answers

        monkeypatch.setattr(answers, "read_kept_answers", answers.read_kept_answers)
    folder = tmp_path / "inputs"
    folder.mkdir()
    parse, refusals = target.open(folder)
    seeds, valid = target.seeds(), 0
    inputs = [*seeds, *(target.mutate(chance.choice(seeds), chance) for _ in range(INPUTS))]
    for number, data in enumerate(inputs):
        try:
            is_valid = parse(data)
        except refusals:
            continue
        valid += is_valid and number < len(seeds)
    assert valid >= VALID[name]


def test_a_changed_document_is_another_one_and_still_json() -> None:
    document = {"a": [1, {"b": "x"}], "c": None}
    assert [value_at(document, place) for place in places_in(document)] == [
        document,
        document["a"],
        1,
        {"b": "x"},
        "x",
        None,
    ]
    assert with_value(document, ("a", 1, "b"), 2) == {"a": [1, {"b": 2}], "c": None}
    assert document["a"] == [1, {"b": "x"}]
    texts = {change_text('{"a": [1, {"b": "x"}], "c": null}', Random(seed)) for seed in range(200)}
    assert len(texts) > 100
    assert change_text("no JSON", Random(0)) == "no JSON"
