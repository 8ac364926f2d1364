"""Training on real processes: any ZeRO stage and number of ranks computes the same; stopped and resumed is unbroken."""

import json
import os
import shutil
import signal
import time
from collections.abc import Iterator, Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from safetensors.torch import load_file

from editloop.content import read_manifest
from editloop.training.metric_log import LINES_FILE
from editloop.training.training_run import STOPPED_STATUS
from tests.forked_ranks import run_ranks, start_ranks
from tests.toy_training import Toy

pytestmark = pytest.mark.floats

TOP = Path(__file__).parents[2]
SETTINGS = {
    "learning_rate": 0.02,
    "epochs": 3,
    "batch": 8,
    "micro_batch": 2,
    "evaluate_every": 5,
    "checkpoint_every": 4,
}
STEPS = 15
ROUNDING = 1e-4
"""How far float32 may take the losses of two correct orders of summation apart in 15 steps of AdamW. A share of a rank
or of a pass that is counted wrong changes them by more than a hundredth."""


class Outcome(NamedTuple):
    losses: list[float]
    validation: list[float]
    state: dict[str, torch.Tensor]


def validation_loss(state: dict[str, torch.Tensor]) -> float:
    """Mean squared error of a saved state over the validation rows, computed here in float64."""
    toy = Toy(dropout=0.0)
    toy.model.load_state_dict(state, strict=False)
    toy.model.double().eval()
    rows = toy.batch("validation", range(toy.count("validation"))).tensors
    with torch.no_grad():
        return float((toy.model(rows["x"].double()) - rows["y"].double()).square().mean())


class Job:
    """One training's folder, which may be called several times."""

    def __init__(self, place: Path, settings: dict[str, Any] | None = None, **toy: Any):
        self.place, self.folder = place, place / "checkpoints"
        self.told = {
            "settings": SETTINGS | (settings or {}),
            "folder": str(self.folder),
            "toy": toy,
            "out": str(place / "out.json"),
        }
        place.mkdir(parents=True, exist_ok=True)

    def outcome(self) -> Outcome:
        told = json.loads((self.place / "out.json").read_text())
        assert "error" not in told, told
        losses, validation = ([one["loss"] for one in told[part]] for part in ("steps", "evaluations"))
        return Outcome(losses, validation, load_file(told["state"]))

    def error(self) -> str:
        return str(json.loads((self.place / "out.json").read_text())["error"])

    def copied(self, place: Path, settings: dict[str, Any] | None = None) -> "Job":
        """The same checkpoints for another call."""
        other = Job(place, self.told["settings"] | (settings or {}), **self.told["toy"])  # type: ignore[operator,arg-type]
        shutil.copytree(self.folder, other.folder)
        return other

    def start_slowly(self) -> list[BaseProcess]:
        """Start two ranks that take 0.4 s a step, so that a signal hits the middle."""
        path = self.place / "slow.json"
        path.write_text(json.dumps([self.told | {"toy": self.told["toy"] | {"slow": 0.2}}]))  # type: ignore[operator]
        return start_ranks("tests.toy_training", [str(path)], 2, self.place / "slow.log")

    def steps(self) -> list[int]:
        """Steps of the complete checkpoints."""
        return sorted(int(path.parent.name[5:]) for path in self.folder.glob("step-*/manifest.json"))


def run(jobs: Sequence[Job], ranks: int = 2) -> None:
    path = jobs[0].place / "jobs.json"
    path.write_text(json.dumps([job.told for job in jobs]))
    run_ranks("tests.toy_training", [str(path)], ranks, jobs[0].place / "ranks.log")


@pytest.fixture(scope="module", autouse=True)
def here() -> Iterator[None]:
    before = Path.cwd()
    os.chdir(TOP)
    yield
    os.chdir(before)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Job]:
    """Trainings that nobody stops. Those without dropout must agree, however a batch is shared out."""
    place = tmp_path_factory.mktemp("finished")
    jobs = {
        "sure": Job(place / "sure", dropout=0.0),
        "frozen": Job(place / "frozen", dropout=0.0, frozen=True),
        "accumulated": Job(place / "accumulated", {"zero_stage": 1, "micro_batch": 1}, dropout=0.0),
        "uneven": Job(place / "uneven", {"zero_stage": 0, "micro_batch": 3}, dropout=0.0),
        "stage 3": Job(place / "stage-3", {"zero_stage": 3, "offload": "parameters"}, dropout=0.0),
        "bf16": Job(place / "bf16", {"precision": "bf16"}, dropout=0.0),
        "dropout 2": Job(place / "dropout-2"),
        "dropout 3": Job(place / "dropout-3", {"zero_stage": 3}),
        "patience": Job(
            place / "patience", {"learning_rate": 1.0, "evaluate_every": 1, "patience": 2, "schedule": "constant"}
        ),
    }
    run(list(jobs.values()))
    return jobs


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Job]:
    """Trainings that were stopped, as torchrun stops its ranks, or killed soon after their first checkpoint."""
    place = tmp_path_factory.mktemp("stopped")
    jobs = {
        "sure": Job(place / "sure", dropout=0.0),
        "frozen": Job(place / "frozen", dropout=0.0, frozen=True),
        "dropout 2": Job(place / "dropout-2"),
        "dropout 2 killed": Job(place / "dropout-2-killed"),
        "dropout 3": Job(place / "dropout-3", {"zero_stage": 3}),
    }
    running = {name: job.start_slowly() for name, job in jobs.items()}
    while running:
        for name in [name for name in running if jobs[name].steps()]:
            time.sleep(0.2)
            ranks = running.pop(name)
            for rank in ranks:
                (rank.kill if name == "dropout 2 killed" else rank.terminate)()
            for rank in ranks:
                rank.join()
            expected = -signal.SIGKILL if name == "dropout 2 killed" else STOPPED_STATUS
            assert [rank.exitcode for rank in ranks] == [expected] * 2, (jobs[name].place / "slow.log").read_text()
        for name, ranks in running.items():
            assert all(rank.is_alive() for rank in ranks), (jobs[name].place / "slow.log").read_text()
        time.sleep(0.02)
    return jobs


@pytest.fixture(scope="module")
def resumed(stopped: dict[str, Job], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Job]:
    """Those with dropout, gone on with as they were."""
    place = tmp_path_factory.mktemp("resumed")
    jobs = {name: job.copied(place / name.replace(" ", "-")) for name, job in stopped.items() if "dropout" in name}
    run(list(jobs.values()))
    return jobs


@pytest.fixture(scope="module")
def alone(stopped: dict[str, Job], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Job]:
    """What two ranks began, gone on with by one; and one that was alone from the beginning."""
    place = tmp_path_factory.mktemp("alone")
    jobs = {name: stopped[name].copied(place / name) for name in ("sure", "frozen")}
    jobs["from the beginning"] = Job(place / "beginning", {"micro_batch": None}, dropout=0.0)
    run(list(jobs.values()), ranks=1)
    return jobs


@pytest.mark.parametrize("way", ["accumulated", "uneven", "stage 3", "one rank"])
def test_a_steps_result_depends_neither_on_ranks_nor_stage_nor_accumulation(
    finished: dict[str, Job], alone: dict[str, Job], way: str
) -> None:
    """`uneven`: in the last pass of every step one rank has no unit left.

    Losses are compared, not weights: AdamW turns the rounding of a gradient near zero into a step of full size.
    """
    plain = finished["sure"].outcome()
    other = (alone["from the beginning"] if way == "one rank" else finished[way]).outcome()
    assert len(other.losses) == STEPS
    assert other.losses == pytest.approx(plain.losses, rel=ROUNDING)
    assert other.validation == pytest.approx(plain.validation, rel=ROUNDING)
    assert validation_loss(other.state) == pytest.approx(min(other.validation), rel=ROUNDING)


def test_sigterm_saves_the_step_in_progress_and_a_kill_leaves_whole_checkpoints(stopped: dict[str, Job]) -> None:
    assert 4 < stopped["dropout 2"].steps()[-1] < STEPS
    killed = stopped["dropout 2 killed"].steps()
    assert killed[-1] < STEPS
    assert all(step % 4 == 0 for step in killed)


@pytest.mark.parametrize("name", ["dropout 2", "dropout 2 killed", "dropout 3"])
def test_a_stopped_training_goes_on_as_if_it_had_not_been(
    finished: dict[str, Job], resumed: dict[str, Job], name: str
) -> None:
    job, whole = resumed[name], finished[name.removesuffix(" killed")].outcome()
    found = job.outcome()
    assert found.losses == pytest.approx(whole.losses, rel=ROUNDING)
    assert found.validation == pytest.approx(whole.validation, rel=ROUNDING)
    assert validation_loss(found.state) == pytest.approx(validation_loss(whole.state), rel=ROUNDING)
    assert job.steps() == [12, STEPS]
    lines = [json.loads(line) for line in (job.folder / LINES_FILE).read_text().splitlines()]
    assert [line["step"] for line in lines if "loss" in line.get("figures", {})] == list(range(1, STEPS + 1))


@pytest.mark.parametrize("name", ["sure", "frozen"])
def test_two_ranks_checkpoint_goes_on_with_one(finished: dict[str, Job], alone: dict[str, Job], name: str) -> None:
    found, whole = alone[name].outcome(), finished[name].outcome()
    assert found.losses == pytest.approx(whole.losses, rel=ROUNDING)
    assert set(found.state) == set(whole.state)
    assert any(key.startswith("base.") for key in whole.state) is (name != "frozen")


def test_what_cannot_go_on_is_refused_and_left_alone_and_a_nan_is_named(
    stopped: dict[str, Job], finished: dict[str, Job], tmp_path: Path
) -> None:
    """Row 7 comes once an epoch, so it is met in the first."""
    refused = {
        "written by 2 processes at zero_stage 2; 2 processes at zero_stage 3": {"zero_stage": 3},
        "a checkpoint of another training": {"learning_rate": 0.01},
    }
    jobs = [stopped["sure"].copied(tmp_path / str(place), settings) for place, settings in enumerate(refused.values())]
    before = stopped["sure"].steps()
    damaged = stopped["sure"].copied(tmp_path / "damaged", {})
    state = next((damaged.folder / f"step-{before[-1]:08d}" / "engine").glob("*optim_states.pt"))
    state.write_bytes(state.read_bytes()[:-1] + b"!")
    spoilt = Job(tmp_path / "spoilt", {"checkpoint_every": 1}, spoilt=7)
    run([*jobs, damaged, spoilt])
    assert damaged.outcome().losses == pytest.approx(finished["sure"].outcome().losses, rel=ROUNDING), "passed over"
    for words, job in zip(refused, jobs, strict=True):
        assert words in job.error()
        assert job.steps() == before
    told = spoilt.error()
    assert "loss is nan at step " in told
    assert "row 7" in told
    assert "Lower learning_rate (0.02)" in told
    assert spoilt.steps()[-1] == int(told.split("at step ")[1].split(",")[0]) - 1
    read_manifest(spoilt.folder / f"step-{spoilt.steps()[-1]:08d}", check=True)


def test_patience_ends_a_training_that_learns_nothing_more_and_the_best_is_kept(finished: dict[str, Job]) -> None:
    job = finished["patience"]
    validation = job.outcome().validation
    best = validation.index(min(validation))
    assert len(validation) - 1 == best + 2 < STEPS
    assert read_manifest(job.folder / "best")["facts"]["step"] == best


def test_bf16_keeps_fp32_masters(finished: dict[str, Job]) -> None:
    found = finished["bf16"].outcome()
    assert found.losses == pytest.approx(finished["sure"].outcome().losses, rel=0.05)
    weight = found.state["base.weight"]
    assert not torch.equal(weight, weight.bfloat16().float())
