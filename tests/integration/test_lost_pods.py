"""A TrainJob of two pods that share nothing but a real S3 server: a pod is lost, and the training goes on."""

import json
import re
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from editloop.content import complete_folder, read_manifest, write_json
from editloop.object_storage import ObjectFolder
from editloop.training.job import HISTORY_FILE, RESULT_FOLDER
from infra.trainjob import TrainJobSettings, launch_trainjob
from tests.local_trainer import LocalTrainer
from tests.s3_server import BUCKET

CHECKPOINTS = f"s3://{BUCKET}/lost-pods/checkpoints"
SETTINGS = {"learning_rate": 0.02, "epochs": 2, "batch": 8, "evaluate_every": 5, "checkpoint_every": 2}
STEPS = 10


@pytest.fixture
def trainer(s3_environment: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalTrainer]:
    monkeypatch.setenv("EDITLOOP_OBJECTS", f"s3://{BUCKET}/lost-pods/objects")
    monkeypatch.setenv("EDITLOOP_CHECKPOINTS", CHECKPOINTS)
    keys = {("storage", "key"): "AWS_ACCESS_KEY_ID", ("storage", "secret"): "AWS_SECRET_ACCESS_KEY"}
    local = LocalTrainer(tmp_path / "pods", {place: s3_environment[name] for place, name in keys.items()})
    monkeypatch.setattr("kubernetes.client.CustomObjectsApi", lambda: local)
    monkeypatch.setattr("kubernetes.client.CoreV1Api", lambda: local)
    monkeypatch.setattr("infra.trainjob.log_in", lambda: None)
    yield local
    local.delete_namespaced_custom_object()


@pytest.mark.floats
def test_a_training_whose_pod_is_lost_goes_on_elsewhere_and_its_result_comes_back(
    trainer: LocalTrainer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with complete_folder(tmp_path / "data") as out:
        (out / "rows.txt").write_text("a sum of sines")
    folder = tmp_path / "reward-0123"
    job = {"data": str(tmp_path / "data"), "settings": SETTINGS, "slow": 0.4}
    write_json(folder / "job.json", job | {"checkpoints": str(folder), "output": str(folder / RESULT_FOLDER)})
    settings = TrainJobSettings(
        trainjob_nodes=2,
        trainjob_poll_seconds=0.2,
        trainjob_secrets={
            "AWS_ACCESS_KEY_ID": ("storage", "key"),
            "AWS_SECRET_ACCESS_KEY": ("storage", "secret"),
        },
    )

    def lose_a_pod() -> None:
        copy = ObjectFolder(f"{CHECKPOINTS}/{folder.name}")
        while not any(re.match(r"step-.*/manifest\.json$", name) for name in copy.names()):
            time.sleep(0.1)
        trainer.delete_pod("node-1")

    thread = threading.Thread(target=lose_a_pod, daemon=True)
    thread.start()
    launch_trainjob("tests.toy_job", folder / "job.json", 2, settings)
    thread.join()
    assert trainer.created == 2
    assert "node-1 was deleted; started again" in caplog.text
    assert re.search(r"goes on at step-\d+ of", (trainer.folder / "try-2" / "node-0" / "log").read_text())
    history = json.loads((folder / RESULT_FOLDER / HISTORY_FILE).read_text())
    assert [step["step"] for step in history["steps"]] == list(range(1, STEPS + 1))
    assert read_manifest(folder / RESULT_FOLDER, check=True)["facts"]["data"]
    assert trainer.pods == {}, "nobody else deletes the job"
    launch_trainjob("tests.toy_job", folder / "job.json", 2, settings)
    assert trainer.created == 2, "a step that is repeated takes the result that is there"
