"""EditReward-Compass: its layout, its figures by hand, and judges that have no score of one of its dimensions."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from editloop.errors import EditLoopError
from editloop.evaluation.suites.answers import judge_suite
from editloop.evaluation.suites.evaluation import evaluate
from editloop.evaluation.suites.opening import open_suite
from editloop.evaluation.suites.page import suite_page
from editloop.evaluation.suites.saved_answers import read_scores, read_verdicts
from editloop.models.judge_protocol import AxisScore, EditGroup, Score
from tests.pixel_judge import PixelJudge

SAMPLE = Path(__file__).parents[1] / "parity" / "suites" / "editreward-compass"
"""Eight pairs of ours in the published layout, and a judge's scores of them."""


def saved_scores(folder: Path, rows: Sequence[tuple[int, float, float]]) -> Path:
    """A score file of pairs: index, the winner's score and the loser's."""
    path = folder / "scores.csv"
    lines = [f"{key},left,{winner!r}\n{key},right,{loser!r}\n" for key, winner, loser in rows]
    path.write_text("key,candidate,score\n" + "".join(lines))
    return path


@pytest.fixture
def of_sample(tmp_path: Path) -> Path:
    """The sample's scores as a score file."""
    pairs = json.loads((SAMPLE / "scores.json").read_text())
    return saved_scores(tmp_path, [(index, pair["winner"], pair["loser"]) for index, pair in enumerate(pairs)])


def test_the_published_layout_is_read(tmp_path: Path) -> None:
    suite = open_suite("editreward-compass", SAMPLE)
    assert [item.key for item in suite.items] == [str(index) for index in range(8)]
    assert [item.slice for item in suite.items] == ["IA"] * 4 + ["VC"] * 2 + ["VQ"] * 2
    assert [item.axis for item in suite.items] == ["prompt_following"] * 4 + ["consistency"] * 2 + ["quality"] * 2
    labels = ["left", "left", "tie", "tie", "left", "left", "tie", "left"]
    assert [item.comparisons[0].label for item in suite.items] == labels
    assert len({item.cluster_name for item in suite.items}) == 2, "pairs of one source picture are one cluster"
    assert open_suite("editreward-compass", SAMPLE / "reward_eval.json").sha256 == suite.sha256


def test_the_samples_figures_are_the_worked_out_ones(of_sample: Path) -> None:
    """Differences 2, 0 | ties 0, -1e-7 || -3, 7 || tie -0.5, 0.5: IA 3 of 4, VC 1 of 2, VQ 1 of 2, and 5 of 8."""
    suite = open_suite("editreward-compass", SAMPLE)
    report = evaluate(suite, read_scores(of_sample, suite)).report
    assert report["accuracy"] == 0.625
    assert {name: (row["accuracy"], row["n"]) for name, row in report["by_task"].items()} == {
        "IA": (0.75, 4),
        "VC": (0.5, 2),
        "VQ": (0.5, 2),
    }
    assert {name: row["accuracy"] for name, row in report["by_axis"].items()} == {
        "prompt_following": 0.75,
        "consistency": 0.5,
        "quality": 0.5,
    }
    counted = {name: report["counts"][name] for name in ("right", "wrong", "both_ties", "model_ties", "human_ties")}
    assert counted == {"right": 3, "wrong": 1, "both_ties": 2, "model_ties": 1, "human_ties": 1}
    assert report["tie_rate"] == pytest.approx(3 / 8)
    assert (report["threshold"]["published"], report["threshold"]["fitted"]) == (1e-5, False)
    low, high = report["ci95"]
    assert low < 0.625 < high
    page = suite_page(report)
    assert "must differ by less than" in page
    assert "<h2>By task</h2>" in page
    assert "<h2>By axis</h2>" not in page, "the dimensions stand there once"


@pytest.mark.parametrize(
    ("difference", "right"), [(0.0, 1.0), (9.9e-6, 1.0), (1e-5, 0.0), (-9.9e-6, 1.0), (-1e-5, 0.0)]
)
def test_a_tie_is_right_below_the_published_difference_only(tmp_path: Path, difference: float, right: float) -> None:
    write_rows(tmp_path, [row("IA", "tie")])
    suite = open_suite("editreward-compass", tmp_path)
    assert (
        evaluate(suite, read_scores(saved_scores(tmp_path, [(0, difference, 0.0)]), suite)).report["accuracy"] == right
    )


@pytest.mark.parametrize(("difference", "right"), [(9.9e-6, 1.0), (0.0, 0.0), (-9.9e-6, 0.0)])
def test_a_preference_is_right_by_any_difference(tmp_path: Path, difference: float, right: float) -> None:
    write_rows(tmp_path, [row("IA", "preference")])
    suite = open_suite("editreward-compass", tmp_path)
    assert (
        evaluate(suite, read_scores(saved_scores(tmp_path, [(0, difference, 0.0)]), suite)).report["accuracy"] == right
    )


def test_continuous_scores_get_their_ties_with_a_held_out_threshold(tmp_path: Path) -> None:
    write_rows(tmp_path, [row("IA", "tie" if n % 2 else "preference", source=n % 9) for n in range(18)])
    suite = open_suite("editreward-compass", tmp_path)
    rows = [(n, 0.1 if n % 2 else 1.0, 0.0) for n in range(18)]
    report = evaluate(suite, read_scores(saved_scores(tmp_path, rows), suite)).report
    assert report["accuracy"] == 0.5, "no tie is right by the published threshold"
    assert report["threshold"]["accuracy_held_out"] == 1


def row(dimension: str, label: str, source: int = 0) -> dict[str, Any]:
    return {
        "dimension": dimension,
        "source_image": f"{source}.png",
        "prompt": "make it brighter",
        "winner": "1.png",
        "loser": "2.png",
        "label": label,
    }


def write_rows(folder: Path, rows: Sequence[dict[str, Any]]) -> None:
    for picture in SAMPLE.glob("*.png"):
        shutil.copy(picture, folder)
    (folder / "reward_eval.json").write_text(json.dumps(rows))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"dimension": "IQ"}, "reward_eval.json row 1: dimension 'IQ'; there are IA, VC, VQ"),
        ({"label": "winner"}, "reward_eval.json row 1: label 'winner'; there are preference, tie"),
        ({"prompt": None}, "reward_eval.json row 1: no prompt"),
        ({"loser": "none.png"}, "reward_eval.json row 1: no picture"),
        ({"winner": "../1.png"}, "reward_eval.json row 1: '../1.png' is not a path below"),
        ({"winner": None}, "reward_eval.json row 1: '' is not a path below"),
    ],
)
def test_a_damaged_row_is_named(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    write_rows(tmp_path, [row("IA", "tie"), row("VC", "preference") | change])
    with pytest.raises(EditLoopError) as refused:
        open_suite("editreward-compass", tmp_path)
    assert said in str(refused.value)


def test_a_folder_without_its_file_says_which(tmp_path: Path) -> None:
    with pytest.raises(EditLoopError, match=r"reward_eval\.json: no such file"):
        open_suite("editreward-compass", tmp_path)


class AxesJudge(PixelJudge):
    """Scores each of its axes by the edit's brightness times the axis's sign."""

    def __init__(self, signs: dict[str, float]) -> None:
        super().__init__()
        self.signs, self.axes = signs, tuple(signs)  # type: ignore[assignment]

    def score(self, group: EditGroup, edit: np.ndarray) -> Score:
        bright = float(edit.mean())
        axes = {name: AxisScore(sign * bright, 1.0) for name, sign in self.signs.items()}
        return Score(axes, AxisScore(bright, 1.0), bright, 0.5)


def test_a_judge_without_consistency_is_measured_on_the_other_dimensions(tmp_path: Path) -> None:
    suite = open_suite("editreward-compass", SAMPLE)
    answers = judge_suite(suite, AxesJudge({"if": 1.0, "vq": -1.0}), tmp_path)
    assert list(answers.left_out) == ["4", "5"]
    evaluation = evaluate(suite, answers)
    assert evaluation.report["counts"]["units"] == len(evaluation.outcomes) == 6
    assert evaluation.report["by_task"].keys() == {"IA", "VQ"}
    (reason,) = evaluation.report["left_out"]
    assert evaluation.report["left_out"] == {reason: 2}
    assert "no axis for consistency" in reason
    assert reason in suite_page(evaluation.report)
    assert evaluation.report["suite_sha256"] == suite.sha256


def test_quality_is_the_lesser_of_naturalness_and_artefacts(tmp_path: Path) -> None:
    suite = open_suite("editreward-compass", SAMPLE)
    signs = {"prompt_following": 1.0, "consistency": 1.0, "naturalness": 1.0, "artefacts": -1.0}
    answers = judge_suite(suite, AxesJudge(signs), tmp_path)
    assert not answers.left_out
    assert answers.scores is not None
    assert (answers.scores["0"] > 0).all(), "instruction adherence"
    assert (answers.scores["7"] < 0).all(), "quality"


def test_a_judge_of_none_of_its_dimensions_is_refused(tmp_path: Path) -> None:
    suite = open_suite("editreward-compass", SAMPLE)
    with pytest.raises(EditLoopError, match="no axis for prompt_following; it scores answer, and prompt_following is"):
        judge_suite(suite, AxesJudge({"answer": 1.0}), tmp_path)


def test_a_score_file_may_leave_out_a_dimension_and_not_a_part_of_one(tmp_path: Path) -> None:
    suite = open_suite("editreward-compass", SAMPLE)
    without_consistency = [(n, 1.0, 0.0) for n in (0, 1, 2, 3, 6, 7)]
    answers = read_scores(saved_scores(tmp_path, without_consistency), suite)
    assert evaluate(suite, answers).report["left_out"] == {"no score of consistency in the file": 2}
    with pytest.raises(EditLoopError, match="no score of 7 left"):
        read_scores(saved_scores(tmp_path, without_consistency[:-1]), suite)


def test_verdicts_with_ties_are_compared_word_by_word(tmp_path: Path) -> None:
    suite = open_suite("editreward-compass", SAMPLE)
    words = ["left", "right", "tie", "left", "left", "tie", "tie", None]
    lines = [json.dumps({"key": str(n), "verdict": word}) + "\n" for n, word in enumerate(words)]
    (tmp_path / "verdicts.jsonl").write_text("".join(lines))
    report = evaluate(suite, read_verdicts(tmp_path / "verdicts.jsonl", suite)).report
    assert report["accuracy"] == pytest.approx(4 / 8)
    assert report["accuracy_answered"] == pytest.approx(4 / 7)
