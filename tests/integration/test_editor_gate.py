"""The editor's gate on a team's own edits, where nobody knows the right result: other judges decide."""

import json
import shutil
from importlib.resources import files
from pathlib import Path

import pytest

from components.editor_eval.declaration import EditorEvalParameters
from components.editor_eval.stage import run_editor_eval
from editloop.content import complete_folder, read_manifest
from editloop.data.edits_file import read_edits
from editloop.errors import EditLoopError
from editloop.studies.world.scenes import write_edits

TASKS = 60
SHIPPED = Path(str(files("editloop.models.editors"))) / "weights" / "tiny-editor"


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An editor that tiny-reward is said to have taught: the shipped one, unchanged."""
    teacher = Path(str(files("editloop.models.edit_reward"))) / "weights" / "tiny-reward"
    folder = tmp_path_factory.mktemp("tuned") / "tuned"
    with complete_folder(folder, {"reward_sha256": read_manifest(teacher)["sha256"]}) as out:
        shutil.copytree(SHIPPED, out / "editor")
    return folder


@pytest.fixture(scope="module")
def edits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tasks without targets."""
    folder = tmp_path_factory.mktemp("edits") / "edits"
    write_edits(folder, TASKS, seed=5)
    lines = [json.loads(line) for line in (folder / "edits.jsonl").read_text().splitlines()]
    told = [{key: value for key, value in line.items() if key != "target"} for line in lines]
    (folder / "edits.jsonl").write_text("".join(json.dumps(line) + "\n" for line in told))
    return folder


def gate(folder: Path, text: str) -> str:
    path = folder / "gate.yaml"
    path.write_text(f"name: ours\n{text}\n")
    return str(path)


def test_peoples_verdicts_promote_an_editor_whose_right_results_nobody_knows(tuned, edits, tmp_path):
    people = tmp_path / "people.jsonl"
    words = ["right"] * 45 + ["left"] * 10 + ["tie"] * 5
    lines = [{"key": row.id, "verdict": word} for row, word in zip(read_edits(edits), words, strict=True)]
    people.write_text("".join(json.dumps(line) + "\n" for line in lines))
    ours = gate(tmp_path, f"independent: [{{judge: 'verdicts:{people}', agree: better}}]")
    figures = run_editor_eval(edits, tuned, tmp_path / "out", EditorEvalParameters(steps=1, gate=ours))
    found = json.loads((tmp_path / "out" / "gate.json").read_text())
    assert figures == {"tasks": TASKS}
    assert found["verdict"] == "promote"
    assert found["independent"][0]["net_preference"] == pytest.approx(35 / 60)
    assert (tmp_path / "out" / "contact-sheet.png").stat().st_size > 1000
    assert "people.jsonl" in (tmp_path / "out" / "page.html").read_text()


def test_the_teacher_has_no_say_and_equal_editors_are_held_by_another_judge(tuned, edits, tmp_path):
    ours = gate(tmp_path, "independent: [{judge: tiny-reward}, {judge: tiny-score, agree: better, tasks: 55}]")
    run_editor_eval(edits, tuned, tmp_path / "out", EditorEvalParameters(steps=1, gate=ours))
    found = json.loads((tmp_path / "out" / "gate.json").read_text())
    teacher, other = found["independent"]
    assert (teacher["counts"], other["counts"], other["tasks"]) == (False, True, 55)
    assert other["net_preference"] == 0  # both editors are one: every pair a tie
    assert found["verdict"] == "hold"


def test_a_gate_that_counts_right_edits_needs_targets_and_one_without_judges_promotes_nobody(tuned, edits, tmp_path):
    with pytest.raises(EditLoopError, match=f"{TASKS} held-out rows have no target"):
        run_editor_eval(edits, tuned, tmp_path / "out", EditorEvalParameters(steps=1))
    assert not (tmp_path / "out").exists()
    run_editor_eval(edits, tuned, tmp_path / "out", EditorEvalParameters(steps=1, gate=gate(tmp_path, "alpha: 0.05")))
    found = json.loads((tmp_path / "out" / "gate.json").read_text())
    assert (found["verdict"], found["reasons"][0].split(":")[0]) == ("hold", "nothing that may decide was measured")


def test_a_public_benchmark_decides_by_its_own_judge(tuned, edits, tmp_path):
    benchmark = Path(__file__).parents[1] / "parity" / "suites" / "gedit-bench.parquet"
    text = "benchmarks: [{{suite: gedit-bench, data: '{}', judge: {}, margin: 0.02}}]"
    ours = gate(tmp_path, text.format(benchmark, "tiny-reward"))
    parameters = EditorEvalParameters(steps=1, gate=ours)
    run_editor_eval(edits, tuned, tmp_path / "taught", parameters)
    found = json.loads((tmp_path / "taught" / "gate.json").read_text())
    assert (found["verdict"], found["suites"][0]["required"]) == ("hold", False)  # its judge taught the editor

    fact = dict(read_manifest(tuned), facts={"reward_sha256": "another"})
    other = tmp_path / "other"
    shutil.copytree(tuned, other)
    (other / "manifest.json").write_text(json.dumps(fact))
    run_editor_eval(edits, other, tmp_path / "out", parameters)
    found = json.loads((tmp_path / "out" / "gate.json").read_text())
    suite = found["suites"][0]
    assert (found["verdict"], suite["suite"], suite["units"], suite["change"]) == ("promote", "gedit-bench", 54, 0.0)
    assert 0 < suite["new"] < 1
    report = json.loads((tmp_path / "out" / "benchmarks" / "gedit-bench" / "report.json").read_text())
    assert report["changes"]["tables"]["en"]["average"]["overall"]["value"] == 0.0
    assert "gedit-bench" in (tmp_path / "out" / "page.html").read_text()
