"""A failed step of a local run is told in its own words, not by the end of its traceback."""

from pathlib import Path

import pytest

from editloop.errors import EditLoopError
from pipelines.local import failure_message, run_local


@pytest.mark.slow("starts a step as a process of its own")
def test_a_failed_step_says_its_own_message(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The real runner and a real step, whose input is a folder without a manifest."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    (tmp_path / "prompts").mkdir()
    (tmp_path / "prompts" / "manifest.json").write_text("no JSON")
    folder = str(tmp_path / "prompts")
    with pytest.raises(EditLoopError) as raised:
        run_local("improve-editor", {"edits_to_practise": folder, "edits_held_out": folder}, tmp_path / "run")
    first, *others = str(raised.value).splitlines()
    assert first.startswith("improve-editor, step improve-editor-preflight: improve-editor: 1 fault")
    assert "Traceback" not in str(raised.value)
    assert "The whole log is" in others[-1]


def test_a_step_that_was_killed_is_told_in_one_line(tmp_path: Path) -> None:
    log = tmp_path / "train-reward.log"
    log.write_text("    {\n" + '        "metrics": {}\n' * 40 + "    }\nTask 'reward' finished with status FAILURE\n")
    error = "Pipeline 'train-reward' finished with status FAILURE. Inner task failed: 'reward' inside 'condition-1'."
    first, *others = failure_message("train-reward", error, log).splitlines()
    assert first == (
        "train-reward, step reward: it ended without a word, as a process that was killed, or that memory ran out for. "
        "Run it again."
    )
    assert others == [f"The whole log is {log}; finished steps are kept."]
    log.write_text("    Traceback (most recent call last)\n    ValueError: a defect\n")
    assert "ValueError: a defect" in failure_message("train-reward", error, log)
