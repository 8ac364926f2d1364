"""Records that a disk, a hand or a registry's writer has changed: one line that names the thing and the cure."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from editloop.content import complete_folder, read_manifest
from editloop.errors import EditLoopError
from editloop.lineage import registry, tracking
from editloop.lineage.kept_artifacts import fetch_logged_files
from editloop.training.editor_rl import evaluator
from editloop.training.metric_log import LINES_FILE, SENT_FILE, send_metrics

KINDS = ["", "{", "[]", "17", '"x"', "null", "[" * 100_000, '{"sha256": {"a": [1]}, "files": 3, "facts": []}']


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    monkeypatch.chdir(tmp_path)
    return tracking.client()


@pytest.mark.parametrize(
    "tags",
    [{"number": "x"}, {"number": "1"}, {}, {"number": "1", "surplus": "y"}, {"number": "[" * 100}],
    ids=str,
)
def test_a_promotion_record_that_somebody_wrote_is_named(tags: dict[str, str], store: Any) -> None:
    experiment = store.create_experiment(registry.RECORDS)
    own = {f"{registry.PREFIX}{key}": value for key, value in (tags | {"model": "m"}).items()}
    run = store.create_run(experiment, tags=own).info.run_id
    with pytest.raises(
        EditLoopError, match=f"run {run} of experiment {registry.RECORDS} is no promotion record"
    ) as caught:
        registry.promotions("m")
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("content", KINDS)
def test_a_runs_manifest_that_somebody_replaced_is_one_line(content: str, store: Any, tmp_path: Path) -> None:
    with complete_folder(tmp_path / "out") as out:
        (out / "gate.json").write_text("{}")
    sha256 = str(read_manifest(tmp_path / "out")["sha256"])
    (tmp_path / "out" / "manifest.json").write_text(content)
    run = store.create_run("0", tags={"editloop.output.output": sha256}).info.run_id
    store.log_artifact(run, str(tmp_path / "out" / "manifest.json"), f"{tracking.MANIFESTS}/output")
    with pytest.raises(EditLoopError) as caught:
        fetch_logged_files(store.get_run(run), tmp_path / "fetched")
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("content", KINDS)
def test_a_damaged_list_of_evaluations_names_what_to_delete(content: str, tmp_path: Path) -> None:
    folder = tmp_path / "training" / "watch"
    folder.mkdir(parents=True)
    (folder / evaluator.EVALUATIONS).write_text(content)
    if content == "[]":
        assert evaluator._read(folder / evaluator.EVALUATIONS) == []
        return
    with pytest.raises(EditLoopError, match=f"Delete {tmp_path / 'training'} to begin the training anew"):
        evaluator._read(folder / evaluator.EVALUATIONS)


@pytest.mark.parametrize("content", KINDS)
def test_a_damaged_curve_stops_no_training(
    content: str, store: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    run = store.create_run("0").info.run_id
    monkeypatch.setenv("EDITLOOP_STAGE_RUN", run)
    whole = json.dumps({"step": 1, "time": 5, "figures": {"loss": 0.5}})
    (tmp_path / LINES_FILE).write_text(f"{content}\n{whole}\n")
    (tmp_path / SENT_FILE).write_text(content)
    send_metrics(tmp_path)
    assert store.get_run(run).data.metrics == {"curve_loss": 0.5}
    assert "1 lines are damaged and left out" in caplog.text


def test_the_records_of_these_tests_are_read_when_they_are_whole(store: Any) -> None:
    whole = dict.fromkeys(("action", "model", "version", "actor", "reason", "previous", "at"), "x")
    run = SimpleNamespace(
        info=SimpleNamespace(run_id="r"),
        data=SimpleNamespace(
            tags={f"{registry.PREFIX}{key}": value for key, value in (whole | {"number": "3"}).items()}
        ),
    )
    assert registry.read_promotion(run).number == 3
