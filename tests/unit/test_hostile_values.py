"""Single values that no honest file, name or answer has, each of which once came through as a traceback or a hang."""

import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from annotation.campaigns.gold import read_gold_answers
from annotation.formats.label_studio_answers import ExportedAnswer, LeftOut, read_answers
from annotation.formats.label_studio_controls import rated_number
from annotation.formats.label_studio_mapping import LabelStudioMapping
from editloop.data.json_rows import read_json_rows
from editloop.data.vocabulary import EditTask
from editloop.errors import EditLoopError
from editloop.evaluation.suites.saved_answers import read_scores
from editloop.lineage.registry import parse_model
from editloop.scoring import retrying_client
from editloop.scoring.server_client import JudgeClientSettings, ServedJudge
from editloop.text_file import is_file_name, whole_number
from editloop.training.edit_score.distillation import read_distillation_rows
from tests.hostile_readers import MAPPING, SUITE, TASK, tiny_editor
from tests.label_studio_projects import EXPORTS

DIGITS_THAT_ARE_NONE = ["²", "٣", "9" * 60, "-1", "1.0", ""]


@pytest.mark.parametrize("text", DIGITS_THAT_ARE_NONE)
def test_what_is_no_number_is_none(text: str) -> None:
    assert whole_number(text) is None
    assert whole_number("9" * 5000) is None
    with pytest.raises(EditLoopError, match="candidate = "):
        read_gold_answers(f"task,candidate,if,vq\nt,{text or '?'},4,4\n", [EditTask.model_validate(TASK)])
    with pytest.raises(EditLoopError, match="not a model's address"):
        parse_model(f"models:/reward/{text}")


def test_numbers_are_numbers() -> None:
    assert [whole_number(text) for text in ("0", "007", "9" * 18)] == [0, 7, 10**18 - 1]
    assert parse_model("models:/reward/12") == ("reward", None, "12")


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "/a", "x" * 256, "é" * 128, "\ud800", "a\0b", "a\nb"])
def test_what_is_no_name_of_a_file(name: str) -> None:
    assert not is_file_name(name)


def test_names_of_files_are_names() -> None:
    assert all(map(is_file_name, ("model.safetensors", "é.json", "x" * 255, "a b", ".hidden")))


@pytest.mark.parametrize("name", ["rows.json", "rows.jsonl"])
def test_half_a_surrogate_pair_is_a_fault_of_its_row(name: str, tmp_path: Path) -> None:
    rows: list[Any] = [{"a": "\ud800"}, {"\udfff": 1}, {"a": "\U0001f600"}]
    text = json.dumps(rows) if name == "rows.json" else "\n".join(map(json.dumps, rows))
    (tmp_path / name).write_text(text)
    read = [row for _, row in read_json_rows(tmp_path / name)]
    assert ["half of a surrogate pair" in row for row in read] == [True, True, False]
    assert read[2] == {"a": "\U0001f600"}


def test_half_a_surrogate_pair_in_a_message_is_shown_and_not_written() -> None:
    assert str(EditLoopError("a \ud800 b")) == r"a \ud800 b"


def test_a_cell_that_is_a_list_of_no_text_stays_a_text(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text('annotation_id,rank\n1,"[""\\ud800""]"\n2,"[""a""]"\n')
    read = [answer for _, answer in read_answers(tmp_path / "x.csv", LeftOut()) if isinstance(answer, ExportedAnswer)]
    assert [answer.data["rank"] for answer in read] == ['["\\ud800"]', ["a"]]


@pytest.mark.parametrize("value", [5, "x", True, {"a": 1}])
def test_drafts_and_predictions_that_are_no_lists_are_not_counted(value: Any, tmp_path: Path) -> None:
    tasks = json.loads((EXPORTS / "words.json").read_bytes())
    (tmp_path / "x.json").write_text(json.dumps([task | {"drafts": value, "predictions": value} for task in tasks]))
    left_out = LeftOut()
    assert all(isinstance(answer, ExportedAnswer) for _, answer in read_answers(tmp_path / "x.json", left_out))
    assert left_out.notes() == []


def test_a_number_that_no_float_holds_is_no_score(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="a number with hundreds of digits"):
        rated_number("stars", 10**400, LabelStudioMapping.model_validate(MAPPING))
    rows = [{"key": "k", "candidate": side, "score": 10**400} for side in ("left", "right")]
    (tmp_path / "scores.jsonl").write_text("\n".join(map(json.dumps, rows)))
    with pytest.raises(EditLoopError, match="is not a finite number"):
        read_scores(tmp_path / "scores.jsonl", SUITE)


@pytest.mark.parametrize("seconds", ["9" * 12, "9" * 400, "²"])
def test_no_server_makes_a_client_wait_longer_than_it_would_by_itself(
    seconds: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retrying_client, "LONGEST_PAUSE", 0.01)
    refusal = httpx.Response(429, headers=[(b"Retry-After", seconds.encode("latin-1"))])
    with pytest.raises(EditLoopError, match="429"):
        ServedJudge("http://judge", JudgeClientSettings(patience=0.1), transport=httpx.MockTransport(lambda _: refusal))


@pytest.mark.parametrize("content", [b"{}\n", b"\xff", b"[" * 5000], ids=["no row", "no UTF-8", "levels"])
def test_damaged_taught_rows_are_one_line(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "taught-train.jsonl").write_bytes(content)
    with pytest.raises(EditLoopError, match=r"taught-train\.jsonl: cannot be read .* Restore it"):
        read_distillation_rows(tmp_path, "train")


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("transformer/config.json", None, "a part cannot be read"),
        ("transformer/config.json", '{"num_layers": "x"}', "a part cannot be read"),
        ("scheduler/scheduler_config.json", "[]", "a part cannot be read"),
        ("vae/config.json", "{}", "a part cannot be read"),
        ("model_index.json", '{"_class_name": "FluxKontextPipeline", "vae": ["diffusers"]}', "a library and a class"),
        ("model_index.json", '{"_class_name": "FluxKontextPipeline", "vae": [[], {}]}', "a library and a class"),
    ],
)
def test_a_damaged_editor_is_one_line_and_nothing_is_fetched(
    name: str, content: str | None, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from editloop.models.editors.opening import outline_editor

    def fetch(*_: object, **__: object) -> None:
        raise AssertionError("something is fetched")

    monkeypatch.setattr(httpx.Client, "send", fetch)
    tiny_editor(tmp_path)
    (tmp_path / name).unlink()
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(EditLoopError, match=words) as caught:
        outline_editor(tmp_path)
    assert "\n" not in str(caught.value)
