"""`editloop benchmark-editor`: edits and answers survive a stop, imports, and comparisons of like with like only."""

import itertools
import json
import multiprocessing
import os
import re
import shutil
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from editloop.errors import EditLoopError
from editloop.evaluation.editor_suites import editing
from editloop.evaluation.editor_suites.editing import EditorSampling, edit_seed, find_edit_images, make_edits
from editloop.evaluation.editor_suites.layouts import open_editor_suite
from editloop.evaluation.editor_suites.page import format_change, is_clear, write_result
from editloop.evaluation.editor_suites.result import EditorFacts, compare_results, judge_edits, read_result
from editloop.evaluation.editor_suites.tasks import EditorSuite
from editloop.evaluation.suites.ratios import RatioEstimate
from editloop.models.editors.opening import open_editor
from editloop.models.editors.sampling import edit
from editloop.models.judge_protocol import JudgeWording, Picture
from tests.command_line import command_line
from tests.pixel_judge import PixelJudge
from tests.public_suites import put

TASKS = ("add", "remove", "style")
PROMPTS = ("把红色方块变成蓝色", "make the red square blue")
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
        str(number): {"id": f"s/{number}.jpg", "prompt": PROMPTS[number > 0], "edit_type": TASKS[number % 3]}
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


def page_of(folder: Path) -> str:
    return (folder / "page.html").read_text()


def test_edits_of_a_killed_call_end_as_if_it_was_not(
    suite: EditorSuite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    editor, calls = open_editor("tiny-editor", device="cpu"), list[int]()
    fresh, killed = tmp_path / "fresh", tmp_path / "killed"
    make_edits(suite, editor, "v", fresh, SAMPLING, batch=1)
    assert len(files(fresh)) == 12

    renames, rename = itertools.count(), Path.replace

    def dies_after_five_edits(path: Path, target: Path) -> Path:
        if next(renames) == 6:  # the settings, five edits, and the sixth half written
            os.kill(os.getpid(), signal.SIGKILL)
        return rename(path, target)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "replace", dies_after_five_edits)
        process = multiprocessing.get_context("fork").Process(
            target=make_edits, args=(suite, editor, "v", killed, SAMPLING), kwargs={"batch": 1}
        )
        process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert len(files(killed)) == editing.BATCHES_AT_ONCE + 1

    def counted(*arguments: Any, **options: Any) -> list[Picture]:
        calls.append(len(arguments[1]))
        return edit(*arguments, **options)

    monkeypatch.setattr(editing, "edit", counted)
    make_edits(suite, editor, "v", killed, SAMPLING, batch=1)
    assert files(killed) == files(fresh)
    assert calls == [4, 4]
    make_edits(suite, editor, "v", killed, SAMPLING, batch=1)
    assert len(calls) == 2
    with pytest.raises(EditLoopError, match="seed 3 there, 4 now"):
        make_edits(suite, editor, "v", killed, EditorSampling(steps=2, seed=4))


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
    assert len(re.findall(r'<img[^>]* src="data:image/webp;base64,[^"]{40,}"', page_of(tmp_path / "two-result"))) == 24
    page = page_of(tmp_path / "one-result")
    assert "Compare with results of the same judge and wording only (pixel-judge 111111111111, wording a)" in page
    assert [page.count(f'<p class="instruction">{prompt}</p>') for prompt in PROMPTS] == [1, 10]

    compared = tmp_path / "compared"
    described = facts.model_copy(update={"version": "0123456789abcdef"}).describe()
    write_result(results["two"], suite, images, compared, changes={"all": changes}, against=described)
    page = page_of(compared)
    assert "<h2>Change against theirs (0123456789ab, 2 steps, its own guidance, seed 3)</h2>" in page
    assert page.count('<h3 class="type">') == len(TASKS)
    clear = [row for row in (changes.average, *changes.by_task.values()) if is_clear(row["vq"])]
    assert clear
    for row in clear:
        assert f"<b>{format_change(row['vq'])}</b>" in page

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


def test_changes_have_a_sign_unless_they_are_none_and_are_clear_where_the_interval_excludes_0() -> None:
    values = (0.125, -0.2, 0.001, -0.001, None)
    estimates = [RatioEstimate(value, None) for value in values]
    assert [format_change(estimate) for estimate in estimates] == ["+0.12", "-0.20", "0.00", "0.00", "–"]
    spans = [[0.1, 0.2], [-0.3, -0.1], [-0.1, 0.1], [0.0, 0.2], None]
    assert [is_clear(RatioEstimate(0.1, span)) for span in spans] == [True, True, False, False, False]


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
