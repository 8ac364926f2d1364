"""Training on real processes: any ZeRO stage and number of ranks computes the same; stopped and resumed is unbroken."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from safetensors.torch import load_file

from components.training.curves import LINES
from infra.content import read_manifest
from infra.errors import EditLoopError
from infra.launch import launch, torchrun

TOP = Path(__file__).parents[2]
SETTINGS = {
    "learning_rate": 0.02, "epochs": 3, "batch": 8, "micro_batch": 2, "evaluate_every": 5, "checkpoint_every": 4,
}  # fmt: skip
STEPS = 15


class Outcome(NamedTuple):
    losses: list[float]
    validation: list[float]
    state: dict[str, torch.Tensor]


class Job:
    """One training's folder, which may be called several times."""

    def __init__(self, place: Path, settings: dict[str, Any] | None = None, **toy: Any):
        self.place, self.folder = place, place / "checkpoints"
        self.settings, self.toy = SETTINGS | (settings or {}), toy
        place.mkdir(parents=True, exist_ok=True)

    def write(self, settings: dict[str, Any] | None = None, **toy: Any) -> Path:
        path = self.place / "job.json"
        told = {"settings": self.settings | (settings or {}), "folder": str(self.folder), "toy": self.toy | toy,
                "out": str(self.place / "out.json")}  # fmt: skip
        path.write_text(json.dumps(told))
        return path

    def run(self, ranks: int = 2, settings: dict[str, Any] | None = None) -> Outcome:
        launch("tests.toy_training", [str(self.write(settings))], processes=ranks)
        told = json.loads((self.place / "out.json").read_text())
        losses, validation = ([one["loss"] for one in told[part]] for part in ("steps", "evaluations"))
        return Outcome(losses, validation, load_file(told["state"]))

    def stop(self, number: int, after: int = 4) -> None:
        """Start it slowly, and send a signal to all its processes in the step after checkpoint `after`."""
        command = [sys.executable, *torchrun("tests.toy_training", [str(self.write(slow=0.05))], 2, port=_port())]
        process = subprocess.Popen(
            command, cwd=TOP, env=os.environ | {"OMP_NUM_THREADS": "1"}, start_new_session=True,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        while not any(int(path.parent.name[5:]) >= after for path in self.folder.glob("step-*/manifest.json")):
            assert process.poll() is None, "the training ended before it was stopped"
            time.sleep(0.02)
        time.sleep(0.15)
        os.killpg(process.pid, number)
        assert process.wait() != 0

    def steps(self) -> list[int]:
        return sorted(int(path.parent.name[5:]) for path in self.folder.glob("step-*/manifest.json"))


def _port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module", autouse=True)
def here() -> Iterator[None]:
    before = Path.cwd()
    os.chdir(TOP)
    yield
    os.chdir(before)


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    """Without dropout, so that every way of sharing a batch out computes the same."""
    return Job(tmp_path_factory.mktemp("unbroken"), dropout=0.0).run()


@pytest.mark.parametrize(
    ("ranks", "settings"),
    [
        (1, {"micro_batch": None}),
        (2, {"zero_stage": 1, "micro_batch": 1}),
        (2, {"zero_stage": 3, "offload": "parameters"}),
        (2, {"zero_stage": 0, "micro_batch": 3}),
    ],
    ids=["one rank", "accumulation", "stage 3", "a rank without units in the last pass"],
)
def test_a_steps_result_depends_neither_on_ranks_nor_stage_nor_accumulation(
    tmp_path: Path, unbroken: Outcome, ranks: int, settings: dict[str, Any]
) -> None:
    other = Job(tmp_path, settings, dropout=0.0).run(ranks)
    assert len(other.losses) == STEPS
    assert other.losses == pytest.approx(unbroken.losses, abs=2e-6)
    assert other.validation == pytest.approx(unbroken.validation, abs=2e-6)
    for name, value in unbroken.state.items():
        torch.testing.assert_close(other.state[name], value, atol=2e-5, rtol=0)


@pytest.mark.parametrize("stage", [2, 3])
def test_a_stopped_training_goes_on_as_if_it_had_not_been(tmp_path: Path, stage: int) -> None:
    """With dropout; SIGTERM saves the step in progress, a kill loses what came after the last checkpoint."""
    settings = {"zero_stage": stage}
    whole = Job(tmp_path / "whole", settings).run()
    stopped, killed = Job(tmp_path / "stopped", settings), Job(tmp_path / "killed", settings)
    stopped.stop(signal.SIGTERM)
    assert 4 < stopped.steps()[-1] < STEPS
    killed.stop(signal.SIGKILL)
    assert killed.steps() == [4]
    for job in (stopped, killed):
        resumed = job.run()
        assert resumed.losses == whole.losses
        assert resumed.validation == whole.validation
        assert all(torch.equal(resumed.state[name], value) for name, value in whole.state.items())
        assert job.steps() == [12, STEPS]
        lines = [json.loads(line) for line in (job.folder / LINES).read_text().splitlines()]
        told = [line["step"] for line in lines if "loss" in line.get("figures", {})]
        assert told == list(range(1, STEPS + 1))


@pytest.mark.parametrize("frozen", [False, True])
def test_two_ranks_checkpoint_goes_on_with_one(tmp_path: Path, frozen: bool) -> None:
    whole = Job(tmp_path / "whole", dropout=0.0, frozen=frozen).run()
    job = Job(tmp_path / "stopped", dropout=0.0, frozen=frozen)
    job.stop(signal.SIGTERM)
    resumed = job.run(ranks=1)
    assert resumed.losses == pytest.approx(whole.losses, abs=1e-6)
    assert set(resumed.state) == set(whole.state)
    assert any(name.startswith("base.") for name in whole.state) is not frozen


def test_what_cannot_go_on_is_refused_and_left_alone(tmp_path: Path) -> None:
    job = Job(tmp_path)
    job.stop(signal.SIGTERM)
    before = job.steps()
    with pytest.raises(EditLoopError, match="written by 2 processes at zero_stage 2; 2 processes at zero_stage 3"):
        job.run(settings={"zero_stage": 3})
    with pytest.raises(EditLoopError, match="a checkpoint of another training"):
        job.run(settings={"learning_rate": 0.01})
    state = next((job.folder / f"step-{before[-1]:08d}" / "engine").glob("*optim_states.pt"))
    state.write_bytes(state.read_bytes()[:-1] + b"!")
    with pytest.raises(EditLoopError, match="changed since it was written: engine/"):
        job.run()
    assert job.steps() == before


def test_a_nan_ends_all_ranks_and_is_named(tmp_path: Path) -> None:
    """Row 7 comes once an epoch; it is met in the first."""
    job = Job(tmp_path, {"checkpoint_every": 1}, spoilt=7)
    with pytest.raises(EditLoopError, match=r"loss is nan at step (\d+), on .*row 7\b") as raised:
        job.run()
    assert "Lower learning_rate (0.02)" in str(raised.value)
    assert job.steps()[-1] == int(str(raised.value).split("at step ")[1].split(",")[0]) - 1
    read_manifest(job.folder / f"step-{job.steps()[-1]:08d}", check=True)


def test_patience_ends_a_training_that_learns_nothing_more_and_the_best_is_kept(tmp_path: Path) -> None:
    found = Job(tmp_path, {"learning_rate": 1.0, "evaluate_every": 1, "patience": 2, "schedule": "constant"}).run()
    best = found.validation.index(min(found.validation))
    assert len(found.validation) - 1 == best + 2 < STEPS
    first = torch.linalg.norm(found.state["head.weight"])
    assert read_manifest(tmp_path / "checkpoints" / "best")["facts"]["step"] == best
    assert torch.isfinite(first)


def test_bf16_keeps_fp32_masters(tmp_path: Path, unbroken: Outcome) -> None:
    found = Job(tmp_path, {"precision": "bf16"}, dropout=0.0).run()
    assert found.losses == pytest.approx(unbroken.losses, rel=0.05)
    weight = found.state["base.weight"]
    assert not torch.equal(weight, weight.bfloat16().float())
