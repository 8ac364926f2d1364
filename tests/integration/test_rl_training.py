"""Online RL on real processes: a training that was stopped is an unbroken one, however many processes share it, and
what judges leave out or have nothing to say about is left out and counted.
"""

import json
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from editloop.data.edits_file import read_edits
from editloop.studies.world.scenes import write_edits
from editloop.training.editor_rl.settings import RlJob, read_rl_preset
from editloop.training.editor_rl.train import tasks_of
from editloop.training.metric_log import LINES_FILE
from tests.forked_ranks import run_ranks, start_ranks
from tests.planted_training import PAUSE, chosen

pytestmark = pytest.mark.floats

MODULE = "tests.planted_training"
ITERATIONS, MEMBERS, TASKS = 4, 3, 4
OF_THE_CLOCK = {"seconds", "samples_per_second", "sampling", "waiting", "encodings"}
"""Figures that differ between two calls of one training; a call that goes on encodes its tasks anew."""
GRPO = {
    "algorithm": {"name": "flow-grpo", "window_range": 3, "shared_noise": True},
    "best_members": 2,
    "kl": 0.0,
    "learning_rate": 3e-4,
}
RECIPE: dict[str, Any] = {
    "algorithm": {
        "name": "flow-grpo",
        "window": 4,
        "window_range": 4,
        "trained": 2,
        "trained_kind": "random",
        "reweighting": "published",
    },
    "optimiser_steps": 2,
    "forward_batch": 3,
    "train_silent": True,
    "ema_every": 3,
    "learning_rate": 3e-4,
}
"""As published recipes are: trained steps drawn for a batch, two optimiser steps, means of batches. Ranks then have
unlike numbers of passes."""

ROUNDING = 0.01
"""How far float32 may take a training's figures apart when its sums are formed in another order. A rank that counted
twice, or not at all, would change the gradient's norm by half or more."""

SHORT = {"sampling_steps": 2, "algorithm": {"name": "nft", "levels": 1}, "evaluate_every": 10, "checkpoint_every": 10}


class Training:
    """One training's files, and what it left."""

    def __init__(self, place: Path, edits: Path, reward: str, **told: Any):
        place.mkdir()
        self.job = RlJob(
            edits=edits,
            output=place / "output",
            editor="tiny-editor",
            rewards={f"{reward}": 1.0},
            settings=read_rl_preset(
                "smallest",
                **{"iterations": ITERATIONS, "precision": "fp32", "judge_patience": 0, "evaluation_tasks": 2} | told,
            ),
            checkpoints=place / "checkpoints",
        )
        self.path = place / "job.json"
        self.path.write_text(self.job.model_dump_json())

    def history(self) -> dict[str, list[dict[str, float]]]:
        found: dict[str, list[dict[str, float]]] = json.loads((self.job.output / "training.json").read_text())
        return found

    def figures(self, part: str) -> list[dict[str, float]]:
        """Figures of each entry of the history's `steps` or `evaluations`, but those of the clock."""
        return [{name: entry[name] for name in entry.keys() - OF_THE_CLOCK} for entry in self.history()[part]]

    def steps(self) -> list[dict[str, float]]:
        """Figures of each iteration, but those of the clock."""
        return self.figures("steps")

    def weights(self) -> dict[str, torch.Tensor]:
        return load_file(self.job.output / "editor" / "transformer" / "diffusion_pytorch_model.safetensors")

    def saved(self) -> list[int]:
        """Iterations of the complete checkpoints."""
        return sorted(int(path.parent.name[5:]) for path in self.job.checkpoints.glob("step-*/manifest.json"))

    def killed(self) -> "Training":
        """All ranks of a slow call killed soon after its first checkpoint."""
        log = self.path.with_suffix(".log")
        ranks = start_ranks(MODULE, [str(self.path)], 1, log, {PAUSE: "0.3"})
        while not self.saved():
            assert all(rank.is_alive() for rank in ranks), log.read_text()
            time.sleep(0.02)
        time.sleep(0.3)
        for rank in ranks:
            rank.kill()
            rank.join()
        return self


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Training]:
    root = tmp_path_factory.mktemp("trained")
    write_edits(root / "edits", 12, 5)

    def made(name: str, reward: str, **told: Any) -> Training:
        return Training(root / name, root / "edits", f"planted:{reward}", **told)

    two = {
        "nft on two": made("nft-on-two", "closeness"),
        "grpo on two": made("grpo-on-two", "closeness", **GRPO),
        "recipe on two": made("recipe-on-two", "closeness", **RECIPE),
    }
    run_ranks(MODULE, [str(one.path) for one in two.values()], 2, root / "two.log")
    alone = {
        "nft": made("nft", "closeness"),
        "grpo": made("grpo", "closeness", **GRPO),
        "recipe": made("recipe", "closeness", **RECIPE),
        "killed": made("killed", "closeness").killed(),
        "away": made("away", "leaving", **GRPO),
        "elsewhere": Training(root / "elsewhere", root / "edits", "http://planted:closeness", iterations=2),
        "gaps": made("gaps", "gaps", **SHORT, iterations=3),
        "alike": made("alike", "alike", **SHORT, iterations=2),
        "silence": made("silence", "silent", **SHORT, most_missing=0.5, missing_over=2),
        "easy": made("easy", "easy", **SHORT, solved_spread=0.05, iterations=8),
    }
    paths = [str(one.path) for one in alone.values()]
    run_ranks(MODULE, [*paths, str(alone["away"].path)], 1, root / "alone.log")
    return two | alone


@pytest.mark.parametrize(("broken", "whole"), [("killed", "nft"), ("away", "grpo")])
def test_a_training_that_was_stopped_is_an_unbroken_one(trained: dict[str, Training], broken: str, whole: str) -> None:
    """`away`: the judge left in the third iteration, and was there again when the training was called again.

    Equal but for rounding: on some processors MKL's sums depend on where an array lies in memory.
    """
    found, expected = trained[broken], trained[whole]
    assert [one["step"] for one in found.steps()] == list(range(1, ITERATIONS + 1))
    for part in ("steps", "evaluations"):
        for ours, theirs in zip(found.figures(part), expected.figures(part), strict=True):
            assert ours == pytest.approx(theirs, rel=ROUNDING, abs=1e-4)
    lines = [json.loads(line) for line in (found.job.checkpoints / LINES_FILE).read_text().splitlines()]
    assert [one["step"] for one in lines if "loss" in one.get("figures", {})] == list(range(1, ITERATIONS + 1))


def test_a_judge_that_stays_away_ends_the_training_with_what_to_do(trained: dict[str, Training]) -> None:
    error = trained["away"].path.with_suffix(".error").read_text()
    assert error.startswith("planted:leaving: nobody answers. It was waited for 0 s (judge_patience 0).")
    assert error.endswith("The state is saved: start the judge and call again.")


@pytest.mark.parametrize("kind", ["nft", "grpo", "recipe"])
def test_two_processes_compute_what_one_does(trained: dict[str, Training], kind: str) -> None:
    """Figures are compared, not weights: AdamW turns the rounding of a gradient near zero into a step of full size."""
    one, two = trained[kind], trained[f"{kind} on two"]
    assert one.job.settings.zero_stage == 2
    for ours, theirs in zip(one.steps(), two.steps(), strict=True):
        assert theirs == pytest.approx(ours, rel=ROUNDING, abs=1e-4)


def test_rewards_from_elsewhere_teach_the_same(trained: dict[str, Training]) -> None:
    """What the update needs besides them is then computed for all edits, before they come."""
    for ours, theirs in zip(trained["nft"].steps()[:2], trained["elsewhere"].steps(), strict=True):
        assert theirs == pytest.approx(ours, rel=ROUNDING, abs=1e-4)


def test_the_distance_to_the_base_is_told_before_evaluations_where_it_is_no_part_of_the_loss(
    trained: dict[str, Training],
) -> None:
    assert [one["step"] for one in trained["grpo"].steps() if "kl" in one] == [2, 4]
    assert all("kl" in one for one in trained["nft"].steps())


def test_missing_rewards_drop_out_and_are_counted(trained: dict[str, Training]) -> None:
    steps = trained["gaps"].steps()
    edits = TASKS * MEMBERS
    for one in steps:
        missing = round(one["missing"] * edits)
        assert one["missing"] * edits == pytest.approx(missing)
        assert one.get("trained", 0) <= edits - missing
    assert sum(one["missing"] for one in steps) / len(steps) > 0.3
    assert any(one["trained"] > 0 for one in steps)
    assert any(one["silent_groups"] > 0 for one in steps)
    assert all(bool(value.isfinite().all()) for value in trained["gaps"].weights().values())


def test_too_many_missing_rewards_end_the_training_with_their_reason(trained: dict[str, Training]) -> None:
    error = trained["silence"].path.with_suffix(".error").read_text()
    assert "100% of the rewards of the last 2 iterations are missing, more than most_missing (0.5): " in error
    assert f"{2 * TASKS * MEMBERS} x the judge's score is not a finite number" in error
    assert trained["silence"].saved() == [2]


def test_groups_that_say_nothing_are_counted_and_teach_nothing(trained: dict[str, Training]) -> None:
    steps = trained["alike"].steps()
    assert [one["silent_groups"] for one in steps] == [1.0, 1.0]
    assert [one["trained"] for one in steps] == [0.0, 0.0]
    assert all("loss" not in one for one in steps)


def test_solved_tasks_leave_the_pool(trained: dict[str, Training]) -> None:
    job, history = trained["easy"].job, trained["easy"].history()
    practised = tasks_of(job)[0]
    assert len(practised) == len(read_edits(job.edits)) - job.settings.evaluation_tasks
    easy = [place for place, row in enumerate(practised) if chosen(row.id)]
    assert 1 < len(easy) < len(practised)
    assert sorted(one["task"] for one in history["solved"]) == easy
    gone = max(one["step"] for one in history["solved"])
    assert all(one["silent_groups"] == 0 for one in history["steps"] if one["step"] > gone)
    assert any(one["silent_groups"] > 0 for one in history["steps"] if one["step"] <= gone)
