"""What RL will feel of a reward model: the order of one editor's own edits."""

from pathlib import Path

import pytest

from components.benchmark import stage
from editloop.errors import EditLoopError
from editloop.evaluation.gates.settings import GateSettings


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
