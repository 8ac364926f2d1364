"""Releases of EditReward and EditScore, from `judge add` to scores by the command line, over HTTP and in Python."""

import json
import shutil
from pathlib import Path

import pyarrow.parquet as parquet
import pytest

from editloop.models.judge_protocol import wording_of
from editloop.scoring.opening import open_judge
from editloop.scoring.score_table import read_facts
from tests.command_line import EditLoop
from tests.editreward_releases import FAMILIES, PICTURES_TOLERANCE, expected_scores, release_folder
from tests.editscore_releases import PROMPTS, write_release
from tests.public_suites import genai_row, write_genai
from tests.served_judge import TOKEN, served


def add(editloop: EditLoop, family: str, out: Path, *options: str) -> str:
    """Calls `judge add editreward`, and returns what it prints."""
    fixture = release_folder(family)
    done = editloop(
        *("judge", "add", "editreward", "--weights", str(fixture / "release"), "--base", str(fixture / "base")),
        *("--out", str(out), *options),
    )
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


@pytest.mark.parametrize("family", FAMILIES)
def test_published_scores_by_every_door(family: str, tmp_path: Path, editloop: EditLoop) -> None:
    expected = expected_scores(family)
    judge = tmp_path / "judge"
    digest = add(editloop, family, judge, "--wording", str(release_folder(family) / "wording.json"))
    shutil.copytree(release_folder(family) / "pictures", tmp_path / "pictures")
    edits = tmp_path / "edits.jsonl"
    edits.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in expected.rows))

    done = editloop("score", "--model", str(judge), "--input", str(edits), "--out", str(tmp_path / "scores.parquet"))
    assert done.returncode == 0, done.stderr
    wording = wording_of(open_judge(str(judge), device="cpu"))
    assert wording is not None
    assert f", wording {wording.sha256[:12]}: 8 edits of 4 tasks, 0 missing" in done.stdout
    assert f"wording {wording.sha256[:12]}\n" in digest
    rows = parquet.read_table(tmp_path / "scores.parquet").to_pylist()
    assert [row["fused_mean"] for row in rows] == pytest.approx(expected.fused.tolist(), abs=PICTURES_TOLERANCE)
    for axis, mu in zip(("if", "vq"), expected.mu.T.tolist(), strict=True):
        assert [row[f"{axis}_mean"] for row in rows] == pytest.approx(mu, abs=PICTURES_TOLERANCE)
    assert read_facts(tmp_path / "scores.parquet")["wording"] == {"sha256": wording.sha256, "is_substitute": False}

    with served(tmp_path, str(judge)) as server:
        client = server.judge()
        assert wording_of(client) == wording
        fused = [score.fused for scores in client.judge(expected.groups) for score in scores]
    assert [score.mean if score else None for score in fused] == pytest.approx(
        expected.fused.tolist(), abs=PICTURES_TOLERANCE
    )
    assert f"wording {wording.sha256[:12]}" in server.log.read_text()
    assert TOKEN not in server.log.read_text()


def test_scores_without_the_wording_say_so(tmp_path: Path, editloop: EditLoop) -> None:
    judge, suite = tmp_path / "judge", tmp_path / "suite.parquet"
    output = add(editloop, "qwen3-vl", judge)
    assert "no wording given" in output
    write_genai(suite, [genai_row("leftvote", 40, 90)])
    done = editloop(
        *("benchmark", "--suite", "genai-bench", "--data", str(suite), "--model", str(judge)),
        *("--out", str(tmp_path / "report")),
    )
    assert done.returncode == 0, done.stderr
    assert "not the published ones" in done.stderr.strip().splitlines()[0]
    assert "these are not the published scores" in done.stdout
    report = json.loads((tmp_path / "report" / "report.json").read_text())
    assert report["judge"]["wording"]["is_substitute"]
    assert "not the published figures" in (tmp_path / "report" / "page.html").read_text()


def test_a_checkpoint_that_is_no_model_yet_names_the_command(tmp_path: Path, editloop: EditLoop) -> None:
    fixture = release_folder("qwen3-vl")
    done = editloop("score", "--model", str(fixture / "base"), "--input", str(tmp_path), "--out", "scores.parquet")
    assert done.returncode == 1
    assert done.stderr.startswith("editloop: ")
    assert "editloop judge add editreward" in done.stderr
    both = editloop(
        *("judge", "add", "editreward", "--weights", str(fixture / "release"), "--base", str(fixture / "base")),
        *("--wording", str(fixture / "wording.json"), "--reference-repo", str(fixture), "--out", str(tmp_path / "out")),
    )
    assert "Give one of them." in both.stderr


def test_an_editscore_release_is_asked_in_its_wording_and_says_so(tmp_path: Path, editloop: EditLoop) -> None:
    """Its tiny random weights write no scores that can be read: which texts they read is what is shown here."""
    write_release("qwen2.5-vl", tmp_path)
    (tmp_path / "prompts.py").write_text(PROMPTS)
    judge = tmp_path / "judge"
    add = ("judge", "add", "editscore", "--weights", str(tmp_path / "adapter"), "--base", str(tmp_path / "base"))
    done = editloop(*add, "--reference-repo", str(tmp_path), "--max-pixels", "1024", "--out", str(judge))
    assert done.returncode == 0, done.stderr
    assert "'<img1>: ' before a picture, 1024 to 1024 pixels" in done.stdout
    assert "top_k 20, repetition_penalty 1.05, seed 42" in done.stdout
    wording = wording_of(open_judge(str(judge), device="cpu"))
    assert wording is not None
    assert f"wording {wording.sha256[:12]}\n" in done.stdout

    edits, scores = write_edits(tmp_path), tmp_path / "scores.parquet"
    score = ("score", "--input", str(edits), "--passes", "1", "--most-missing", "1")
    done = editloop(*score, "--model", str(judge), "--out", str(scores))
    assert done.returncode == 0, done.stderr
    assert f", wording {wording.sha256[:12]}: 1 edits of 1 tasks, 1 missing" in done.stdout
    assert read_facts(scores)["wording"] == {"sha256": wording.sha256, "is_substitute": False}


def write_edits(folder: Path) -> Path:
    """An edits file of one candidate, with a fixture's pictures."""
    pictures = release_folder("qwen2.5-vl") / "pictures"
    for name in ("0_source.png", "0_edit0.png"):
        shutil.copy(pictures / name, folder)
    candidates = [{"editor": "e", "image": "0_edit0.png"}]
    row = {"id": "0", "instruction": "make it red", "source": "0_source.png", "candidates": candidates}
    (folder / "edits.jsonl").write_text(json.dumps(row) + "\n")
    return folder / "edits.jsonl"
