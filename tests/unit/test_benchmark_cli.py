"""`editloop benchmark`: what it prints and writes, and that a killed call goes on."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from pipelines.cli import app, main
from tests.public_suites import genai_row, write_genai


def run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    """The exit status of a call in this process."""
    monkeypatch.setattr(sys, "argv", ["editloop", "benchmark", *map(str, arguments)])
    try:
        return int(main() or 0)
    except SystemExit as ended:
        return int(ended.code or 0)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """Votes and verdicts of five pairs: two right, a missing reply, one other word, one wrong."""
    labels = ("left", "right", "tie", "both_bad", "left")
    verdicts = ("left", "right", None, "tie", "right")
    for name, column, words in (("labels", "label", labels), ("verdicts", "verdict", verdicts)):
        lines = [json.dumps({"key": str(n), column: word}) + "\n" for n, word in enumerate(words)]
        (tmp_path / f"{name}.jsonl").write_text("".join(lines))
    return tmp_path


def test_json_is_all_that_it_prints(
    saved: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(saved)
    given = ("--suite", "genai-bench", "--labels", "labels.jsonl", "--verdicts", "verdicts.jsonl")
    assert run(monkeypatch, *given, "--json") == 0
    report = json.loads(capsys.readouterr().out)
    assert report["accuracy"] == pytest.approx(2 / 5)
    assert report["accuracy_answered"] == pytest.approx(2 / 4)
    assert report["counts"]["missing"] == 1
    folder = saved / "runs" / "benchmarks" / "genai-bench-verdicts"
    assert json.loads((folder / "report.json").read_text()) == report
    units = [json.loads(line) for line in (folder / "units.jsonl").read_text().splitlines()]
    assert [unit["right"] for unit in units] == [1, 1, 0, 0, 0]
    assert "40.0" in (folder / "page.html").read_text()
    assert run(monkeypatch, *given) == 0
    shown = capsys.readouterr().out
    assert "Accuracy, as published" in shown
    assert "1 x missing: no verdict in the file" in shown


def test_a_model_is_asked_and_its_answers_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_genai(tmp_path / "suite.parquet", [genai_row("leftvote", 40 + n, 90 - n, source=n) for n in range(4)])
    given = (
        "--suite",
        "genai-bench",
        "--data",
        tmp_path / "suite.parquet",
        "--model",
        "tiny-reward",
        "--device",
        "cpu",
    )
    assert run(monkeypatch, *given, "--output", tmp_path / "out", "--json") == 0
    report = json.loads(capsys.readouterr().out)
    assert report["judge"]["name"] == "edit-reward"
    assert report["counts"]["units"] == 4
    assert len((tmp_path / "out" / "answers" / "answers.jsonl").read_text().splitlines()) == 8


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ((), "Give one of --model, --scores and --verdicts"),
        (
            ("--verdicts", "verdicts.jsonl", "--scores", "verdicts.jsonl"),
            "Give one of --model, --scores and --verdicts",
        ),
        (("--verdicts", "gone.jsonl"), "gone.jsonl: no such file"),
        (("--model", "tiny-reward"), "without its pictures"),
        (("--verdicts", "verdicts.jsonl", "--data", "."), "labels of its own"),
    ],
)
def test_a_mistake_is_one_message(
    saved: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], given: tuple[str, ...], told: str
) -> None:
    monkeypatch.chdir(saved)
    assert run(monkeypatch, "--suite", "genai-bench", "--labels", "labels.jsonl", *given) == 1
    assert told in capsys.readouterr().err
    assert not (saved / "runs").exists() or not list((saved / "runs").rglob("report.json"))


SLOW = """
import os, sys, time
import editloop.scoring.opening
import editloop.evaluation.suites.answers
from pipelines.cli import main
from tests.pixel_judge import PixelJudge

class Slow(PixelJudge):
    def judge(self, groups):
        time.sleep(float(os.environ["SECONDS_A_CALL"]))
        return super().judge(groups)

editloop.scoring.opening.open_judge = lambda *arguments, **options: Slow()
editloop.evaluation.suites.answers.EDITS_A_CALL = 2
sys.exit(main())
"""


def slow_call(folder: Path, seconds: float) -> "subprocess.Popen[str]":
    given = ["benchmark", "--suite", "genai-bench", "--data", str(folder / "suite.parquet"), "--model", "pixel"]
    return subprocess.Popen(
        [sys.executable, "-c", SLOW, *given, "--output", str(folder / "out"), "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"SECONDS_A_CALL": str(seconds)},
    )


def test_a_killed_call_goes_on_and_gives_the_same_report(tmp_path: Path) -> None:
    write_genai(tmp_path / "suite.parquet", [genai_row("leftvote", 40 + n, 90 - n, source=n) for n in range(12)])
    answers = tmp_path / "out" / "answers" / "answers.jsonl"
    killed = slow_call(tmp_path, 0.3)
    while not answers.exists() or len(answers.read_text().splitlines()) < 4:
        assert killed.poll() is None
        time.sleep(0.02)
    os.kill(killed.pid, signal.SIGKILL)
    killed.communicate()
    kept = answers.read_text().splitlines()[:4]
    assert not (tmp_path / "out" / "report.json").exists()
    again = slow_call(tmp_path, 0.0)
    report: dict[str, Any] = json.loads(again.communicate()[0])
    assert answers.read_text().splitlines()[:4] == kept
    assert len(answers.read_text().splitlines()) == 24
    assert report["counts"]["units"] == 12
    assert report["accuracy"] == pytest.approx(0.0), "the left edits are the darker ones"


def test_help_names_the_suites() -> None:
    from typer.testing import CliRunner

    shown = CliRunner().invoke(app, ["benchmark", "--help"]).output
    for word in ("editscore-bench", "--verdicts", "--labels", "--scores"):
        assert word in shown
