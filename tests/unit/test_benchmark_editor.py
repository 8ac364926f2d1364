"""`editloop benchmark-editor`: edits and answers survive a stop, imports, and comparisons of like with like only."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from editloop.errors import EditLoopError
from editloop.evaluation.editor_suites import editing
from editloop.evaluation.editor_suites.editing import EditorSampling, edit_seed, find_edit_images, make_edits
from editloop.evaluation.editor_suites.layouts import open_editor_suite
from editloop.evaluation.editor_suites.page import write_result
from editloop.evaluation.editor_suites.result import EditorFacts, compare_results, judge_edits, read_result
from editloop.evaluation.editor_suites.tasks import EditorSuite
from editloop.models.editors.opening import open_editor
from editloop.models.editors.sampling import edit
from editloop.models.judge_protocol import JudgeWording, Picture
from tests.command_line import command_line
from tests.pixel_judge import PixelJudge
from tests.public_suites import put

TASKS = ("add", "remove", "style")
SAMPLING = EditorSampling(steps=2, seed=3)


class WordedJudge(PixelJudge):
    """A judge that is asked in words."""

    def __init__(self, wording: str) -> None:
        super().__init__()
        self.wording = JudgeWording(wording, is_substitute=False)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve tasks of ImgEdit-Bench's layout, on sources of two sizes."""
    folder = tmp_path_factory.mktemp("data")
    tasks = {
        str(number): {"id": f"s/{number}.jpg", "prompt": "make the red square blue", "edit_type": TASKS[number % 3]}
        for number in range(12)
    }
    for number, task in enumerate(tasks.values()):
        put(folder, task["id"], 20 * number)
    (folder / "basic_edit.json").write_text(json.dumps(tasks))
    return folder


@pytest.fixture(scope="module")
def suite(data: Path) -> EditorSuite:
    return open_editor_suite("imgedit-bench", data)


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.glob("*.png"))}


def test_edits_that_were_stopped_end_as_if_they_were_not(
    suite: EditorSuite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    editor, calls = open_editor("tiny-editor", device="cpu"), list[int]()
    make_edits(suite, editor, "v", tmp_path / "fresh", SAMPLING, batch=1)
    assert len(files(tmp_path / "fresh")) == 12

    def stops(*arguments: Any, **options: Any) -> list[Picture]:
        calls.append(len(arguments[1]))
        if len(calls) == 2:
            raise KeyboardInterrupt
        return edit(*arguments, **options)

    monkeypatch.setattr(editing, "edit", stops)
    with pytest.raises(KeyboardInterrupt):
        make_edits(suite, editor, "v", tmp_path / "stopped", SAMPLING, batch=1)
    assert len(files(tmp_path / "stopped")) == editing.BATCHES_AT_ONCE
    next((tmp_path / "stopped").glob("*.png")).unlink()
    make_edits(suite, editor, "v", tmp_path / "stopped", SAMPLING, batch=1)
    assert files(tmp_path / "stopped") == files(tmp_path / "fresh")
    assert calls == [4, 4, 4, 4, 4]
    make_edits(suite, editor, "v", tmp_path / "stopped", SAMPLING, batch=1)
    assert len(calls) == 5
    with pytest.raises(EditLoopError, match="seed 3 there, 4 now"):
        make_edits(suite, editor, "v", tmp_path / "stopped", EditorSampling(steps=2, seed=4))


def test_a_result_is_written_read_and_compared(suite: EditorSuite, tmp_path: Path) -> None:
    for folder, step in (("one", 0), ("two", 12)):
        for number, task in enumerate(suite.tasks):
            put(tmp_path / folder / "fullset", f"{task.key}.png", 10 * number + step * (number != 5))
    (tmp_path / "one" / "fullset" / "4.png").unlink()
    facts, results = EditorFacts(name="theirs", sampling=SAMPLING), {}
    for folder in ("one", "two"):
        images, out = find_edit_images(suite, tmp_path / folder), tmp_path / f"{folder}-result"
        results[folder] = judge_edits(suite, facts, images, WordedJudge("a"), out / "answers")
        write_result(results[folder], suite, images, out)
        assert read_result(out) == results[folder]
    assert results["one"].missing_reasons() == {"no edit": 1}
    assert results["two"].edits[1].seed == edit_seed(3, "1")
    score = results["two"].edits[0].numbers
    assert score.keys() == {"if", "vq", "overall"}
    changes = compare_results(results["two"], results["one"])["all"]
    assert changes.missing == {"add": 0, "remove": 1, "style": 0}
    expected = np.mean(
        [results["two"].edits[at].numbers["vq"] - results["one"].edits[at].numbers["vq"] for at in (1, 7, 10)]
    )
    assert changes.by_task["remove"]["vq"].value == pytest.approx(expected)
    assert (tmp_path / "two-result" / "sheets" / "style.jpg").stat().st_size > 2000
    page = (tmp_path / "one-result" / "page.html").read_text()
    assert "Compare with results of the same judge and wording only (pixel-judge 111111111111, wording a)" in page

    other = judge_edits(suite, facts, tmp_path / "two" / "fullset", WordedJudge("b"), tmp_path / "b")
    with pytest.raises(EditLoopError, match=r"not compared: .* wording b and by .* wording a\. Scores compare only"):
        compare_results(other, results["one"])
    shorter = results["one"]._replace(facts=results["one"].facts.model_copy(update={"suite_sha256": "0"}))
    with pytest.raises(EditLoopError, match="have other tasks"):
        compare_results(results["two"], shorter)
    with pytest.raises(EditLoopError, match="no result of `editloop benchmark-editor`"):
        read_result(tmp_path)
    with pytest.raises(EditLoopError, match=r"no edit of imgedit-bench in it; the first would be .*0\.png"):
        find_edit_images(suite, tmp_path / "b")


def test_the_command(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    editloop = command_line(capfd, monkeypatch)
    benchmark = ("benchmark-editor", "--suite", "imgedit-bench", "--data", str(data), "--device", "cpu")
    common = (*benchmark, "--judge", "tiny-reward", "--steps", "1")
    report = json.loads(editloop(*common, "--editor", "tiny-editor", "--json", "--out", "first").stdout)
    assert report["figures"] == ["if", "vq", "overall"]
    assert report["editor"]["sampling"] == {"steps": 1, "guidance": None, "seed": 0}
    assert report["tables"]["all"]["by_task"]["add"]["edits"] == 4
    shutil.copytree("first/edits", "copies")
    shown = editloop(*common, "--editor", "copies", "--images", "copies", "--against", "first").stdout
    assert "copies on imgedit-bench, all, change against tiny-editor" in shown
    assert "0.00 to 0.00" in shown
    assert "its published figures come from GPT-4.1 with ImgEdit's questions" in shown
    assert "runs/benchmarks/imgedit-bench-copies-edit-reward-" in shown
