"""MMRB2's editing part: both layouts, the published predictions, and pairs that no judge of one picture can see."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from editloop.errors import EditLoopError
from editloop.evaluation.leaks.leaks import _suite_pictures
from editloop.evaluation.suites.answers import SEVERAL_PICTURES, edit_key, judge_suite
from editloop.evaluation.suites.evaluation import evaluate
from editloop.evaluation.suites.opening import open_suite
from editloop.evaluation.suites.page import key_figures, suite_page
from editloop.evaluation.suites.saved_answers import read_scores, read_verdicts
from editloop.evaluation.suites.suite import Comparison
from tests.pixel_judge import PixelJudge, SourcesJudge
from tests.public_suites import HUB_PICTURE, write_parquet

SAMPLE = Path(__file__).parents[1] / "parity" / "suites" / "mmrb2-edit"
"""Six pairs of ours in the published layout, two of them with several source pictures, and a judge's predictions."""
SINGLE = ["emu-edit_0", "hq-edit_2", "text_heavy_edit_3", "risebench_4"]
SEVERAL = ["dreambench_1", "new_synthetic_edit_5"]


def test_the_published_layout_is_read() -> None:
    suite = open_suite("mmrb2-edit", SAMPLE)
    by_key = {item.key: item for item in suite.items}
    assert sorted(by_key) == sorted([*SINGLE, *SEVERAL])
    item = by_key["dreambench_1"]
    assert (item.slice, item.instruction, len(item.references)) == ("dreambench", "Put them on a table.", 1)
    assert item.comparisons == (
        Comparison("dreambench_1", 0, 1, "right"),
        Comparison("dreambench_1|reverse", 1, 0, "left"),
    )
    assert len(by_key["new_synthetic_edit_5"].references) == 2
    assert not by_key["emu-edit_0"].references
    assert not any(item.further for item in suite.items)
    assert open_suite("mmrb2-edit", SAMPLE / "edit.json").sha256 == suite.sha256
    assert len(list(_suite_pictures(suite))) == 6 * 3 + 3, "a leak is looked for in every picture"


def test_the_published_predictions_give_the_worked_out_figures(tmp_path: Path) -> None:
    """Nine judgements of five pairs, seven right; one pair is missing, and one judgement of another."""
    suite = open_suite("mmrb2-edit", SAMPLE)
    report = evaluate(suite, read_verdicts(SAMPLE / "predictions.json", suite)).report
    assert report["accuracy"] == pytest.approx(7 / 9)
    assert report["accuracy_missing_wrong"] == pytest.approx(7 / 12)
    assert report["counts"] == {
        "units": 12,
        "clusters": 6,
        "right": 7,
        "wrong": 2,
        "human_ties": 0,
        "model_ties": 0,
        "both_ties": 0,
        "other_ties": 0,
        "missing": 3,
    }
    assert report["left_out"] == {}
    low, high = report["ci95"]
    assert low < 7 / 9 < high
    assert report["by_task"]["hq-edit"]["accuracy"] == 0.5, "A in both orders is right in one of them"
    assert report["by_task"]["text_heavy_edit"]["accuracy"] == 1, "what is not there is left out of the divisor"
    assert report["by_task"]["risebench"]["accuracy"] is None
    titles = [title for title, _, _ in key_figures(report)]
    assert "Accuracy, missing replies wrong" in titles
    assert "Accuracy without missing replies" not in titles
    assert "mmrb2-edit" in suite_page(report)


def test_scores_count_a_pair_once(tmp_path: Path) -> None:
    suite = open_suite("mmrb2-edit", SAMPLE)
    scores = {"emu-edit_0": (1, 0), "hq-edit_2": (1, 0), "text_heavy_edit_3": (1, 1), "risebench_4": (2, 1)}
    lines = [f"{key},{n},{score}\n" for key, pair in scores.items() for n, score in enumerate(pair)]
    (tmp_path / "scores.csv").write_text("key,candidate,score\n" + "".join(lines))
    evaluation = evaluate(suite, read_scores(tmp_path / "scores.csv", suite))
    assert len(evaluation.outcomes) == evaluation.report["counts"]["units"] == 4
    assert evaluation.report["accuracy"] == 0.5, "two right, one wrong, and a tie, which is wrong"
    assert evaluation.report["tie_rate"] == 0.25
    assert evaluation.report["left_out"] == {SEVERAL_PICTURES: 2}
    (tmp_path / "scores.csv").write_text("key,candidate,score\n" + "".join(lines[2:]))
    with pytest.raises(EditLoopError, match="no score of emu-edit_0 left"):
        read_scores(tmp_path / "scores.csv", suite)


def test_a_judge_of_one_source_is_asked_the_pairs_with_one(tmp_path: Path) -> None:
    suite, judge = open_suite("mmrb2-edit", SAMPLE), PixelJudge()
    answers = judge_suite(suite, judge, tmp_path)
    assert list(answers.scores or {}) == SINGLE
    assert sum(sum(sizes) for sizes in judge.sizes) == 8
    report = evaluate(suite, answers).report
    assert (report["counts"]["units"], report["left_out"]) == (4, {SEVERAL_PICTURES: 2})
    assert SEVERAL_PICTURES in suite_page(report)


def test_a_judge_of_several_sources_is_asked_all_pairs(tmp_path: Path) -> None:
    suite = open_suite("mmrb2-edit", SAMPLE)
    answers = judge_suite(suite, SourcesJudge(), tmp_path)
    assert sorted(answers.scores or {}) == sorted([*SINGLE, *SEVERAL])
    several = [item for item in suite.items if item.references]
    assert len({edit_key(item, edit) for item in several for edit in item.edits}) == 4
    assert edit_key(several[0], several[0].edits[0]) != edit_key(
        replace(several[0], references=()), several[0].edits[0]
    )
    evaluation = evaluate(suite, answers).report
    assert (evaluation["counts"]["units"], evaluation["left_out"]) == (6, {})
    parts = evaluation["by_sources"]
    assert {name: row["n"] for name, row in parts.items()} == {"one source": 4, "several sources": 2}
    one = evaluate(suite, judge_suite(suite, PixelJudge(), tmp_path / "one")).report
    assert parts["one source"]["accuracy"] == one["accuracy"]
    assert "By number of sources" in suite_page(evaluation)
    assert "by_sources" not in one


def test_pairs_that_share_a_source_picture_are_one_cluster(damaged: Path) -> None:
    content = json.loads((damaged / "edit.json").read_text())
    by_id = {pair["id"]: pair for pair in content["pairs"]}
    (shared,) = (part for part in by_id["emu-edit_0"]["prompt_content"] if part[0] == "image")
    prompt = by_id["dreambench_1"]["prompt_content"]
    prompt[max(place for place, part in enumerate(prompt) if part[0] == "image")] = shared
    (damaged / "edit.json").write_text(json.dumps(content))
    suite = open_suite("mmrb2-edit", damaged)
    clusters = {item.key: item.cluster_name for item in suite.items}
    assert clusters["dreambench_1"] == clusters["emu-edit_0"]
    assert len(set(clusters.values())) == len(clusters) - 1


def test_a_prompt_of_more_pictures_than_a_task_may_have_is_left_out(damaged: Path) -> None:
    content = json.loads((damaged / "edit.json").read_text())
    prompt = next(pair for pair in content["pairs"] if pair["id"] == "dreambench_1")["prompt_content"]
    prompt[:0] = [part for part in prompt if part[0] == "image"] * 2
    (damaged / "edit.json").write_text(json.dumps(content))
    item = next(item for item in open_suite("mmrb2-edit", damaged).items if item.key == "dreambench_1")
    assert (len(item.references), len(item.further)) == (0, 5)


def test_the_hubs_parquet_is_the_same_suite(tmp_path: Path) -> None:
    def cells(content: list[list[str]]) -> list[dict[str, Any]]:
        return [{"bytes": (SAMPLE / path).read_bytes(), "path": None} for kind, path in content if kind == "image"]

    rows = []
    for pair in json.loads((SAMPLE / "edit.json").read_text())["pairs"]:
        images = [part for part in pair["prompt_content"] if part[0] == "image"]
        marks = "".join(f"<image_{n}> " for n in range(len(images)))
        rows.append(
            {
                "pair_id": pair["id"],
                "prompt_text": marks + "\n" + pair["prompt_content"][-1][1],
                "prompt_source": pair["prompt_source"],
                "prompt_images": cells(images),
                "response_a_images": cells(pair["response_a"]["response_content"]),
                "response_b_images": cells(pair["response_b"]["response_content"]),
                "chosen": pair["chosen"].lower(),
            }
        )
    columns = dict.fromkeys(("prompt_images", "response_a_images", "response_b_images"), pa.list_(HUB_PICTURE))
    write_parquet(tmp_path / "edit" / "test-00000-of-00001.parquet", rows, columns)
    write_parquet(tmp_path / "t2i" / "test-00000-of-00001.parquet", rows, columns)
    assert open_suite("mmrb2-edit", tmp_path).sha256 == open_suite("mmrb2-edit", SAMPLE).sha256


@pytest.fixture
def damaged(tmp_path: Path) -> Path:
    shutil.copytree(SAMPLE, tmp_path / "suite")
    return tmp_path / "suite"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"chosen": "C"}, "edit.json pair 2: chosen 'C'; there are A, B"),
        ({"prompt_content": None}, "edit.json pair 2: prompt_content and both response_content are lists"),
        ({"response_a": {"response_content": []}}, "edit.json pair 2: a prompt and two responses with a picture each"),
        ({"response_b": None}, "edit.json pair 2: prompt_content and both response_content are lists"),
        ({"prompt_content": [["image", "input_images/hq-edit_2_0.png"]]}, "edit.json pair 2: no text in its prompt"),
        ({"prompt_content": [["image", "none.png"], ["text", "x"]]}, "edit.json pair 2: no picture"),
        ({"id": None}, "edit.json pair 2: no id"),
        ({"prompt_source": ""}, "edit.json pair 2: no prompt_source"),
        ({"id": "emu-edit_0"}, "key emu-edit_0 comes twice"),
    ],
)
def test_a_damaged_pair_is_named(damaged: Path, change: dict[str, Any], said: str) -> None:
    content = json.loads((damaged / "edit.json").read_text())
    content["pairs"][2] |= change
    (damaged / "edit.json").write_text(json.dumps(content))
    with pytest.raises(EditLoopError) as refused:
        open_suite("mmrb2-edit", damaged)
    assert said in str(refused.value)


def test_a_folder_without_either_layout_is_refused(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "edit_response_only.json").write_text("{}")
    with pytest.raises(EditLoopError, match=r"neither edit\.json nor parquet files of the hub's config edit in it"):
        open_suite("mmrb2-edit", tmp_path)


def test_another_tasks_file_is_refused(damaged: Path) -> None:
    (damaged / "edit.json").write_text('{"rows": []}')
    with pytest.raises(EditLoopError, match="no list of objects `pairs` in it"):
        open_suite("mmrb2-edit", damaged)


@pytest.mark.parametrize(
    ("predictions", "said"),
    [
        ({"emu-edit_0": "A"}, "pair emu-edit_0: an object with forward and reverse"),
        ({"emu-edit_0": {"forward": ["A"]}}, "pair emu-edit_0: forward is no list of judgements"),
        ({"emu-edit_9": {"forward": [{"judgement": "A"}]}}, "key emu-edit_9 is not in mmrb2-edit"),
    ],
)
def test_damaged_predictions_name_the_pair(tmp_path: Path, predictions: dict[str, Any], said: str) -> None:
    (tmp_path / "predictions.json").write_text(json.dumps(predictions))
    with pytest.raises(EditLoopError) as refused:
        read_verdicts(tmp_path / "predictions.json", open_suite("mmrb2-edit", SAMPLE))
    assert said in str(refused.value)


def test_only_a_pairs_first_judgement_counts_and_another_word_is_wrong(tmp_path: Path) -> None:
    first = {"forward": [{"judgement": "A"}, {"judgement": "B"}], "reverse": [{"judgement": "both"}]}
    (tmp_path / "predictions.json").write_text(json.dumps({"emu-edit_0": first}))
    suite = open_suite("mmrb2-edit", SAMPLE)
    report = evaluate(suite, read_verdicts(tmp_path / "predictions.json", suite)).report
    assert (report["accuracy"], report["counts"]["missing"]) == (0.5, 10)


def test_verdicts_as_json_lines_name_the_order_by_the_key(tmp_path: Path) -> None:
    lines = [{"key": "emu-edit_0", "verdict": "left"}, {"key": "emu-edit_0|reverse", "verdict": "left"}]
    (tmp_path / "verdicts.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    suite = open_suite("mmrb2-edit", SAMPLE)
    assert evaluate(suite, read_verdicts(tmp_path / "verdicts.jsonl", suite)).report["accuracy"] == 0.5


def test_human_votes_alone_have_both_orders(tmp_path: Path) -> None:
    (tmp_path / "votes.jsonl").write_text('{"key": "p", "label": "left"}\n')
    (tmp_path / "predictions.json").write_text(json.dumps({"p": {"forward": [{"judgement": "A"}]}}))
    suite = open_suite("mmrb2-edit", None, labels=tmp_path / "votes.jsonl")
    report = evaluate(suite, read_verdicts(tmp_path / "predictions.json", suite)).report
    assert (report["accuracy"], report["counts"]["missing"]) == (1.0, 1)
