"""Both reward models from the experts' preferences to a served version: one model scores the same, whoever asks."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pyarrow.parquet as pq
import pytest
import yaml

from editloop.certificates import shared_certificates
from editloop.content import read_manifest, sha256_bytes, write_json
from editloop.datasets.preference_groups import read_groups
from editloop.datasets.repository import commit_dataset
from editloop.lineage.step import run_step
from editloop.models.judge_protocol import EditGroup
from editloop.scoring.opening import open_judge
from editloop.studies.comparison.world import scenes_dataset
from editloop.training.presets import load_preset
from infra.services import Services
from pipelines.catalogue import STAGES
from tests.command_line import EditLoop

TOKEN = "a token of the tests"
EDITLOOP = str(Path(sys.executable).with_name("editloop"))


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("world") / "dataset"
    scenes_dataset(folder, tasks=60, seed=11)
    return folder


@contextmanager
def served(model: str, home: Path) -> Iterator[str]:
    """`editloop serve` on a free port, until the block ends."""
    log = home / "serve.log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [EDITLOOP, "serve", "--model", model, "--port", "0"],
            env=os.environ | {"EDITLOOP_SERVE_TOKEN": TOKEN},
            stdout=out,
            stderr=out,
        )
        try:
            yield _address(process, log)
        finally:
            process.terminate()
            assert process.wait(60) in (0, -signal.SIGTERM), log.read_text()


def _address(process: "subprocess.Popen[bytes]", log: Path) -> str:
    for _ in range(240):
        assert process.poll() is None, log.read_text()
        found = [word for word in log.read_text().split() if word.startswith("http://127.0.0.1:")]
        if found:
            url = found[0].rstrip(".,")
            try:
                if httpx.get(f"{url}/readyz", verify=shared_certificates()).status_code == 200:
                    return url
            except httpx.TransportError:
                pass
        time.sleep(0.5)
    raise AssertionError(log.read_text())


def edits_file(folder: Path, groups: list) -> Path:
    """The groups as an edits file with its pictures."""
    from PIL import Image

    folder.mkdir()
    lines = []
    for group in groups:
        names = {}
        for role, picture in {"source": group.source, **dict(zip(group.candidates, group.edits, strict=True))}.items():
            name = f"{group.task_id}-{sha256_bytes(role.encode())[:8]}.png"
            Image.fromarray(picture).save(folder / name)
            names[role] = name
        lines.append(
            {
                "id": group.task_id,
                "instruction": group.instruction,
                "source": names["source"],
                "candidates": [{"image": names[one], "editor": f"editor {one}"} for one in group.candidates],
            }
        )
    (folder / "edits.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder / "edits.jsonl"


@pytest.mark.timeout(420)
@pytest.mark.parametrize(("name", "zero_stage"), [("editreward-tiny", 2), ("editscore-tiny", 3)])
def test_trained_registered_benchmarked_served_and_the_same_from_everywhere(
    name: str,
    zero_stage: int,
    dataset: Path,
    tmp_path: Path,
    mlflow_environment: Services,
    monkeypatch: pytest.MonkeyPatch,
    editloop: EditLoop,
    forked_ranks: None,
) -> None:
    monkeypatch.setenv("EDITLOOP_DATASET_REPO", str(tmp_path / "repo"))
    monkeypatch.setenv("EDITLOOP_DATASET_REMOTE", str(tmp_path / "remote"))
    monkeypatch.setenv("EDITLOOP_JUDGE_TOKEN", TOKEN)
    preset = load_preset(name).model_dump(mode="json", exclude_unset=True)
    preset["training"] |= {"epochs": None, "steps": 12}
    preset["training"] |= {"zero_stage": zero_stage}
    told = tmp_path / "preset.yaml"
    told.write_text(yaml.safe_dump(preset))
    paths = {part: tmp_path / part for part in ("model", "benchmark", "promotion")}
    version = tmp_path / "version.json"
    write_json(
        version, commit_dataset(dataset, repo=str(tmp_path / "repo"), remote=str(tmp_path / "remote"), message="x")
    )
    key = f"judges-{name}"
    run_step(
        STAGES["reward"],
        pipeline_run=key,
        inputs={"dataset": dataset},
        outputs={"output": paths["model"]},
        parameters={"preset": str(told), "processes": 2},
    )
    run_step(
        STAGES["benchmark"],
        pipeline_run=key,
        inputs={"dataset": dataset, "model": paths["model"]},
        outputs={"output": paths["benchmark"]},
        parameters={},
    )
    run_step(
        STAGES["promote"],
        pipeline_run=key,
        inputs={"model": paths["model"], "benchmark": paths["benchmark"], "dataset": dataset, "version": version},
        outputs={"output": paths["promotion"]},
        parameters={},
    )
    registered = json.loads((paths["promotion"] / "promotion.json").read_text())
    kind = preset["model"]
    assert registered["name"] == kind
    measured = json.loads((paths["benchmark"] / "benchmark.json").read_text())
    assert 0 <= measured["accuracy_labels"] <= 1
    assert measured["pairs"] > 50

    address = f"models:/{kind}/{registered['version']}"
    groups = read_groups(dataset, "test")[:3]
    asked = [EditGroup(one.instruction, one.source, one.edits, one.key) for one in groups]
    here = open_judge(address)
    assert here.version == read_manifest(paths["model"])["sha256"]
    expected = [score for scores in here.judge(asked) for score in scores]
    source = edits_file(tmp_path / "edits", groups)
    with served(address, tmp_path) as url:
        over_http = open_judge(url)
        assert over_http.version == here.version
        for model, output in ((address, tmp_path / "here.parquet"), (url, tmp_path / "served.parquet")):
            options = ("--input", str(source), "--output", str(output), "--most-missing", "1")
            done = editloop("score", "--model", model, *options)
            assert done.returncode == 0, done.stderr
            rows = pq.read_table(output).to_pylist()
            for score, row in zip(expected, rows, strict=True):
                assert (row["missing"] or "") == score.missing
                assert row["overall"] == pytest.approx(score.overall, abs=1e-4)
        found = [score for scores in over_http.judge(asked) for score in scores]
    for mine, theirs in zip(expected, found, strict=True):
        assert theirs.missing == mine.missing
        assert theirs.overall == pytest.approx(mine.overall, abs=1e-4)
    told_apart = {round(score.overall, 6) for score in expected if score.overall is not None}
    assert len(told_apart) > len(expected) / 2
