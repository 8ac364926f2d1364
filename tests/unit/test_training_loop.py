"""The shipped training loop in one process: the rate of each step, what a step minimises, when it looks and stops."""

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from editloop.errors import EditLoopError
from editloop.training import checkpoint, loop, training_run
from editloop.training.metric_log import LINES_FILE
from editloop.training.schedule import learning_rate
from editloop.training.settings import TrainingSettings
from editloop.training.training_task import Batch
from tests.toy_editing import Fetches, one_rank

UNITS = {"train": 12, "validation": 5}


class Slope(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.slope = nn.Parameter(torch.zeros(1, dtype=torch.float64))


class Line:
    """y = 3 x, learnt from units x = 1, 2, ...; a unit weighs 1."""

    def __init__(self) -> None:
        self.model = Slope()

    def parameter_groups(self) -> list[Any]:
        return []

    def count(self, split: str) -> int:
        return UNITS[split]

    def name(self, split: str, unit: int) -> str:
        return f"unit {unit}"

    def batch(self, split: str, units: list[int]) -> Batch:
        return Batch({"x": torch.tensor(units, dtype=torch.float64) / 10 + 0.1}, float(len(units)), len(units))

    def loss(self, engine: Any, batch: Batch) -> Tensor:
        x = batch.tensors["x"]
        return ((self.model.slope - 3) * x).square().mean()

    def measure(self, engine: Any, batch: Batch) -> dict[str, Any]:
        x = batch.tensors["x"]
        return {"squares": ((self.model.slope - 3) * x).square().sum(), "rows": float(len(x))}

    def figures(self, sums: dict[str, float]) -> dict[str, float]:
        return {"loss": sums["squares"] / sums["rows"]}


class Descent:
    """Plain gradient descent that averages passes as DeepSpeed does; notes the rate of each step."""

    def __init__(self, model: Slope, groups: list[Any], settings: TrainingSettings, *, passes: int, **options: Any):
        self.module, self.passes, self.calls, self.rates = model, passes, 0, list[float]()
        self.optimizer = torch.optim.SGD([{"params": list(model.parameters()), "share": 0.5}], lr=1.0)

    def backward(self, loss: Tensor) -> None:
        (loss / self.passes).backward()  # type: ignore[no-untyped-call]

    def step(self) -> None:
        self.calls += 1
        if self.calls % self.passes == 0:
            self.rates.append(self.optimizer.param_groups[0]["lr"])
            self.optimizer.step()
            self.optimizer.zero_grad()

    def get_global_grad_norm(self) -> float:
        return 1.0

    def zero_optimization_stage(self) -> int:
        return 2

    def save_checkpoint(self, folder: str, tag: str, **options: bool) -> None:
        (Path(folder) / tag).mkdir()

    def train(self) -> None:
        pass

    eval = destroy = train


@pytest.fixture
def engines(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Descent]]:
    """Those that trainings have started."""
    started: list[Descent] = []

    def start(*parts: Any, **options: Any) -> Descent:
        started.append(Descent(*parts, **options))
        return started[-1]

    monkeypatch.setattr(loop, "start_engine", start)
    monkeypatch.setattr(checkpoint, "trainable_tensors", lambda engine: engine.module.state_dict().items())
    with one_rank():
        yield started


@pytest.mark.parametrize("micro_batch", [None, 3])
def test_each_step_has_its_own_rate_of_the_schedule_and_the_gradient_of_the_whole_batch(
    engines: list[Descent], tmp_path: Path, micro_batch: int | None
) -> None:
    """By hand: slope -= rate / 2 * 2 (slope - 3) mean(x^2), the group's share of the rate being a half."""
    settings = TrainingSettings(steps=6, batch=4, micro_batch=micro_batch, learning_rate=0.4, warmup=0.4)
    steps = loop.train(Line(), settings, tmp_path, facts={}).history["steps"]
    rates = [learning_rate(settings, step, 6) for step in range(6)]
    assert [one["learning_rate"] for one in steps] == pytest.approx(rates)
    assert [one["gradient_norm"] for one in steps] == [1.0] * 6
    curves = [json.loads(line) for line in (tmp_path / LINES_FILE).read_text().splitlines()[1:]]
    assert [line["step"] for line in curves] == [0, 1, 2, 3, 3, 4, 5, 6, 6], "a line a step, and one an evaluation"
    assert engines[0].rates == pytest.approx([rate / 2 for rate in rates])
    course, slope = loop.TrainingSchedule.of(settings, 12, 1), 0.0
    for step, one in enumerate(steps):
        mean_square = float((((course.units_of(step, 0) + 1) / 10) ** 2).mean())
        assert (one["step"], one["loss"]) == (step + 1, pytest.approx((slope - 3) ** 2 * mean_square))
        slope -= rates[step] * (slope - 3) * mean_square
    assert engines[0].module.slope.item() == pytest.approx(slope)


def test_no_value_is_fetched_for_each_pass(engines: list[Descent], tmp_path: Path) -> None:
    counts = []
    for micro_batch in (1, 4):
        settings = TrainingSettings(steps=3, batch=4, micro_batch=micro_batch, learning_rate=0.4)
        with Fetches() as fetches:
            loop.train(Line(), settings, tmp_path / str(micro_batch), facts={})
        counts.append(fetches.count)
    assert counts[0] == counts[1]


def test_a_gradient_that_is_not_finite_is_refused_by_step_and_units(
    engines: list[Descent], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Descent, "get_global_grad_norm", lambda engine: float("inf"))
    settings = TrainingSettings(steps=3, batch=2, learning_rate=0.4, seed=5)
    first, second = loop.TrainingSchedule.of(settings, 12, 1).units_of(0, 5)
    with pytest.raises(
        EditLoopError, match=rf"^training: the gradient's norm is inf at step 1, on unit {first}, unit {second}\. "
    ):
        loop.train(Line(), settings, tmp_path, facts={})


def test_it_looks_and_saves_as_often_as_it_is_asked_and_at_the_end(engines: list[Descent], tmp_path: Path) -> None:
    settings = TrainingSettings(
        steps=5, batch=4, learning_rate=0.4, evaluate_every=2, checkpoint_every=3, checkpoints_kept=9, warmup=0.0
    )
    trained = loop.train(Line(), settings, tmp_path, facts={})
    evaluations = trained.history["evaluations"]
    assert [one["step"] for one in evaluations] == [0, 2, 4, 5]
    # Units of x = 0.1 to 0.5, all of the validation split in one pass and in two: mean(x^2) = 0.11.
    assert evaluations[0]["loss"] == pytest.approx(9 * 0.11)
    assert sorted(path.name for path in tmp_path.glob("step-*")) == ["step-00000003", "step-00000005"]
    assert trained.state.is_file()


def test_it_stops_when_its_patience_is_over(engines: list[Descent], tmp_path: Path) -> None:
    """A rate that overshoots: the loss only rises, so the first look is the best and two more end it."""
    settings = TrainingSettings(
        steps=9, batch=12, learning_rate=90.0, schedule="constant", warmup=0.0, evaluate_every=1, patience=2
    )
    history = loop.train(Line(), settings, tmp_path, facts={}).history
    losses = [one["loss"] for one in history["evaluations"]]
    assert losses == sorted(losses)
    assert len(history["steps"]) == 2


@pytest.mark.parametrize("losses", [[3, 1, 2, 2], [3, 1, 1, 2], [3, 2, 1, 1, 1], [1, 2, 2]])
def test_patience_counts_the_evaluations_since_the_first_best(
    engines: list[Descent], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, losses: list[float]
) -> None:
    """The shipped loop is given the losses that it finds; two evaluations without a better one end it."""
    given = iter([*losses, *[9.0] * 10])
    monkeypatch.setattr(Line, "figures", lambda self, sums: {"loss": next(given)})
    settings = TrainingSettings(steps=9, batch=12, learning_rate=0.1, evaluate_every=1, patience=2)
    history = loop.train(Line(), settings, tmp_path, facts={}).history
    assert [one["loss"] for one in history["evaluations"]] == losses


@pytest.mark.parametrize(("interval", "printed"), [(-1.0, True), (1000.0, False)])
def test_progress_is_printed_once_its_interval_is_over(
    engines: list[Descent],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    interval: float,
    printed: bool,
) -> None:
    caplog.set_level("INFO", "editloop")
    monkeypatch.setattr(training_run, "PRINT_INTERVAL_SECONDS", interval)
    loop.train(Line(), TrainingSettings(steps=3, batch=12, learning_rate=0.1), tmp_path, facts={})
    assert ("step 2/3: loss" in caplog.text) == printed


class Interrupted(Line):
    """Asks the process to stop in the middle of the third step."""

    steps = 0

    def loss(self, engine: Any, batch: Batch) -> Tensor:
        self.steps += 1
        if self.steps == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        return super().loss(engine, batch)


def test_asked_to_stop_it_ends_the_step_and_saves(
    engines: list[Descent], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "editloop")
    settings = TrainingSettings(steps=9, batch=4, learning_rate=0.4, checkpoint_every=9)
    with pytest.raises(SystemExit) as stopped:
        loop.train(Interrupted(), settings, tmp_path, facts={})
    assert stopped.value.code == training_run.STOPPED_STATUS
    assert [path.name for path in tmp_path.glob("step-*")] == ["step-00000003"]
    assert "stopped at step 3 and saved" in caplog.text
