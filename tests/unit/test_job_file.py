"""Stages that train: equal work is an equal TrainJob, wherever its data lies and its result goes."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from components.editor_dpo.declaration import EditorDpoParameters
from components.editor_dpo.stage import run_editor_dpo
from components.editor_rl.declaration import EditorRlParameters
from components.editor_rl.stage import run_editor_rl
from components.editor_sft.declaration import EditorSftParameters
from components.editor_sft.stage import run_editor_sft
from components.reward.declaration import RewardParameters
from components.reward.stage import run_reward
from editloop.content import complete_folder, read_manifest
from editloop.lineage.tracking import digest
from editloop.training.editor_rl.reward_source import RewardSource
from editloop.training.job import JobFile, launch_job
from infra.launch import LaunchSettings, launch
from infra.trainjob import trainjob
from infra.trainjob_files import send_job

TOP = Path(__file__).parents[2]
Stage = Callable[[Path, Path, int], Any]
"""Runs a stage on the inputs below a folder, into an output, with a seed."""


class StepInterruptedError(Exception):
    """The step is stopped where it waits for its TrainJob."""


def _inputs(folder: Path) -> None:
    """A dataset, an edits folder with targets, and the version of each."""
    with complete_folder(folder / "dataset", {"pairs": 3}) as out:
        (out / "rows.txt").write_text("three pairs")
    rng = np.random.default_rng(0)
    with complete_folder(folder / "edits") as out:
        lines = []
        for row in range(4):
            for name in ("source", "target"):
                Image.fromarray(rng.integers(0, 256, (32, 32, 3), np.uint8)).save(out / f"{name}-{row}.png")
            line = {"id": f"{row}", "instruction": f"edit {row}", "source": f"source-{row}.png"}
            lines.append(json.dumps(line | {"target": f"target-{row}.png"}))
        (out / "edits.jsonl").write_text("\n".join(lines))
    for name in ("edits", "dataset"):
        sha256 = read_manifest(folder / name)["sha256"]
        version = {"sha256": sha256, "tag": f"preferences-{sha256[:12]}", "repo": "r", "dvc_rev": "c" * 40}
        (folder / f"{name}-version.json").write_text(json.dumps(version))


def _reward(preset: str) -> Stage:
    return lambda data, output, seed: run_reward(data / "dataset", output, RewardParameters(preset=preset, seed=seed))


STAGES: dict[str, Stage] = {
    "reward": _reward("editreward-tiny"),
    "reward of edit-score": _reward("editscore-tiny"),
    "editor_sft": lambda data, output, seed: run_editor_sft(
        data / "edits", data / "edits-version.json", output, EditorSftParameters(seed=seed)
    ),
    "editor_dpo": lambda data, output, seed: run_editor_dpo(
        data / "dataset", data / "dataset-version.json", output, EditorDpoParameters(seed=seed)
    ),
    "editor_rl": lambda data, output, seed: run_editor_rl(data / "edits", output, EditorRlParameters(seed=seed)),
}


@pytest.fixture
def job_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the TrainJobs that steps wait for; each step is interrupted there."""
    names: list[str] = []

    def waits(module: str, job_file: Path, processes: int, settings: LaunchSettings) -> None:
        names.append(trainjob(send_job(module, job_file, processes, "s3://b/o"), processes, settings).metadata.name)
        raise StepInterruptedError

    monkeypatch.setattr("infra.trainjob_files.put_folder", lambda folder, address: f"{address}/{digest(folder)}")
    monkeypatch.setattr("infra.launch.launch_trainjob", waits)
    monkeypatch.setenv("EDITLOOP_LAUNCHER", "trainjob")
    monkeypatch.setenv("EDITLOOP_CHECKPOINTS", str(tmp_path / "checkpoints"))
    teacher = RewardSource("/models/champion", "edit-reward", "0" * 64, Path("/models/champion"))
    monkeypatch.setattr("editloop.training.editor_rl.reward_source.champion_reward_source", lambda reward: teacher)
    monkeypatch.setattr("editloop.training.editor_rl.preflight.check_job", lambda *job: None)
    monkeypatch.setattr("editloop.training.editor_dpo.preflight.check_training", lambda *job: {"pairs": 3})
    return names


@pytest.mark.parametrize("stage", STAGES)
def test_equal_work_is_an_equal_trainjob(stage: str, tmp_path: Path, job_names: list[str]) -> None:
    _inputs(tmp_path / "data")
    shutil.copytree(tmp_path / "data", tmp_path / "copy")
    calls = [("data", "out", 0), ("data", "out", 0), ("data", "elsewhere", 0), ("copy", "out", 0), ("data", "out", 1)]
    for data, output, seed in calls:
        with pytest.raises(StepInterruptedError):
            STAGES[stage](tmp_path / data, tmp_path / "steps" / output, seed)
    first, *retries, other_seed = job_names
    assert retries == [first] * 3
    assert other_seed != first


def test_every_stage_that_launches_is_tested_and_launches_by_its_job_file() -> None:
    sources = {path: path.read_text() for path in (TOP / "components").rglob("*.py")}
    launching = {path.parent.name for path, text in sources.items() if path.name == "stage.py" and "launch" in text}
    assert launching == {name.partition(" ")[0] for name in STAGES}
    assert [path for path, text in sources.items() if re.search(r"\blaunch\(", text)] == []


def test_what_the_ranks_write_becomes_the_stages_output(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where an earlier step wrote there: nothing of it is left."""
    _inputs(tmp_path / "data")
    monkeypatch.delenv("EDITLOOP_STAGE_RUN", raising=False)
    monkeypatch.setenv("EDITLOOP_CHECKPOINTS", str(tmp_path / "checkpoints"))
    outcome = {"steps": [{"step": 1, "loss": 0.5, "learning_rate": 0.1, "edits_per_second": 1.0, "waiting": 0.0}]}
    outcome |= {"evaluations": [{"loss": 0.4, "step": 1, "peak_megabytes": 9.0}]}

    def ranks(module: str, job_file: Path, *, processes: int) -> None:
        job = json.loads(job_file.read_text())
        with complete_folder(Path(job["output"]), {"kind": "a model", **job["facts"]}) as out:
            (out / "weights").write_text("trained")
            (out / "training.json").write_text(json.dumps(outcome))

    for stage in ("reward", "editor_sft"):
        monkeypatch.setattr(f"components.{stage}.stage.launch", ranks)
    output = tmp_path / "out"
    with complete_folder(output) as out:
        (out / "earlier").write_text("of an earlier step")
    assert _reward("editreward-tiny")(tmp_path / "data", output, 0)["loss"] == 0.5
    manifest = read_manifest(output, check=True)
    assert set(manifest["files"]) == {"weights", "training.json"}
    assert manifest["facts"]["kind"] == "a model"
    assert json.loads((output / "training.json").read_text()) == {
        "steps": [{"step": 1, "loss": 0.5, "learning_rate": 0.1}],
        "evaluations": [{"loss": 0.4, "step": 1}],
    }, "figures of the machine are no part of a model: the same data and seed give the same content"
    assert manifest["facts"]["dataset_sha256"] == read_manifest(tmp_path / "data" / "dataset")["sha256"]
    assert list((tmp_path / "checkpoints").iterdir()) == []
    shutil.rmtree(output)
    STAGES["editor_sft"](tmp_path / "data", output, 0)
    files = set(read_manifest(output, check=True)["files"])
    assert files == {"weights", "training.json", "page.html"}


def test_a_job_file_is_written_where_its_checkpoints_lie(tmp_path: Path, job_names: list[str]) -> None:
    job = JobFile(output=tmp_path / "result", checkpoints=tmp_path / "work")
    with pytest.raises(StepInterruptedError):
        launch_job("m", job, processes=2, launch=launch)
    assert len(job_names) == 1
    assert JobFile.model_validate_json((tmp_path / "work" / "job.json").read_text()) == job
