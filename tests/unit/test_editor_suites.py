"""The benchmarks of editors: their published layouts are read, and their figures are those worked out by hand."""

import json
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from editloop.errors import EditLoopError
from editloop.evaluation.editor_suites.figures import (
    GEDIT_FIGURES,
    ScoredEdit,
    figure_changes,
    figures_of_score,
    suite_figures,
)
from editloop.evaluation.editor_suites.layouts import open_editor_suite
from editloop.models.edit_score.scores import average_passes
from editloop.models.edit_score.settings import AXES
from editloop.scoring.aspect_answers import read_aspects
from editloop.scoring.endpoint_questions import ChatReply
from editloop.scoring.judge_file import read_judge_file
from editloop.scoring.line_answers import read_score_lines
from editloop.scoring.rating_judges import LineJudge
from tests.public_suites import put

PARITY = Path(__file__).parents[1] / "parity" / "suites"
EXPECTED = json.loads((PARITY / "expected.json").read_text())


def scored(key: str, task: str, tables: tuple[str, ...], numbers: Mapping[str, float], cluster: str = "") -> ScoredEdit:
    return ScoredEdit(key, cluster or key, task, tables, 0, numbers, "" if numbers else "no score")


@pytest.fixture(scope="module")
def imgedit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tasks of the published layout, with a picture for each source."""
    folder = tmp_path_factory.mktemp("imgedit")
    text = (PARITY / "imgedit" / "basic_edit.json").read_text()
    (folder / "basic_edit.json").write_text(text)
    for number, task in enumerate(json.loads(text).values()):
        put(folder, task["id"], 20 * number)
    return folder


def test_figures_of_gedit_bench_are_the_published_reduction() -> None:
    suite = open_editor_suite("gedit-bench", PARITY / "gedit-bench.parquet")
    assert len(suite.tasks) == 54
    assert suite.edits_at_source_size
    judgements = [json.loads(line) for line in (PARITY / "gedit-judgements.jsonl").read_text().splitlines()]
    points = {f"{row['task_type']}/{row['language']}/{row['key']}": (*row["SC"], *row["PQ"]) for row in judgements}
    edits = []
    for task in suite.tasks:
        score = average_passes([points[task.key]], top=10, least_share=0.5)
        assert score.fused is not None
        numbers = figures_of_score({axis: score.axes[axis].mean for axis in AXES}, score.fused.mean, 0.0)
        edits.append(scored(task.key, task.task, task.tables, numbers, task.source.sha256))
    figures = suite_figures(edits, GEDIT_FIGURES)
    assert figures.keys() == EXPECTED["gedit-bench"].keys()
    for name, expected in EXPECTED["gedit-bench"].items():
        table = figures[name]
        by_task = {task: [row[figure].value for figure in GEDIT_FIGURES] for task, row in table.by_task.items()}
        assert by_task.keys() == expected["by task (SC, PQ, O)"].keys()
        for task, values in expected["by task (SC, PQ, O)"].items():
            assert by_task[task] == pytest.approx(values, abs=1e-6)
        average = [table.average[figure].value for figure in GEDIT_FIGURES]
        assert average == pytest.approx(expected["average (SC, PQ, O)"], abs=1e-6)
        ends = table.average["O"].ci95
        assert ends
        assert ends[0] < expected["average (SC, PQ, O)"][2] < ends[1]


def test_figures_of_imgedit_bench_from_the_texts_of_a_judge(imgedit: Path) -> None:
    suite, judge = open_editor_suite("imgedit-bench", imgedit), LineJudge(kind="lines", text="{instruction}?")
    texts = json.loads((PARITY / "imgedit" / "result.json").read_text())
    scores = {task.key: judge.score([ChatReply(texts[task.key])]) for task in suite.tasks}
    assert {key: score.overall for key, score in scores.items()} == {
        key: value if value is None else pytest.approx(value, abs=1e-5)
        for key, value in EXPECTED["imgedit-bench"].items()
    }
    assert scores["9"].missing == "1 of 1 passes gave no score: unparsable 1"
    assert scores["10"].reward == 1.0
    assert scores["41"].reward == 0.0
    edits = [
        scored(
            task.key,
            task.task,
            task.tables,
            {} if scores[task.key].missing else {"overall": scores[task.key].overall or 0},
        )
        for task in suite.tasks
    ]
    table = suite_figures(edits, ["overall"])["all"]
    by_type = EXPECTED["imgedit by type of the reference"] | {"remove": 8 / 3}  # the reference drops its `3/5`
    measured = {task: row["overall"].value for task, row in table.by_task.items() if row["overall"].value is not None}
    assert measured == {task: pytest.approx(value, abs=0.006) for task, value in by_type.items()}
    assert table.average["overall"].value == pytest.approx(np.mean(list(measured.values())))
    assert table.missing == {task: int(task == "extract") for task in table.by_task}


@pytest.mark.parametrize(
    ("answer", "scores"),
    [
        ("A: 5\nB: 4\nC: 3.", [5, 4, 3]),
        ("<think>A: 1\nB: 1\nC: 1</think>- **A**: 5/5\n- **B:** 4\n- C: 3", [5, 4, 3]),
        ("Scores:\nA: 5\n\n\u3000B:\n 4 / 5\n> C : __3__", [5, 4, 3]),
        ("A: 5\nB: 4", "unparsable"),
        ("A: 5\nB: 4\nC: 3\nD: 3", "ambiguous"),
        ("A: 5\nA: 4\nC: 3", "ambiguous"),
        ("A: 6\nB: 4\nC: 3", "out of range"),
        ("A: 5/10\nB: 4\nC: 3", "out of range"),
        ("<think>A: 5\nB: 4\nC: 3", "unparsable"),
        (" ", "empty"),
    ],
)
def test_lines_are_read_strictly_but_fairly(answer: str, scores: list[float] | str) -> None:
    found = read_score_lines(answer, 3, 1, 5)
    assert (found if isinstance(found, str) else list(found.values())) == scores


@pytest.mark.parametrize("part", ["x", " ", "\n", "*", "x ", "* ", "score ", "score:", "9", "9/"])
def test_an_answer_that_a_hostile_judge_makes_takes_no_longer_than_another(part: str) -> None:
    answer = "A" + part * (49_000 // len(part)) + ": 5x"
    began = time.process_time()
    assert read_score_lines(answer, 1, 1, 5) == "unparsable"
    assert read_aspects(answer, {"a": "A"}, 1, 5) == "unparsable"
    assert time.process_time() - began < 1


def test_a_judge_of_lines_asks_by_the_type_of_task(tmp_path: Path) -> None:
    (tmp_path / "judge.yaml").write_text(
        "kind: lines\ntasks: {add: 'Was {instruction} added?', style: '{instruction}: style?'}\n"
    )
    judge = read_judge_file(tmp_path / "judge.yaml")
    assert isinstance(judge, LineJudge)
    assert judge.for_task("style").ask("as an etching")[0].parts[-1].text == "as an etching: style?"
    with pytest.raises(EditLoopError, match="no question for task remove; add it to `tasks`"):
        judge.for_task("remove")
    with pytest.raises(EditLoopError, match="questions by type of task only"):
        judge.ask("as an etching")
    other = judge.model_copy(update={"tasks": {"add": "{instruction}?", "style": "{instruction}?"}})
    assert other.wording != judge.wording


def test_edit_compass_has_its_parts_and_languages(tmp_path: Path) -> None:
    put(tmp_path, "images/a.png", 10)
    task = {
        "save_id": 7,
        "source_image": "images/a.png",
        "prompt_en": "add a cup",
        "prompt_cn": "加一个杯子",
        "IF": True,
    }
    for part, name in (("Part1", "ADD"), ("Part5", "Virtual_Try_On")):
        folder = tmp_path / part / name
        folder.mkdir(parents=True)
        (folder / f"{name}.json").write_text(json.dumps([task]))
    suite = open_editor_suite("edit-compass", tmp_path)
    assert [(task.key, task.task, task.tables) for task in suite.tasks] == [
        ("en/Part1/ADD/7", "Part1/ADD", ("en",)),
        ("cn/Part1/ADD/7", "Part1/ADD", ("cn",)),
    ]


def test_faults_of_a_benchmark_are_listed_before_anything_is_edited(imgedit: Path, tmp_path: Path) -> None:
    tasks = json.loads((imgedit / "basic_edit.json").read_text())
    tasks |= {"../out": tasks["3"], "50": {**tasks["3"], "edit_type": "melt"}, "51": {"id": "no.jpg", "prompt": "x"}}
    (tmp_path / "basic_edit.json").write_text(json.dumps(tasks))
    with pytest.raises(EditLoopError) as caught:
        open_editor_suite("imgedit-bench", tmp_path)
    for fault in ("no picture", "edit_type 'melt'; there are add", "51: edit_type: Field required"):
        assert fault in str(caught.value)
    for source in imgedit.glob("*/*"):
        put(tmp_path, str(source.relative_to(imgedit)), 5)
    with pytest.raises(EditLoopError, match=r"key '\.\./out' is no path below a folder"):
        open_editor_suite("imgedit-bench", tmp_path)
    with pytest.raises(EditLoopError, match="no benchmark of editors"):
        open_editor_suite("imgedit", tmp_path)


def test_changes_are_paired() -> None:
    tasks = [(f"{task}/{number}", task) for task in ("add", "remove") for number in range(6)]
    old = [scored(key, task, ("all",), {"overall": number}) for number, (key, task) in enumerate(tasks)]
    new = [
        scored(key, task, ("all",), {"overall": number + (1 if task == "add" else 3)})
        for number, (key, task) in enumerate(tasks)
    ]
    new[0] = scored(*tasks[0], ("all",), {})
    changes = figure_changes(new, old[::-1], ["overall"])["all"]
    assert changes.by_task["add"]["overall"] == (1.0, [1.0, 1.0])
    assert changes.average["overall"].value == 2.0
    assert changes.missing == {"add": 1, "remove": 0}
    with pytest.raises(EditLoopError, match="1 tasks are in one result and not in the other"):
        figure_changes(new[1:], old, ["overall"])
