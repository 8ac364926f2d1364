"""Scores of many edits: nothing lost, mixed or made up, whatever stops the call; the same file as an unbroken one."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as parquet
import pytest
from PIL import Image

from editloop.content import read_manifest
from editloop.data.edits_file import read_edits
from editloop.data.edits_stream import stream_edits, survey_edits
from editloop.data.picture_file import file_picture_sha256
from editloop.errors import EditLoopError
from editloop.models.judge_protocol import EditGroup, JudgeUnavailableError, Score
from editloop.scoring.best_of import keep_best
from editloop.scoring.opening import find_local, open_judge
from editloop.scoring.score_file import ScoringSettings, score_edits
from editloop.scoring.score_table import ScoreParts, read_facts
from tests.pixel_judge import INFINITE, UNJUDGEABLE, PixelJudge

SETTINGS = ScoringSettings(part_tasks=3, batch_edits=4)


def write_edits(folder: Path, tasks: int, candidates: int = 3, side: int = 16) -> Path:
    """An edits file of noise pictures."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    lines = []
    for task in range(tasks):
        names = [f"{task}-{place}.png" for place in range(candidates + 1)]
        for name in names:
            Image.fromarray(rng.integers(0, 256, size=(side, side, 3), dtype=np.uint8)).save(folder / name)
        made = [{"image": name, "editor": f"editor-{place}"} for place, name in enumerate(names[1:])]
        lines.append({"id": f"t{task}", "instruction": f"do {task}", "source": names[0], "candidates": made})
    path = folder / "edits.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


@pytest.fixture
def edits(tmp_path: Path) -> Path:
    return write_edits(tmp_path / "edits", tasks=10)


def rows(path: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = parquet.read_table(path).to_pylist()
    return found


def own_scores(edits: Path) -> dict[tuple[str, int], Score]:
    """What the judge itself says, asked task by task."""
    found = {}
    for task in read_edits(edits):
        pictures = [np.asarray(Image.open(given.image)) for given in task.candidates]
        group = EditGroup(task.instruction, np.asarray(Image.open(task.source)), pictures)
        (scores,) = PixelJudge().judge([group])
        found |= {(task.id, place): score for place, score in enumerate(scores)}
    return found


class StopsJudge(PixelJudge):
    """Is away after so many calls."""

    def __init__(self, calls: int):
        super().__init__()
        self.calls = calls

    def judge(self, groups: Sequence[EditGroup]) -> list[list[Score]]:
        if len(self.sizes) >= self.calls:
            raise JudgeUnavailableError("http://judge: 503, no worker")
        return super().judge(groups)


def test_every_edit_has_the_judges_own_score_in_the_inputs_order(edits: Path, tmp_path: Path) -> None:
    judge, output = PixelJudge(), tmp_path / "scores.parquet"
    summary = score_edits(judge, edits, output, SETTINGS)
    own, found = own_scores(edits), rows(output)
    assert [(row["id"], row["candidate"]) for row in found] == list(own)
    for row, score in zip(found, own.values(), strict=True):
        assert score.fused is not None
        assert (row["overall"], row["reward"], row["missing"]) == (score.overall, score.reward, None)
        assert (row["fused_mean"], row["vq_sigma"]) == (score.fused.mean, score.axes["vq"].sigma)
        assert row["image_sha256"] == file_picture_sha256(edits.parent / row["image"])
    assert (summary.tasks, summary.edits, summary.missing) == (10, 30, 0)
    assert max(sum(sizes) for sizes in judge.sizes) <= 4, "memory is bounded by the batch, not by tasks"
    assert read_facts(output)["version"] == judge.version


@pytest.mark.parametrize("calls", [0, 1, 4, 6])
def test_a_stopped_call_goes_on_and_gives_the_same_file(edits: Path, tmp_path: Path, calls: int) -> None:
    score_edits(PixelJudge(), edits, tmp_path / "unbroken.parquet", SETTINGS)
    output = tmp_path / "scores.parquet"
    stopped = StopsJudge(calls)
    with pytest.raises(JudgeUnavailableError):
        score_edits(stopped, edits, output, SETTINGS)
    assert not output.exists()
    resumed = PixelJudge()
    score_edits(resumed, edits, output, SETTINGS)
    assert output.read_bytes() == (tmp_path / "unbroken.parquet").read_bytes()
    parts = calls // 3  # three tasks of three edits in batches of four
    assert sum(map(sum, resumed.sizes)) == 30 - 9 * parts, "what was done is not done again"
    assert not ScoreParts(output, {}, ()).folder.exists()


def test_a_table_of_many_parts_has_few_row_groups(edits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a reader holds of each row group would be more than the rows, at a million of them."""
    score_edits(PixelJudge(), edits, tmp_path / "one.parquet", SETTINGS)
    assert parquet.ParquetFile(tmp_path / "one.parquet").num_row_groups == 1
    monkeypatch.setattr("editloop.scoring.score_table.GROUP_ROWS", 15)
    score_edits(PixelJudge(), edits, tmp_path / "two.parquet", SETTINGS)
    file = parquet.ParquetFile(tmp_path / "two.parquet")
    assert [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)] == [18, 12]
    assert rows(tmp_path / "two.parquet") == rows(tmp_path / "one.parquet")


def test_a_killed_call_goes_on_and_gives_the_same_file(tmp_path: Path) -> None:
    edits, output = write_edits(tmp_path / "edits", tasks=30), tmp_path / "scores.parquet"
    call = (
        "import sys, time; from pathlib import Path\n"
        "from tests.pixel_judge import PixelJudge; from editloop.scoring.score_file import *\n"
        "class Slow(PixelJudge):\n"
        "    def judge(self, groups): time.sleep(0.05); return super().judge(groups)\n"
        "score_edits(Slow(), Path(sys.argv[1]), Path(sys.argv[2]), ScoringSettings(part_tasks=3, batch_edits=4))"
    )
    process = subprocess.Popen([sys.executable, "-c", call, str(edits), str(output)], stdout=subprocess.DEVNULL)
    folder = ScoreParts(output, {}, ()).folder
    while len(list(folder.glob("part-*.parquet"))) < 2:
        assert process.poll() is None
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    judge = PixelJudge()
    score_edits(judge, edits, output, SETTINGS)
    assert sum(map(sum, judge.sizes)) < 90
    score_edits(PixelJudge(), edits, tmp_path / "unbroken.parquet", SETTINGS)
    assert output.read_bytes() == (tmp_path / "unbroken.parquet").read_bytes()


def test_what_is_done_is_not_done_again(edits: Path, tmp_path: Path) -> None:
    output = tmp_path / "scores.parquet"
    first = score_edits(PixelJudge(), edits, output, SETTINGS)
    judge = PixelJudge()
    assert score_edits(judge, edits, output, SETTINGS) == first
    assert judge.sizes == []


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize("change", ["model", "input", "setting"])
def test_scores_of_something_else_are_not_mixed_in(edits: Path, tmp_path: Path, change: str, whole: bool) -> None:
    output = tmp_path / "scores.parquet"
    if whole:
        score_edits(PixelJudge(), edits, output, SETTINGS)
    else:
        with pytest.raises(JudgeUnavailableError):
            score_edits(StopsJudge(4), edits, output, SETTINGS)
    judge, settings = PixelJudge(), SETTINGS
    if change == "model":
        judge.version = "2" * 64
    elif change == "input":
        edits.write_text(edits.read_text().replace("do 3", "undo 3"))
    else:
        settings = SETTINGS.model_copy(update={"best_of": 2})
    with pytest.raises(EditLoopError, match=r"not mixed.*--out"):
        score_edits(judge, edits, output, settings)
    assert judge.sizes == []


def test_a_picture_that_was_mended_is_scored_and_a_changed_one_again(edits: Path, tmp_path: Path) -> None:
    output, settings = tmp_path / "scores.parquet", SETTINGS.model_copy(update={"most_missing": 0.5})
    good = (edits.parent / "1-2.png").read_bytes()
    (edits.parent / "1-2.png").unlink()
    with pytest.raises(JudgeUnavailableError):
        score_edits(StopsJudge(7), edits, output, settings)
    time.sleep(0.05)
    (edits.parent / "1-2.png").write_bytes(good)
    (edits.parent / "4-1.png").write_bytes((edits.parent / "5-1.png").read_bytes())
    score_edits(PixelJudge(), edits, output, settings)
    own = own_scores(edits)
    assert [row["overall"] for row in rows(output)] == [score.overall for score in own.values()]


def test_a_broken_picture_costs_its_own_row_alone(edits: Path, tmp_path: Path) -> None:
    folder, output = edits.parent, tmp_path / "scores.parquet"
    own = own_scores(edits)
    (folder / "0-1.png").unlink()
    (folder / "2-2.png").write_bytes((folder / "2-2.png").read_bytes()[:100])
    (folder / "4-0.png").write_bytes(b"no picture")
    Image.fromarray(UNJUDGEABLE).save(folder / "6-3.png")
    Image.fromarray(INFINITE).save(folder / "8-1.png")
    summary = score_edits(PixelJudge(), edits, output, SETTINGS.model_copy(update={"most_missing": 0.3}))
    missing = {(row["id"], row["candidate"]): row["missing"] for row in rows(output) if row["missing"]}
    assert {place: text.split()[0] for place, text in missing.items()} == {
        ("t0", 0): "image:",
        ("t2", 1): "image:",
        ("t4", 0): "source:",
        ("t4", 1): "source:",
        ("t4", 2): "source:",
        ("t6", 2): "an",
        ("t8", 0): "the",
    }
    for row in rows(output):
        place = (row["id"], row["candidate"])
        assert row["overall"] == (None if place in missing else own[place].overall)
        assert (row["if_mean"] is None) == (row["reward"] is None) == (place in missing)
    assert summary.missing == 7
    assert summary.reasons["source: not a readable PNG, JPEG, WebP or AVIF picture (unknown format)"] == 3


def test_too_many_missing_end_the_call_with_the_commonest_reason(edits: Path, tmp_path: Path) -> None:
    for task in range(4, 10):
        (edits.parent / f"{task}-1.png").unlink()
    output = tmp_path / "scores.parquet"
    with pytest.raises(EditLoopError, match=r"4 of 30 edits.*--most-missing.*4 x image: no such file"):
        score_edits(PixelJudge(), edits, output, SETTINGS)
    assert score_edits(PixelJudge(), edits, output, SETTINGS.model_copy(update={"most_missing": 0.2})).missing == 6


def test_a_task_larger_than_a_batch_is_divided(tmp_path: Path) -> None:
    edits = write_edits(tmp_path / "edits", tasks=2, candidates=11)
    judge = PixelJudge()
    score_edits(judge, edits, tmp_path / "scores.parquet", SETTINGS)
    assert max(sum(sizes) for sizes in judge.sizes) <= 4
    assert [row["overall"] for row in rows(tmp_path / "scores.parquet")] == [
        score.overall for score in own_scores(edits).values()
    ]


def test_pixels_bound_a_batch_too(tmp_path: Path) -> None:
    edits = write_edits(tmp_path / "edits", tasks=4, candidates=2, side=600)
    judge = PixelJudge()
    score_edits(judge, edits, tmp_path / "scores.parquet", ScoringSettings(batch_megapixels=1))
    assert max(sum(sizes) for sizes in judge.sizes) <= 2


def test_the_best_of_the_first_candidates_is_kept(edits: Path, tmp_path: Path) -> None:
    output, folder = tmp_path / "scores.parquet", tmp_path / "scores-best"
    (edits.parent / "7-1.png").unlink()
    for place in (1, 2):
        (edits.parent / f"5-{place}.png").unlink()
    settings = SETTINGS.model_copy(update={"best_of": 2, "most_missing": 0.5})
    own = {}
    score_edits(PixelJudge(), edits, output, settings)
    assert keep_best(edits, output, 2, folder) == (9, 1)
    read_manifest(folder, check=True)
    for row in rows(output):
        assert row["candidate"] < 2
        if row["overall"] is not None:
            own.setdefault(row["id"], []).append((row["overall"], row["image_sha256"], row["editor"]))
    kept = read_edits(folder)
    assert [one.id for one in kept] == list(own) == [f"t{task}" for task in range(10) if task != 5]
    for one in kept:
        _, digest, editor = max(own[one.id])
        (given,) = one.candidates
        assert (file_picture_sha256(given.image), given.editor) == (digest, editor)


def test_of_two_equal_candidates_the_first_is_the_best(tmp_path: Path) -> None:
    edits = write_edits(tmp_path / "edits", tasks=1)
    same = (edits.parent / "0-1.png").read_bytes()
    for place in (2, 3):
        (edits.parent / f"0-{place}.png").write_bytes(same)
    score_edits(PixelJudge(), edits, tmp_path / "s.parquet", SETTINGS)
    keep_best(edits, tmp_path / "s.parquet", 3, tmp_path / "best")
    assert read_edits(tmp_path / "best")[0].candidates[0].editor == "editor-0"


def test_a_stream_reads_what_reading_at_once_reads(edits: Path) -> None:
    assert list(stream_edits(edits)) == read_edits(edits)
    survey = survey_edits(edits)
    assert (survey.tasks, survey.candidates) == (10, 30)
    assert survey_edits(edits, 2).candidates == 20


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda line: line | {"id": "t0"}, "t1 = |already used at"),
        (lambda line: line | {"source": "../secret.png"}, "leaves the folder"),
        (lambda line: line | {"candidates": [{"image": "/etc/passwd", "editor": "x"}]}, "leaves the folder"),
        (lambda line: line | {"colour": "red"}, "unknown key"),
        (lambda line: line | {"instruction": "x" * 2001}, "2000"),
        (lambda line: "{", "not one JSON object"),
    ],
)
def test_a_fault_in_a_line_is_named_before_anything_is_scored(
    edits: Path, tmp_path: Path, change: Any, words: str
) -> None:
    lines = [json.loads(line) for line in edits.read_text().splitlines()]
    lines[1] = change(lines[1])
    edits.write_text("".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines))
    judge = PixelJudge()
    with pytest.raises(EditLoopError, match=words) as caught:
        score_edits(judge, edits, tmp_path / "scores.parquet", SETTINGS)
    assert "edits.jsonl:2" in str(caught.value)
    assert judge.sizes == []
    assert not list(tmp_path.glob("scores*"))


def test_memory_does_not_grow_with_the_input(tmp_path: Path) -> None:
    call = (
        "import sys; from pathlib import Path\n"
        "from tests.pixel_judge import PixelJudge; from editloop.scoring.score_file import *\n"
        "from tests.performance.bench import peak_megabytes\n"
        "score_edits(PixelJudge(), Path(sys.argv[1]), Path(sys.argv[1] + '.parquet'), ScoringSettings(batch_edits=8))\n"
        "print(peak_megabytes())"
    )
    peaks = []
    for tasks in (20, 200):
        edits = write_edits(tmp_path / str(tasks), tasks=tasks, candidates=4, side=160)
        done = subprocess.run([sys.executable, "-c", call, str(edits)], capture_output=True, text=True, check=True)
        peaks.append(float(done.stdout.split()[-1]))
    pictures = 200 * 5 * 160 * 160 * 3 / 2**20
    assert peaks[1] - peaks[0] < 0.3 * pictures, "tenfold edits, far less than their pixels more memory"


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ("no-such-model", "no such model"),
        ("tests/unit", "neither reward.json"),
        ("http://127.0.0.1:9", "given up after"),
        ("openai:ftp://x#y", "http"),
        ("openai:http://127.0.0.1:9/v1", "#MODEL"),
    ],
)
def test_what_is_no_model_is_told(model: str, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDITLOOP_JUDGE_PATIENCE", "0.2")
    with pytest.raises(EditLoopError, match=words):
        open_judge(model)


def test_a_shipped_name_is_found_without_torch() -> None:
    assert find_local("tiny-reward").kind == "edit-reward"
    call = (
        "import sys; from editloop.scoring.opening import find_local\n"
        "find_local('tiny-reward'); print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", call], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
