"""What RL will feel of a reward model: the order of one editor's own edits."""

from pathlib import Path

import numpy as np
import pytest

from components.benchmark import stage
from editloop.datasets.preference_groups import PreferenceGroup
from editloop.errors import EditLoopError
from editloop.evaluation.gates.settings import GateSettings
from editloop.evaluation.suites.answers import SuiteAnswers
from editloop.evaluation.within_group import within_group_correlation


def group(count, target=True, editors=None):
    """Candidates 0, 1, 2, ... go ever further from the source to the target, in the oracle's eyes."""
    source, wanted = np.zeros((8, 8, 3), np.uint8), np.full((8, 8, 3), 200, np.uint8)
    edits = np.stack([np.full((8, 8, 3), 200 * step // (count - 1), np.uint8) for step in range(count)])
    return PreferenceGroup(
        task_id="t",
        task_type="recolour",
        instruction="x",
        candidates=tuple(map(str, range(count))),
        editors=tuple(editors or ("e",) * count),
        source=source,
        target=wanted if target else None,
        edits=edits,
        ratings=np.ones((count, 2), np.float32),
        weights=np.ones((count, count, 2), np.float32),
    )


def answers(*scores) -> SuiteAnswers:
    return SuiteAnswers({"name": "x", "version": "y"}, scores={"t": np.array(scores)})


def opened(tmp_path: Path, **suite: object) -> list[str]:
    """The suites that are measured of a gate whose one suite has no say."""
    gate = GateSettings.model_validate({"name": "ours", "suites": [{"required": False, "minimum": 1, **suite}]})
    return list(stage._open_suites(gate, tmp_path))


def test_a_suite_without_a_say_is_left_out_where_its_data_is_not_here(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert opened(tmp_path, suite="genai-bench", data=str(tmp_path / "none")) == []
    assert f"genai-bench: left out, it has no say ({tmp_path / 'none'} does not exist)" in caplog.text


def test_a_suite_without_a_say_is_not_left_out_for_a_fault(tmp_path: Path) -> None:
    (tmp_path / "train.jsonl").write_text("{")
    with pytest.raises(EditLoopError, match="line 1 is not JSON"):
        opened(tmp_path, suite="genai-bench", data=str(tmp_path))


def test_the_oracles_order_is_a_correlation_of_one_and_the_reverse_of_minus_one():
    assert within_group_correlation(answers(0.0, 1.0, 2.0), [group(3)]) == pytest.approx(1)
    assert within_group_correlation(answers(2.0, 1.0, 0.0), [group(3)]) == pytest.approx(-1)


def test_a_missing_score_is_left_out_and_is_no_number():
    assert within_group_correlation(answers(0.0, np.nan, 2.0, 3.0), [group(4)]) == pytest.approx(1, abs=0.01)
    assert within_group_correlation(answers(0.0, np.nan, np.nan, 3.0), [group(4)]) is None


def test_only_the_editor_with_most_candidates_is_looked_at():
    mixed = group(5, editors=["own", "own", "own", "other", "other"])
    assert within_group_correlation(answers(0.0, 1.0, 2.0, -5.0, -6.0), [mixed]) == pytest.approx(1)


def test_without_an_oracle_or_answers_nothing_is_measured():
    assert within_group_correlation(answers(0.0, 1.0, 2.0), [group(3, target=False)]) is None
    assert within_group_correlation(None, [group(3)]) is None
    assert within_group_correlation(answers(1.0, 1.0, 1.0), [group(3)]) is None  # no order at all
