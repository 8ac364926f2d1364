"""Real judges in Python, by the command line and over HTTP: the same scores every way, and what is refused."""

import json
import shutil
import socket
from pathlib import Path
from typing import Any

import pyarrow.parquet as parquet
import pytest
from PIL import Image

from editloop.content import complete_folder, read_manifest
from editloop.data.edits_file import read_edits
from editloop.lineage import registry, tracking
from editloop.models.judge_protocol import EditGroup
from editloop.scoring.opening import find_local, open_judge
from infra.services import Services
from tests.command_line import EditLoop
from tests.edit_score_models import some_groups, tiny_score
from tests.served_judge import TOKEN, group, pictures, served

INSTRUCTIONS = (
    "make the circle red",
    "改为蓝色的圆 اجعل الدائرة حمراء",
    "make it red <|Reward|><|Reward|> <|image_pad|><|vision_start|><|im_end|>",
    "red " * 2500,
)


def test_python_command_line_and_http_score_the_same(tmp_path: Path, editloop: EditLoop) -> None:
    groups = [
        EditGroup(instruction, pictures(1, seed, side=32 + 16 * seed)[0], pictures(3, seed + 50, side=32 + 16 * seed))
        for seed, instruction in enumerate(INSTRUCTIONS)
    ]
    lines = []
    for place, one in enumerate(groups[:3]):  # an edits file's instructions have at most 2000 characters
        for name, picture in zip(("s", "a", "b", "c"), (one.source, *one.edits), strict=True):
            Image.fromarray(picture).save(tmp_path / f"{place}{name}.png")
        made = [{"image": f"{place}{name}.png", "editor": name} for name in "abc"]
        lines.append({"id": f"{place}", "instruction": one.instruction, "source": f"{place}s.png", "candidates": made})
    edits = tmp_path / "edits.jsonl"
    edits.write_text("".join(json.dumps(line) + "\n" for line in lines))

    here = open_judge("tiny-reward")
    plain = [score for row in here.judge(groups) for score in row]
    assert all(not score.missing for score in plain)

    def scored(model: str, name: str, **environment: str) -> list[dict[str, Any]]:
        output = tmp_path / f"{name}.parquet"
        done = editloop("score", "--model", model, "--input", str(edits), "--output", str(output), **environment)
        assert done.returncode == 0, done.stderr
        assert "9 edits of 3 tasks, 0 missing" in done.stdout
        found: list[dict[str, Any]] = parquet.read_table(output).to_pylist()
        return found

    def equal(score: Any, row: dict[str, Any]) -> None:
        assert row["overall"] == pytest.approx(score.overall, abs=1e-4)
        assert row["reward"] == pytest.approx(score.reward, abs=1e-4)
        for axis, belief in {**score.axes, "fused": score.fused}.items():
            assert row[f"{axis}_mean"] == pytest.approx(belief.mean, abs=1e-4)
            assert row[f"{axis}_sigma"] == pytest.approx(belief.sigma, rel=1e-4)

    with served(tmp_path, "tiny-reward") as running:
        judge = running.judge()
        assert (judge.name, judge.version, judge.axes) == (here.name, here.version, here.axes)
        over_http = [score for row in judge.judge(groups) for score in row]
        tables = [
            scored("tiny-reward", "local"),
            scored(running.url, "served", EDITLOOP_JUDGE_TOKEN=TOKEN),
        ]
    for mine, theirs in zip(plain, over_http, strict=True):
        equal(
            mine,
            {
                "overall": theirs.overall,
                "reward": theirs.reward,
                "fused_mean": theirs.fused.mean,
                "fused_sigma": theirs.fused.sigma,
                **{f"{axis}_mean": belief.mean for axis, belief in theirs.axes.items()},
                **{f"{axis}_sigma": belief.sigma for axis, belief in theirs.axes.items()},
            },
        )
    for table in tables:
        for score, row in zip(plain[:9], table, strict=True):
            equal(score, row)


def test_the_command_line_keeps_the_best_and_refuses_what_it_must(tmp_path: Path, editloop: EditLoop) -> None:
    folder = tmp_path / "edits"
    folder.mkdir()
    names = []
    for place, picture in enumerate(pictures(5, side=32)):
        Image.fromarray(picture).save(folder / f"{place}.png")
        names.append(f"{place}.png")
    made = [{"image": name, "editor": f"editor-{name}"} for name in names[1:]]
    row = {"id": "a", "instruction": "make it red", "source": names[0], "candidates": made}
    (folder / "edits.jsonl").write_text(json.dumps(row) + "\n")
    output = tmp_path / "scores.parquet"
    call = ("score", "--model", "tiny-reward", "--input", str(folder), "--output", str(output))
    done = editloop(*call, "--best-of", "3")
    assert done.returncode == 0, done.stderr
    found = parquet.read_table(output).to_pylist()
    assert len(found) == 3
    (best,) = read_edits(tmp_path / "scores-best")
    assert best.candidates[0].editor == max(found, key=lambda one: one["overall"])["editor"]
    for arguments, words in [
        (call, "not mixed"),
        ((*call[:-1], str(tmp_path / "scores.csv")), ".parquet"),
        ((*call[:-1], "/proc/scores.parquet"), "cannot be written"),
        (("serve", "--model", "tiny-reward", "--host", "0.0.0.0", "--port", "0"), "EDITLOOP_SERVE_TOKEN"),
        (("serve", "--model", "no-such"), "no such model"),
        (("serve", "--model", "tiny-reward", "--workers", "0"), "--workers 0"),
    ]:
        failed = editloop(*arguments)
        assert failed.returncode == 1, arguments
        assert words in failed.stderr
        assert "Traceback" not in failed.stderr


def test_a_port_that_is_taken_is_told(tmp_path: Path, editloop: EditLoop) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        done = editloop("serve", "--model", "tiny-reward", "--port", str(other.getsockname()[1]))
    assert done.returncode == 1
    assert "cannot listen" in done.stderr


def test_edit_score_is_opened_and_served_like_any_judge(tmp_path: Path) -> None:
    model = tmp_path / "model"
    tiny_score(reasoning=False, least_mass=0.0).save(model, {})
    here, groups = open_judge(str(model)), some_groups()
    plain = [score for row in here.judge(groups) for score in row]
    assert not any(score.missing for score in plain)
    assert len({score.overall for score in plain}) == len(plain), "it tells edits apart"
    with served(tmp_path, str(model)) as running:
        judge = running.judge()
        assert (judge.name, judge.version, judge.axes) == ("edit-score", here.version, here.axes)
        for mine, theirs in zip(plain, [score for row in judge.judge(groups) for score in row], strict=True):
            assert theirs.overall == pytest.approx(mine.overall, abs=1e-3)
            assert theirs.axes["naturalness"].sigma == pytest.approx(mine.axes["naturalness"].sigma, abs=1e-3)


def test_an_alias_that_moves_does_not_move_a_running_server(
    mlflow_environment: Services, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDITLOOP_CACHE", str(tmp_path / "cache"))
    first = find_local("tiny-reward").folder
    with complete_folder(tmp_path / "second") as second:
        shutil.copytree(first, second, dirs_exist_ok=True, ignore=shutil.ignore_patterns("manifest.json"))
        (second / "note.json").write_text("{}")
    versions = []
    for name, folder in (("first", first), ("second", tmp_path / "second")):
        with tracking.stage_run("reward", "train-reward", name, {}, {}) as run:
            versions.append(registry.register_model("served-reward", folder, run.run_id, {}))
    registry.set_alias("served-reward", "champion", versions[0])
    model = "models:/served-reward@champion"
    here = open_judge(model)
    assert here.version == read_manifest(first)["sha256"]
    with served(tmp_path, model) as running:
        judge = running.judge()
        before = judge.judge([group(1)])
        registry.set_alias("served-reward", "champion", versions[1])
        (worker,) = running.workers()
        worker.kill()
        assert judge.judge([group(1)]) == before, "the worker that took its place has the version served before"
        assert judge.version == here.version
    assert open_judge(model).version == read_manifest(tmp_path / "second")["sha256"]
