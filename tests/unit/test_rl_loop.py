"""The shipped RL loop on a toy: what it evaluates, keeps, ends at and goes on from."""

import os
import signal
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from editloop.errors import EditLoopError
from editloop.models.judge_protocol import AxisScore, JudgeUnavailableError, Score
from editloop.training import training_run
from editloop.training.editor_rl import loop
from editloop.training.editor_rl.guards import Verdict
from editloop.training.editor_rl.settings import RlSettings
from editloop.training.engine import start_engine
from editloop.training.training_task import ParameterGroup
from tests.toy_editing import GOALS, ClosenessJudge, Fetches, PlainEngine, one_rank, toy_training

OTHER = {"nft": {"beta": 0.5}, "flow-grpo": {"ratio_clip": (1e-3, 1e-3)}}
"""A setting of each algorithm that makes another training."""
SIZES = {"tasks": 2, "members": 2, "sampling_steps": 2, "algorithm": {"name": "nft", "levels": 1}, "learning_rate": 0.1}


@pytest.fixture(autouse=True)
def _rank(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(loop, "start_engine", PlainEngine)
    with one_rank():
        yield


class Onlooker:
    """Notes what it is shown; stops the training after the evaluation of this iteration."""

    def __init__(self, stops_at: int | None = None):
        self.stops_at, self.iterations = stops_at, list[int]()
        self.weights, self.training = list[list[torch.Tensor]](), list[dict[str, float]]()

    def evaluate(self, iteration: int, editor: Any, training: dict[str, float]) -> Verdict:
        self.iterations.append(iteration)
        self.weights.append([parameter.detach().clone() for parameter in editor.trained])
        self.training.append(training)
        stops = iteration == self.stops_at
        return Verdict(stops, False, "enough" if stops else "", 0, {"reward": float(iteration)})


def trained(folder: Path, judges: dict[str, ClosenessJudge] | None = None, **told: Any) -> Any:
    folder.mkdir(exist_ok=True)
    return toy_training(folder, RlSettings(**SIZES | told), judges or {"closeness": ClosenessJudge()})


def test_the_averaged_editor_is_what_evaluations_see(tmp_path: Path) -> None:
    """After n iterations the average has the decay n / (9 + n), and `ema_decay` at most."""
    onlooker = Onlooker()
    training = trained(tmp_path, iterations=5, evaluate_every=2, ema_decay=0.15)
    expected, steps = [one.clone() for one in training.averages], list[list[torch.Tensor]]()
    follow = training.weights.ema_update

    def noted(averages: list[torch.Tensor], decay: float) -> None:
        if averages is training.averages:
            steps.append([one.detach().clone() for one in training.weights.trained])
        follow(averages, decay)

    training.weights.ema_update = noted
    improved = training.run(onlooker)
    assert onlooker.iterations == [0, 2, 4, 5]
    seen = dict(zip(onlooker.iterations, onlooker.weights, strict=True))
    for number, weights in enumerate(steps, 1):
        decay = min(0.15, number / (9 + number))
        expected = [decay * average + (1 - decay) * weight for average, weight in zip(expected, weights, strict=True)]
        if number in seen:
            torch.testing.assert_close(seen[number], expected)
    torch.testing.assert_close([one.detach() for one in training.weights.trained], expected)
    assert [one["step"] for one in improved.history["steps"]] == [1, 2, 3, 4, 5]
    assert [one["step"] for one in improved.history["evaluations"]] == [0, 2, 4, 5]
    assert improved.reason == ""


def test_an_evaluation_is_told_the_means_since_the_one_before(tmp_path: Path) -> None:
    onlooker = Onlooker()
    history = trained(tmp_path, iterations=4, evaluate_every=2).run(onlooker).history
    rewards = [one["reward"] for one in history["steps"]]
    assert onlooker.training[0] == {}
    assert [one["reward"] for one in onlooker.training[1:]] == pytest.approx(
        [sum(rewards[:2]) / 2, sum(rewards[2:]) / 2]
    )
    assert "step" not in onlooker.training[1]


def test_the_distance_to_the_base_is_told_before_evaluations_alone_where_it_is_no_part_of_the_loss(
    tmp_path: Path,
) -> None:
    history = trained(tmp_path, iterations=5, evaluate_every=2, kl=0.0).run(None).history
    assert ["kl" in one for one in history["steps"]] == [False, True, False, True, True]


def test_a_verdict_ends_the_training_with_its_reason(tmp_path: Path) -> None:
    improved = trained(tmp_path, iterations=6, evaluate_every=2).run(Onlooker(stops_at=2))
    assert len(improved.history["steps"]) == 2
    again = trained(tmp_path, iterations=6, evaluate_every=2).run(Onlooker())  # killed before it wrote its result
    for result in (improved, again):
        assert (result.reason, result.history["ended"]) == ("enough", [{"step": 2}])
    assert [path.name for path in (tmp_path / "checkpoints").glob("step-*")] == ["step-00000002"]


RISING = {"name": "nft", "levels": 2, "times": "rollout", "solver": "dpm2", "old_policy_rate": 0.1}
DRAWN = {"name": "flow-grpo", "window": 2, "window_range": 2, "trained": 1, "trained_kind": "random"}
BATCHED = {"optimiser_steps": 2, "forward_batch": 2, "ema_every": 2, "train_silent": True, "tasks": 3}


@pytest.mark.parametrize(
    ("algorithm", "more"),
    [
        ({"name": "nft", "levels": 1}, {}),
        ({"name": "flow-grpo", "window": 1, "window_range": 1}, {}),
        (RISING, BATCHED),
        (DRAWN, BATCHED),
    ],
)
def test_a_training_goes_on_as_if_it_had_never_stopped(
    tmp_path: Path, algorithm: dict[str, Any], more: dict[str, Any]
) -> None:
    told = {"algorithm": algorithm, **more}
    whole = trained(tmp_path / "whole", iterations=5, checkpoint_every=1, checkpoints_kept=2, **told)
    unbroken = whole.run(None).history["steps"]
    assert sorted(path.name for path in (tmp_path / "whole" / "checkpoints").glob("step-*")) == [
        "step-00000004",
        "step-00000005",
    ]
    first = trained(tmp_path / "parts", iterations=3, **told)
    first.run(None)
    second = trained(tmp_path / "parts", iterations=5, **told)
    assert second.training_run.step == 3
    steps = second.run(None).history["steps"]
    for one, expected in zip(steps, unbroken, strict=True):
        assert {name: one[name] for name in ("step", "reward", "loss")} == pytest.approx(
            {name: expected[name] for name in ("step", "reward", "loss")}
        )
    torch.testing.assert_close(second.averages, whole.averages)
    torch.testing.assert_close(second.algorithm.state(), whole.algorithm.state())
    for other in ({"seed": 1}, {"algorithm": algorithm | OTHER[algorithm["name"]]}):
        with pytest.raises(EditLoopError, match="a checkpoint of another training"):
            trained(tmp_path / "parts", iterations=5, **told | other)


def test_an_average_may_follow_optimiser_steps(tmp_path: Path) -> None:
    """As Flow-GRPO's code counts: after steps 2, 5, 8 where it is each third, with decay (1 + step) / (10 + step)."""
    training = trained(tmp_path, iterations=4, optimiser_steps=2, ema_every=3, ema_decay=0.4)
    decays, follow = list[float](), training.weights.ema_update

    def noted(averages: list[torch.Tensor], decay: float) -> None:
        if averages is training.averages:
            decays.append(decay)
        follow(averages, decay)

    training.weights.ema_update = noted
    training.run(None)
    assert decays == pytest.approx([3 / 12, 6 / 15, 0.4])


def test_the_old_policy_follows_the_number_of_optimiser_steps(tmp_path: Path) -> None:
    algorithm = {"name": "nft", "levels": 1, "old_policy_rate": 0.01, "old_policy_flat": 3, "old_policy_decay": 0.04}
    training = trained(tmp_path, iterations=4, optimiser_steps=2, algorithm=algorithm)
    decays, follow = list[float](), training.weights.ema_update

    def noted(averages: list[torch.Tensor], decay: float) -> None:
        if averages is training.algorithm.old:
            decays.append(decay)
        follow(averages, decay)

    training.weights.ema_update = noted
    training.run(None)
    assert decays == pytest.approx([0.0, 0.01, 0.03, 0.04])


def test_adamw_has_the_settings_betas(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    optimisers = list[torch.optim.AdamW]()

    def initialize(optimizer: torch.optim.AdamW, **told: Any) -> tuple[PlainEngine]:
        optimisers.append(optimizer)
        return (PlainEngine(told["model"], [ParameterGroup(told["model"].parameters(), 1.0)], RlSettings()),)

    monkeypatch.setitem(sys.modules, "deepspeed", SimpleNamespace(initialize=initialize))
    monkeypatch.setattr(loop, "start_engine", start_engine)
    trained(tmp_path / "own")
    trained(tmp_path / "published", betas=(0.9, 0.95), weight_decay=0.01)
    found = [(one.defaults["betas"], one.defaults["eps"], one.defaults["weight_decay"]) for one in optimisers]
    assert found == [((0.9, 0.999), 1e-8, 1e-4), ((0.9, 0.95), 1e-8, 0.01)]


class Alike(ClosenessJudge):
    """Has one good reward for all edits."""

    def _score(self, group: Any, member: int) -> Score:
        return Score({"one": AxisScore(0.95, 0.0)}, AxisScore(0.95, 0.0), 0.95, 0.95)


def test_an_iteration_that_teaches_nothing_counts_its_optimiser_steps(tmp_path: Path) -> None:
    training = trained(tmp_path, {"closeness": Alike()}, iterations=2, optimiser_steps=2, ema_every=4, ema_decay=0.9)
    before = [one.clone() for one in training.averages]
    seen, after = list[int](), training._average_after
    training._average_after = lambda steps: (seen.append(steps), after(steps))
    history = training.run(None).history["steps"]
    assert [step["trained"] for step in history] == [0.0, 0.0]
    assert seen == [1, 2, 3, 4]
    torch.testing.assert_close(training.averages, before)


def test_tasks_of_one_instruction_are_one_group_and_are_solved_together(tmp_path: Path) -> None:
    told = {"group_by": "instruction", "solved_spread": 0.05, "tasks": 2, "iterations": 1}
    training = trained(tmp_path, {"closeness": Alike()}, **told)
    rows = training.prompts.rows
    training.prompts.rows = [replace(row, instruction=rows[0].instruction) for row in rows[:4]] + [rows[4]]
    solved = [int(one["task"]) for one in training.run(None).history["solved"]]
    assert solved in ([0, 1, 2, 3], [0, 1, 2, 3, 4])


def test_only_groups_that_teach_are_trained_on_where_that_is_asked_for(tmp_path: Path) -> None:
    told = {"iterations": 1, "tasks": 5, "members": 3, "solved_spread": 0.001, "solved_mean": 0.9, "train_silent": True}
    every = trained(tmp_path / "every", **told).run(None).history["steps"][0]
    masked = trained(tmp_path / "masked", mask_solved=True, **told).run(None).history["steps"][0]
    assert every["trained"] == 15
    assert masked["trained"] == 15
    high = trained(tmp_path / "high", mask_solved=True, **told | {"solved_mean": 0.5}).run(None).history["steps"][0]
    assert high["trained"] < 15


def test_checkpoints_come_as_often_as_they_are_asked_for_and_at_the_end(tmp_path: Path) -> None:
    trained(tmp_path, iterations=5, checkpoint_every=2, checkpoints_kept=9).run(None)
    names = sorted(path.name for path in (tmp_path / "checkpoints").glob("step-*"))
    assert names == ["step-00000002", "step-00000004", "step-00000005"]


def test_too_many_missing_rewards_end_the_training_after_as_many_iterations_as_are_looked_at(tmp_path: Path) -> None:
    """Of each task's two edits one has no reward: a half is missing, and nothing can be learnt."""
    lost = {"closeness": ClosenessJudge(lost=frozenset((f"task {task}", 1) for task in range(len(GOALS))))}
    told = {"iterations": 4, "missing_over": 3}
    with pytest.raises(EditLoopError, match=r"50% of the rewards of the last 3 iterations are missing.*6 x lost"):
        trained(tmp_path / "strict", lost, most_missing=0.49, **told).run(None)
    assert [path.name for path in (tmp_path / "strict" / "checkpoints").glob("step-*")] == ["step-00000003"]
    history = trained(tmp_path / "lenient", lost, most_missing=0.5, **told).run(None).history
    assert [(one["trained"], one["silent_groups"], one["missing"]) for one in history["steps"]] == [(0, 1, 0.5)] * 4


def test_solved_tasks_leave_and_the_training_ends_with_the_last(tmp_path: Path) -> None:
    """A judge that is pleased with everything: two tasks a time are solved, then the fifth alone."""
    pleased = {"closeness": ClosenessJudge(sharpness=0.0)}
    improved = trained(tmp_path, pleased, iterations=9, solved_spread=0.05).run(None)
    solved = improved.history["solved"]
    assert [one["step"] for one in solved] == [1, 1, 2, 2, 3]
    assert sorted(one["task"] for one in solved) == list(range(len(GOALS)))
    assert improved.reason == "all but 0 of 5 tasks are solved"
    assert improved.history["ended"] == [{"step": 3}]


def test_rewards_of_several_judges_are_told_apart_and_added_by_weight(tmp_path: Path) -> None:
    judges = {"plain": ClosenessJudge(), "sharp": ClosenessJudge(sharpness=2.0)}
    step = trained(tmp_path, judges, iterations=1).run(None).history["steps"][0]
    assert step["reward"] == pytest.approx((step["reward_plain"] + step["reward_sharp"]) / 2)
    assert step["reward_sharp"] < step["reward_plain"]
    assert step["spread"] > 0


def test_a_single_judges_reward_is_the_reward_and_has_no_figure_of_its_own(tmp_path: Path) -> None:
    step = trained(tmp_path, iterations=1).run(None).history["steps"][0]
    assert "reward" in step
    assert "reward_closeness" not in step


@pytest.mark.parametrize("chunks", [1, 2, 4])
def test_a_rank_samples_its_tasks_in_chunks(tmp_path: Path, chunks: int) -> None:
    """While one is scored the next is sampled: each chunk is a call of the judge."""
    judge = Counting()
    trained(tmp_path, {"closeness": judge}, iterations=1, tasks=4, chunks=chunks).run(None)
    assert judge.groups == [4 // chunks] * chunks


@pytest.mark.parametrize(("pace", "printed"), [(-1.0, True), (1000.0, False)])
def test_progress_is_printed_once_its_pace_is_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, pace: float, printed: bool
) -> None:
    caplog.set_level("INFO", "editloop")
    monkeypatch.setattr(training_run, "PRINT_INTERVAL_SECONDS", pace)
    trained(tmp_path, iterations=3).run(None)
    assert ("iteration 2/3: reward" in caplog.text) == printed


def test_a_trainings_folder_is_made_with_those_above_it(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").mkdir()
    trained(tmp_path, iterations=1).run(None)
    training = toy_training(tmp_path, RlSettings(**SIZES, iterations=1), {"c": ClosenessJudge()}, checkpoints="a/b/c")
    training.run(None)
    assert list((tmp_path / "a" / "b" / "c").glob("step-*"))


def test_an_iterations_figures_count_its_groups_and_what_it_cost(tmp_path: Path) -> None:
    """Five tasks of two edits in two sampling steps; three of them have one reward alone, and so nothing to compare."""
    lost = {"closeness": ClosenessJudge(lost=frozenset({("task 0", 1), ("task 1", 1), ("task 2", 1)}))}
    steps = trained(tmp_path, lost, iterations=2, tasks=5).run(None).history["steps"]
    for step in steps:
        assert (step["silent_groups"], step["missing"], step["trained"]) == (0.6, 0.3, 4)
        assert (step["network_calls"], step["shared_steps"]) == (5 * 2 * 2, 0)
    assert steps[0]["encodings"] == 5
    assert steps[1]["encodings"] == 0, "all are on disk"


class Counting(ClosenessJudge):
    """Notes how many groups each call has."""

    def __init__(self) -> None:
        super().__init__()
        self.groups: list[int] = []

    def judge(self, groups: Any) -> Any:
        self.groups.append(len(groups))
        return super().judge(groups)


class Leaving(ClosenessJudge):
    """Asks the process to stop when its third groups come, and is away from then on where it is told so."""

    def __init__(self, away: bool):
        super().__init__()
        self.away, self.calls = away, 0

    def judge(self, groups: Any) -> Any:
        self.calls += 1
        if self.calls == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        if self.calls >= 3 and self.away:
            raise JudgeUnavailableError("nobody answers.")
        return super().judge(groups)


@pytest.mark.parametrize(("away", "saved"), [(False, 3), (True, 2)])
def test_a_training_that_is_asked_to_stop_saves_what_is_whole(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, away: bool, saved: int
) -> None:
    caplog.set_level("INFO", "editloop")
    training = trained(tmp_path, {"closeness": Leaving(away)}, iterations=9, chunks=1)
    with pytest.raises(SystemExit) as stopped:
        training.run(None)
    assert stopped.value.code == training_run.STOPPED_STATUS
    assert [path.name for path in (tmp_path / "checkpoints").glob("step-*")] == [f"step-0000000{saved}"]
    assert f"stopped at iteration {saved} and saved" in caplog.text


def test_a_judge_that_cannot_go_on_ends_the_training_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "kill", lambda *_: None)
    with pytest.raises(EditLoopError, match="closeness: nobody answers"):
        trained(tmp_path, {"closeness": Leaving(away=True)}, iterations=9, chunks=1).run(None)
    assert [path.name for path in (tmp_path / "checkpoints").glob("step-*")] == ["step-00000002"]


@pytest.mark.parametrize("told", [{"best_members": 2}, {"algorithm": DRAWN, **BATCHED}])
def test_judges_that_are_elsewhere_teach_the_same(tmp_path: Path, told: dict[str, Any]) -> None:
    """Rewards that come from elsewhere are waited for after the old policy and the frozen editor were asked."""
    here, elsewhere = (
        trained(tmp_path / name, {address: ClosenessJudge()}, iterations=2, members=3, **told)
        .run(None)
        .history["steps"]
        for name, address in (("here", "closeness"), ("elsewhere", "http://closeness"))
    )
    for one, other in zip(here, elsewhere, strict=True):
        assert other["loss"] == pytest.approx(one["loss"])
        assert other["kl"] == pytest.approx(one["kl"])


def test_no_value_is_fetched_for_each_pass_of_an_update(tmp_path: Path) -> None:
    counts = []
    for micro_batch in (1, 4):
        training = trained(tmp_path / str(micro_batch), iterations=2, micro_batch=micro_batch)
        with Fetches() as fetches:
            training.run(None)
        counts.append(fetches.count)
    assert counts[0] == counts[1] > 0


def test_a_training_without_a_task_for_each_process_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop.distributed, "get_world_size", lambda: 3)
    with pytest.raises(EditLoopError, match="5 tasks to practise, 2 an iteration, for 3 processes"):
        trained(tmp_path)
