"""Checkpoints in object storage, on a real S3 server: a training goes on where another machine stopped."""

import json
import os
import shutil
import signal
import time
from pathlib import Path

import pytest

from editloop.content import complete_folder, read_manifest
from editloop.errors import EditLoopError
from editloop.training import checkpoint_mirror
from editloop.training.checkpoint_mirror import CheckpointMirror, mirror_of, mirrored
from editloop.work_dir import work_dir
from tests.forked_ranks import run_ranks, start_ranks
from tests.s3_server import BUCKET

SETTINGS = {"learning_rate": 0.02, "epochs": 2, "batch": 8, "evaluate_every": 5, "checkpoint_every": 2}
STEPS = 10


@pytest.fixture
def mirror(
    s3_environment: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> CheckpointMirror:
    monkeypatch.setenv("EDITLOOP_CHECKPOINTS", f"s3://{BUCKET}/{request.node.name[:40]}/")
    mirror = mirror_of(tmp_path / "reward-0123")
    assert mirror is not None
    return mirror


def save(mirror: CheckpointMirror, step: int, text: str = "weights") -> Path:
    with complete_folder(mirror.folder / f"step-{step:08d}", {"step": step}) as folder:
        (folder / "engine").mkdir()
        (folder / "engine" / "states").write_text(f"{text} {step}")
    return mirror.folder / f"step-{step:08d}"


def test_work_stays_beside_the_output_where_checkpoints_go_to_a_bucket(mirror: CheckpointMirror) -> None:
    assert work_dir(mirror.folder / "out").name == ".unfinished"


def test_the_newest_checkpoint_comes_back_and_old_ones_leave_the_copy(mirror: CheckpointMirror) -> None:
    for step in (2, 4):
        save(mirror, step)
    (mirror.folder / "curves.jsonl").write_text("line")
    mirror.push()
    shutil.rmtree(mirror.folder / "step-00000002")
    save(mirror, 6)
    mirror.push()
    assert mirror.remote.names() == {
        *(f"step-0000000{step}/{name}" for step in (4, 6) for name in ("manifest.json", "engine/states")),
        "curves.jsonl",
    }
    shutil.rmtree(mirror.folder)
    mirror.restore()
    assert [path.name for path in mirror.folder.glob("step-*")] == ["step-00000006"]
    assert read_manifest(mirror.folder / "step-00000006", check=True)["facts"] == {"step": 6}
    assert (mirror.folder / "curves.jsonl").read_text() == "line"
    mirror.remove()
    assert mirror.remote.names() == set()


def test_a_checkpoint_that_is_replaced_is_copied_anew(mirror: CheckpointMirror) -> None:
    save(mirror, 2)
    mirror.push()
    save(mirror, 2, "better weights")
    mirror.push()
    shutil.rmtree(mirror.folder)
    mirror.restore()
    assert (mirror.folder / "step-00000002" / "engine" / "states").read_text() == "better weights 2"


def test_a_damaged_or_unfinished_copy_is_passed_over(mirror: CheckpointMirror) -> None:
    for step in (2, 4, 6):
        save(mirror, step)
    mirror.push()
    mirror.remote.write("step-00000004/engine/states", b"half")
    mirror.remote.delete(["step-00000006/manifest.json"])
    shutil.rmtree(mirror.folder)
    mirror.restore()
    assert [path.name for path in mirror.folder.glob("step-*")] == ["step-00000002"]


def test_what_this_machine_has_is_not_replaced(mirror: CheckpointMirror) -> None:
    save(mirror, 2)
    mirror.push()
    shutil.rmtree(mirror.folder)
    save(mirror, 8)
    mirror.restore()
    assert [path.name for path in mirror.folder.glob("step-*")] == ["step-00000008"]


def test_storage_that_cannot_be_read_ends_the_start_and_nothing_else(
    mirror: CheckpointMirror, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(checkpoint_mirror, "MIRROR_SECONDS", 0.05)
    with monkeypatch.context() as elsewhere:
        elsewhere.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
        refused = pytest.raises(EditLoopError, match=r"^EDITLOOP_CHECKPOINTS: s3://.*: cannot be read")
        with refused, mirrored(mirror.folder):
            raise AssertionError("nothing may begin")

    def fails(self: CheckpointMirror) -> None:
        raise OSError("the disk is full")

    with monkeypatch.context() as full, mirrored(mirror.folder):
        full.setattr(CheckpointMirror, "push", fails)
        time.sleep(0.5)
    assert caplog.text.count("checkpoints do not go there (the disk is full)") == 1
    save(mirror, 2)
    with mirrored(mirror.folder):
        pass
    assert "step-00000002/manifest.json" in mirror.remote.names(), "the last look is after the block"


@pytest.mark.floats
def test_a_training_goes_on_where_a_machine_that_is_gone_stopped(
    mirror: CheckpointMirror, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoint_mirror, "MIRROR_SECONDS", 0.1)
    monkeypatch.chdir(Path(__file__).parents[2])

    def job(out: Path, folder: Path, slow: float = 0.0) -> str:
        told = {"settings": SETTINGS, "folder": str(folder), "toy": {"slow": slow}, "out": str(out)}
        path = out.with_suffix(".jobs")
        path.write_text(json.dumps([told]))
        return str(path)

    def losses(out: Path) -> list[float]:
        return [step["loss"] for step in json.loads(out.read_text())["steps"]]

    run_ranks("tests.toy_training", [job(tmp_path / "whole.json", tmp_path / "whole")], 1, tmp_path / "whole.log")
    with mirrored(mirror.folder):
        ranks = start_ranks("tests.toy_training", [job(tmp_path / "a.json", mirror.folder, 0.3)], 1, tmp_path / "a.log")
        deadline = time.monotonic() + 60
        while "step-00000004/manifest.json" not in mirror.remote.names():
            assert time.monotonic() < deadline
            time.sleep(0.1)
        for rank in ranks:
            assert rank.pid is not None
            os.kill(rank.pid, signal.SIGKILL)
            rank.join()
    shutil.rmtree(mirror.folder)
    with mirrored(mirror.folder):
        restored = sorted(path.name for path in mirror.folder.glob("step-*"))
        assert restored
        assert restored[0] >= "step-00000004"
        run_ranks("tests.toy_training", [job(tmp_path / "b.json", mirror.folder)], 1, tmp_path / "b.log")
    assert len(losses(tmp_path / "b.json")) == STEPS
    assert losses(tmp_path / "b.json") == pytest.approx(losses(tmp_path / "whole.json"), rel=1e-4)
