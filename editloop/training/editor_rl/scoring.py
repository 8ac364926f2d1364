"""Rewards of edits while others are being made: each judge that teaches has a thread of its own.

What a judge does not say is missing and counted. A judge that is away is waited for; one that is another model than
before, or refuses what it is asked, ends the training.
"""

import threading
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from editloop.data.edits_file import EditRow
from editloop.data.picture_file import load_image
from editloop.data.picture_size import resized
from editloop.errors import EditLoopError
from editloop.evaluation.oracle import oracle
from editloop.models.edit_reward.settings import RewardSettings
from editloop.models.editors.settings import Size
from editloop.models.judge_protocol import AxisScore, EditGroup, Judge, JudgeUnavailableError, Score, StaleJudgeError
from editloop.scoring.opening import is_served, open_judge
from editloop.scoring.validation import validate_scores

ORACLE = "oracle"
"""The address of the comparison with the right result."""
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 30.0
"""Seconds between two tries of a judge that is away; each pause is twice the one before."""


class JudgeRewards(NamedTuple):
    """What one judge says of some groups."""

    rewards: Tensor
    """(P, G), NaN where missing."""
    missing: Counter[str]
    """How often each reason for a missing reward came."""


class PendingRewards:
    """Rewards that are on their way."""

    def __init__(self, futures: Mapping[str, Future[JudgeRewards]]):
        self._futures = futures

    def wait(self, seconds: float) -> bool:
        """Whether all are there, at the latest after so many seconds."""
        return not wait(self._futures.values(), timeout=seconds).not_done

    def answers(self) -> dict[str, JudgeRewards]:
        """By judge, waited for. Raises what the judge raised."""
        return {name: future.result() for name, future in self._futures.items()}


class OracleJudge:
    """The comparison with the right result as a judge: the control of a world in which it is known."""

    name = version = "oracle"
    axes = ("instruction_following", "visual_quality")

    def __init__(self, rows: Sequence[EditRow]):
        """rows: tasks with their targets; a group's `key` is its task's id."""
        self._targets = {row.id: row.target for row in rows}

    def judge(self, groups: Sequence[EditGroup]) -> list[list[Score]]:
        """One score an edit; the reward is the mean of both axes."""
        return [self._scores(group) for group in groups]

    def _scores(self, group: EditGroup) -> list[Score]:
        target = self._targets[group.key]
        assert target is not None
        size = (group.source.shape[0], group.source.shape[1])
        edits = np.stack([resized(edit, size) for edit in group.edits])
        targets = np.broadcast_to(resized(load_image(target), size), edits.shape)
        oracle_scores = oracle(np.broadcast_to(group.source, edits.shape), targets, edits)
        axis_scores = zip(
            oracle_scores.instruction_following.tolist(),
            oracle_scores.visual_quality.tolist(),
            oracle_scores.mean.tolist(),
            strict=True,
        )
        return [
            Score(
                {"instruction_following": AxisScore(done, 0.0), "visual_quality": AxisScore(quality, 0.0)},
                AxisScore(mean, 0.0),
                mean,
                mean,
            )
            for done, quality, mean in axis_scores
        ]


class RewardJudges:
    """The judges that teach, by address."""

    def __init__(self, judges: Mapping[str, Judge], *, patience: float):
        """patience: seconds that a judge which is away is waited for."""
        self.judges, self.patience = judges, patience
        self.seconds = 0.0
        """That judges have worked, or been waited for, so far: all of them together."""
        self.elsewhere = any(is_served(name) for name in judges)
        """Whether any of them works on a machine of its own, so that there is time until its rewards come."""
        self._stop = threading.Event()
        self._pools = {
            name: ThreadPoolExecutor(1, "reward", initializer=torch.set_num_threads, initargs=(1,)) for name in judges
        }

    def ask(self, groups: Sequence[EditGroup]) -> PendingRewards:
        """Have groups of equal size scored; returns at once."""
        return PendingRewards({name: pool.submit(self._scored, name, groups) for name, pool in self._pools.items()})

    def give_up(self) -> None:
        """Wait no longer for a judge that is away."""
        self._stop.set()

    def close(self) -> None:
        self.give_up()
        for pool in self._pools.values():
            pool.shutdown(wait=False, cancel_futures=True)

    def _scored(self, name: str, groups: Sequence[EditGroup]) -> JudgeRewards:
        judge, began, pause = self.judges[name], time.monotonic(), FIRST_PAUSE
        while True:
            try:
                scores = [[validate_scores(score, judge.axes) for score in group] for group in judge.judge(groups)]
                break
            except StaleJudgeError:
                raise
            except JudgeUnavailableError as error:
                if time.monotonic() - began + pause > self.patience or self._stop.is_set():
                    raise JudgeUnavailableError(
                        f"{name}: {error} It was waited for {time.monotonic() - began:.0f} s (judge_patience "
                        f"{self.patience:g}). The state is saved: start the judge and call again."
                    ) from error
                print(f"{name}: {error} Asked again in {pause:.0f} s.", flush=True)
                self._stop.wait(pause)
                pause = min(2 * pause, LONGEST_PAUSE)
        self.seconds += time.monotonic() - began
        rewards = [[float("nan") if score.reward is None else score.reward for score in group] for group in scores]
        return JudgeRewards(
            torch.tensor(rewards), Counter(score.missing for group in scores for score in group if score.missing)
        )


def open_reward_judges(
    addresses: Sequence[str], rows: Sequence[EditRow], sizes: Iterable[Size], *, patience: float
) -> RewardJudges:
    """Open the judges for these tasks at the editor's sizes. EditLoopError where one cannot be used."""
    judges: dict[str, Judge] = {}
    for address in addresses:
        if address == ORACLE and any(row.target is None for row in rows):
            raise EditLoopError(
                "reward oracle: it knows a task by its right result, and not every task has a `target`. Give a judge's "
                "address, or edits with targets."
            )
        judges[address] = OracleJudge(rows) if address == ORACLE else open_judge(address)
        for size in set(sizes):
            check_size(address, getattr(getattr(judges[address], "model", None), "settings", None), size)
    return RewardJudges(judges, patience=patience)


def check_size(address: str, settings: object, size: Size) -> None:
    """EditLoopError where a judge with these settings was not trained on pictures of (height, width) `size`.

    Only EditReward's settings say what it was trained on; of other judges nothing is known.
    """
    height, width = size
    if not isinstance(settings, RewardSettings):
        return
    if settings.side is not None and size != (settings.side, settings.side):
        raise EditLoopError(
            f"{address}: trained on pictures of {settings.side}x{settings.side}, the editor makes {width}x{height}. "
            "Train a reward at the editor's size, or take an editor of the reward's."
        )
    if settings.side is None and height * width < settings.min_pixels:
        raise EditLoopError(
            f"{address}: trained on pictures of {settings.min_pixels:,} pixels or more, the editor makes "
            f"{width}x{height}. Train a reward at the editor's size, or let the editor work at a larger one."
        )
