"""A judge asked all of a suite: once an edit, kept, resumed; and answers that were saved elsewhere."""

import json
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
from PIL import Image

from editloop.data.picture_file import png_bytes
from editloop.errors import EditLoopError
from editloop.evaluation.suites.answers import judge_suite
from editloop.evaluation.suites.evaluation import evaluate
from editloop.evaluation.suites.opening import open_suite
from editloop.evaluation.suites.saved_answers import read_scores, read_verdicts
from editloop.evaluation.suites.suite import PictureRef, Suite
from editloop.models.judge_protocol import AxisScore, EditGroup, JudgeUnavailableError, Score
from tests.pixel_judge import PixelJudge
from tests.public_suites import editscore_row, genai_row, group_rows, write_editscore, write_genai, write_groups


class WordyJudge(PixelJudge):
    """Says what it sees, and goes away after so many calls."""

    axes = ("prompt_following", "consistency")

    def __init__(self, calls: int = 10**9) -> None:
        super().__init__()
        self.calls = calls

    def judge(self, groups: Sequence[EditGroup]) -> list[list[Score]]:
        self.calls -= 1
        if self.calls < 0:
            raise JudgeUnavailableError("gone for lunch")
        return super().judge(groups)

    def score(self, group: EditGroup, edit: np.ndarray) -> Score:
        bright = float(edit[8, 8, 0])
        if bright == 66:
            return Score(missing="no JSON in it", answers=("I would rather not say",))
        axes = {"prompt_following": AxisScore(bright, 1.0), "consistency": AxisScore(255 - bright, 1.0)}
        return Score(axes, AxisScore(bright, 1.0), bright / 100, bright / 255, answers=(f"it is {bright}",))


@pytest.fixture
def bench(tmp_path: Path) -> Suite:
    """One pair on all three dimensions, and another whose worse edit gets no score."""
    rows = [
        editscore_row("p", "subject-add", "prompt_following", 90, 10),
        editscore_row("p", "subject-add", "consistency", 10, 90),
        editscore_row("p", "subject-add", "overall", 90, 10),
        editscore_row("q", "compose", "overall", 90, 66),
    ]
    write_editscore(tmp_path / "bench" / "train.parquet", rows)
    return open_suite("editscore-bench", tmp_path / "bench")


def test_editscores_bench_shows_edits_at_their_sources_size(bench: Suite, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    source, edit = rng.integers(0, 256, (20, 30, 3), np.uint8), rng.integers(0, 256, (17, 16, 3), np.uint8)
    pictures = [
        PictureRef(name, name.lower, partial(png_bytes, Image.fromarray(pixels)))
        for name, pixels in (("s", source), ("e", edit))
    ]
    item = replace(bench.items[0], source=pictures[0], edits=(pictures[1],) * 2, comparisons=())
    seen: list[EditGroup] = []

    class Watching(WordyJudge):
        def judge(self, groups: Sequence[EditGroup]) -> list[list[Score]]:
            seen.extend(groups)
            return super().judge(groups)

    for at_source_size in (True, False):
        items = (replace(item, edits_at_source_size=at_source_size),)
        judge_suite(replace(bench, items=items), Watching(), tmp_path / "answers")
    expected = np.asarray(Image.fromarray(edit).resize((30, 20), Image.Resampling.BICUBIC))
    assert np.array_equal(seen[0].edits[0], expected)
    assert np.array_equal(seen[1].edits[0], edit), "and one size's answers are not those of the other"
    assert all(item.edits_at_source_size for item in bench.items)


def test_an_edit_is_asked_once_and_each_dimension_reads_its_axis(bench: Suite, tmp_path: Path) -> None:
    judge = WordyJudge()
    answers = judge_suite(bench, judge, tmp_path / "answers")
    assert sum(sum(sizes) for sizes in judge.sizes) == 4, "three dimensions of one pair ask its two edits once"
    assert answers.scores is not None
    scores = {key: values.tolist() for key, values in answers.scores.items()}
    assert scores["p-1|p-2|prompt_following"] == [90, 10]
    assert scores["p-1|p-2|consistency"] == [245, 165]
    assert scores["p-1|p-2|overall"] == [90, 10], "the fused score, by which publications rank"
    assert answers.overall is not None
    assert answers.overall["p-1|p-2|overall"].tolist() == [0.9, 0.1]
    assert answers.overall["p-1|p-2|consistency"].tolist() == [245, 165]
    assert scores["q-1|q-2|overall"][0] == 90
    assert np.isnan(scores["q-1|q-2|overall"][1])
    assert answers.reasons == {"no JSON in it": 1}
    report = evaluate(bench, answers).report
    assert report["counts"]["missing"] == 1
    assert report["by_axis"]["overall"]["accuracy"] == pytest.approx((1 + 0) / 2)
    lines = [json.loads(line) for line in (tmp_path / "answers" / "answers.jsonl").read_text().splitlines()]
    assert [line["answers"] for line in lines][-1] == ["I would rather not say"], "a judge's own words are kept"
    assert lines[0]["axes"]["prompt_following"] == [90, 1]


def test_a_stopped_call_goes_on_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("editloop.evaluation.suites.answers.EDITS_A_CALL", 2)
    write_genai(tmp_path / "x.parquet", [genai_row("leftvote", 40 + n, 90 - n, source=n) for n in range(6)])
    suite = open_suite("genai-bench", tmp_path)
    with pytest.raises(JudgeUnavailableError, match="gone for lunch"):
        judge_suite(suite, WordyJudge(calls=2), tmp_path / "answers")
    with (tmp_path / "answers" / "answers.jsonl").open("ab") as stream:
        stream.write(b'{"edit": "cut sho')
    again = WordyJudge()
    resumed = judge_suite(suite, again, tmp_path / "answers")
    assert sum(sum(sizes) for sizes in again.sizes) == 12 - 4, "what was answered is not asked again"
    fresh = judge_suite(suite, WordyJudge(), tmp_path / "other")
    assert resumed.scores is not None
    assert fresh.scores is not None
    assert {key: one.tolist() for key, one in resumed.scores.items()} == {
        key: one.tolist() for key, one in fresh.scores.items()
    }
    assert (tmp_path / "answers" / "answers.jsonl").read_bytes() == (tmp_path / "other" / "answers.jsonl").read_bytes()
    idle = WordyJudge(calls=0)
    judge_suite(suite, idle, tmp_path / "answers")


def test_answers_of_two_judges_or_suites_are_not_mixed(bench: Suite, tmp_path: Path) -> None:
    judge_suite(bench, WordyJudge(), tmp_path / "answers")
    other = WordyJudge()
    other.version = "2" * 64  # type: ignore[misc]
    with pytest.raises(EditLoopError, match=f"version {'1' * 64} there, {'2' * 64} now"):
        judge_suite(bench, other, tmp_path / "answers")
    (tmp_path / "answers" / "answers.jsonl").write_text('{"no": "answer"}\n')
    with pytest.raises(EditLoopError, match="line 1 is no answer"):
        judge_suite(bench, WordyJudge(), tmp_path / "answers")


def test_an_axis_that_a_judge_does_not_have_is_told(bench: Suite, tmp_path: Path) -> None:
    judge = WordyJudge()
    judge.axes = ("beauty",)  # type: ignore[assignment]
    with pytest.raises(EditLoopError, match="no axis for prompt_following; it scores beauty"):
        judge_suite(bench, judge, tmp_path / "answers")


def test_editrewards_heads_are_the_benchs_axes(bench: Suite, tmp_path: Path) -> None:
    answers = judge_suite(bench, PixelJudge(), tmp_path / "answers")
    assert answers.scores is not None
    prompt, consistency, *_ = answers.scores.values()
    assert prompt.tolist() == pytest.approx([90 / 255, 10 / 255], abs=0.01), "if: mean brightness"
    assert consistency.tolist() == pytest.approx([-90 / 255, -10 / 255], abs=0.01), "vq: minus the change"


def test_an_edit_that_the_judge_refuses_costs_itself_alone(tmp_path: Path) -> None:
    rows = [genai_row("leftvote", 200, 10, source=1), genai_row("leftvote", 200, 77, source=2)]
    write_genai(tmp_path / "x.parquet", rows)
    suite = open_suite("genai-bench", tmp_path)

    class Picky(PixelJudge):
        def judge(self, groups: Sequence[EditGroup]) -> list[list[Score]]:
            if any(edit[8, 8, 0] == 77 for group in groups for edit in group.edits):
                raise EditLoopError("an edit is of value 77")
            return super().judge(groups)

    answers = judge_suite(suite, Picky(), tmp_path / "answers")
    assert answers.scores is not None
    assert [np.isnan(one).tolist() for one in answers.scores.values()] == [[False, False], [False, True]]
    assert answers.reasons == {"an edit is of value 77": 1}


SCORES = [("0", "left", 0.5), ("0", "right", 0.1), ("1", "0", 0.2), ("1", "1", None)]


@pytest.fixture
def votes(tmp_path: Path) -> Suite:
    lines = [{"key": str(n), "label": label} for n, label in enumerate(("left", "right"))]
    (tmp_path / "labels.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return open_suite("genai-bench", None, tmp_path / "labels.jsonl")


def write_scores(path: Path, rows: Sequence[tuple[str, str, float | None]]) -> Path:
    """The same rows in the format of the path's ending."""
    if path.suffix == ".csv":
        lines = [",".join("" if cell is None else str(cell) for cell in row) for row in rows]
        path.write_text("\n".join(["key,candidate,score", *lines]) + "\n")
    else:
        records = [dict(zip(("key", "candidate", "score"), row, strict=True)) for row in rows]
        if path.suffix == ".parquet":
            parquet.write_table(pa.Table.from_pylist(records), path)
        else:
            path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


@pytest.mark.parametrize("ending", ["csv", "parquet", "jsonl"])
def test_scores_are_read_from_three_formats_by_name_or_place(votes: Suite, tmp_path: Path, ending: str) -> None:
    answers = read_scores(write_scores(tmp_path / f"mine.{ending}", SCORES), votes)
    assert answers.scores is not None
    assert answers.scores["0"].tolist() == [0.5, 0.1]
    np.testing.assert_array_equal(answers.scores["1"], [0.2, np.nan])
    assert answers.judge["name"] == "mine"
    assert answers.reasons == {"no score in the file": 1}
    report = evaluate(votes, answers).report
    assert (report["accuracy"], report["counts"]["missing"]) == (0.5, 1)
    assert report["accuracy_answered"] == 1.0


@pytest.mark.parametrize("ending", ["csv", "parquet", "jsonl"])
@pytest.mark.parametrize(
    ("rows", "told"),
    [
        (SCORES[:3], "no score of 1 right; leave its score empty"),
        ([*SCORES, ("0", "left", 0.5)], "0 left comes twice"),
        ([*SCORES, ("9", "left", 0.5)], "key 9 is not in genai-bench, whose keys are such as 0, 1"),
        ([*SCORES, ("1", "C", 0.5)], "1 has no candidate C; it has left, right"),
        ([*SCORES[:3], ("1", "right", float("nan"))], "score .*nan.* of 1 right is not a finite number"),
        ([*SCORES[:3], ("1", "right", float("inf"))], "score .*inf.* of 1 right is not a finite number"),
    ],
)
def test_faulty_scores_are_refused(votes: Suite, tmp_path: Path, ending: str, rows: list, told: str) -> None:
    with pytest.raises(EditLoopError, match=told):
        read_scores(write_scores(tmp_path / f"mine.{ending}", rows), votes)


def test_scores_without_a_column_or_of_no_known_format_are_refused(votes: Suite, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("key,score\n0,1\n")
    with pytest.raises(EditLoopError, match="no column candidate; it has key, score"):
        read_scores(tmp_path / "a.csv", votes)
    (tmp_path / "a.xls").write_text("")
    with pytest.raises(EditLoopError, match=r"scores are a \.csv, \.tsv, \.parquet or \.jsonl file"):
        read_scores(tmp_path / "a.xls", votes)
    with pytest.raises(EditLoopError, match="no such file"):
        read_scores(tmp_path / "b.csv", votes)


def test_verdicts_may_be_missing_and_must_be_known_words(votes: Suite, tmp_path: Path) -> None:
    path = tmp_path / "verdicts.jsonl"
    for lines, missing in (('{"key": "0", "verdict": "left"}\n', 1), ('{"key": 0, "verdict": null}\n', 2)):
        path.write_text(lines)
        answers = read_verdicts(path, votes)
        assert answers.reasons == {"no verdict in the file": missing}
        assert evaluate(votes, answers).report["counts"]["missing"] == missing
    for line, told in (
        ('{"key": "0", "verdict": "up"}', "verdict 'up'; there are left, right, both_bad, tie"),
        ('{"key": "7", "verdict": "tie"}', "key 7 is not in genai-bench"),
        ('{"key": "0", "verdict": "tie"}\n{"key": "0", "verdict": "tie"}', "key 0 comes twice"),
        ('{"key": "0"}', "verdict ''"),
        ("{", "line 1 is not JSON"),
        ("", "no verdicts in it"),
    ):
        path.write_text(line + "\n")
        with pytest.raises(EditLoopError, match=told):
            read_verdicts(path, votes)


def test_groups_take_verdicts_by_row_and_scores_by_letter(tmp_path: Path) -> None:
    write_groups(tmp_path / "x.parquet", group_rows("g", "C>A>B", [1, 2, 3]))
    suite = open_suite("editreward-bench", tmp_path)
    path = write_scores(tmp_path / "s.csv", [("g", "A", 2), ("g", "B", 1), ("g", "C", 3)])
    assert evaluate(suite, read_scores(path, suite)).report["accuracy"] == 1
    verdicts = {"g_AvsB": "left", "g_AvsC": "right", "g_BvsC": "left"}
    lines = [json.dumps({"key": key, "verdict": word}) + "\n" for key, word in verdicts.items()]
    (tmp_path / "v.jsonl").write_text("".join(lines))
    assert evaluate(suite, read_verdicts(tmp_path / "v.jsonl", suite)).report["accuracy"] == 0
