"""Scoring of edits by the reward judges while others are sampled. Each judge has a thread of its own.

A score that a judge does not give is missing, and is counted. An unavailable judge is waited for. The training ends
where a judge is another model than before, or refuses a request.
"""

import logging
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
from editloop.data.picture_size import resampled, resized
from editloop.errors import EditLoopError
from editloop.evaluation.editors import ORACLE
from editloop.evaluation.oracle import oracle
from editloop.models.edit_reward.settings import RewardSettings
from editloop.models.editors.settings import Size
from editloop.models.judge_protocol import (
    AxisScore,
    EditGroup,
    Judge,
    JudgeUnavailableError,
    Score,
    StaleJudgeError,
    takes_references,
)
from editloop.scoring.opening import is_served, open_judge
from editloop.scoring.validation import validate_scores

log = logging.getLogger(__name__)

FIRST_PAUSE, LONGEST_PAUSE = 1.0, 30.0
"""Seconds between two requests to an unavailable judge. Each pause is twice the one before."""


class JudgeRewards(NamedTuple):
    """Rewards of some groups from one judge."""

    rewards: Tensor
    """Rewards, (P, G); NaN where missing."""
    missing: Counter[str]
    """How often each reason for a missing reward occurred."""


class PendingRewards:
    """Rewards that judges are working on."""

    def __init__(self, futures: Mapping[str, Future[JudgeRewards]]):
        """Take the running requests.

        Args:
            futures: A request per judge, by the judge's address.
        """
        self._futures = futures

    def wait(self, seconds: float) -> bool:
        """Wait for the rewards, and return whether all are there.

        Args:
            seconds: Longest time to wait.
        """
        return not wait(self._futures.values(), timeout=seconds).not_done

    def answers(self) -> dict[str, JudgeRewards]:
        """Wait for the rewards and return them by judge.

        Raises:
            EditLoopError: A judge failed; the exception is the judge's own.
        """
        return {name: future.result() for name, future in self._futures.items()}


class OracleJudge:
    """The oracle as a judge, for tasks with targets. It serves as the control of experiments."""

    name = version = "oracle"
    takes_references = True
    """It knows the right result, whatever it was made from."""
    axes = ("instruction_following", "visual_quality")

    def __init__(self, rows: Sequence[EditRow]):
        """Take the tasks' targets.

        Args:
            rows: Tasks with their targets. A group's `key` is its task's id.
        """
        self._targets = {row.id: row.target for row in rows}

    def judge(self, groups: Sequence[EditGroup]) -> list[list[Score]]:
        """Return one score per edit. The reward is the mean of both axes.

        Args:
            groups: Groups of edits of these tasks.
        """
        return [self._scores(group) for group in groups]

    def _scores(self, group: EditGroup) -> list[Score]:
        target = self._targets[group.key]
        assert target is not None
        size = (group.source.shape[0], group.source.shape[1])
        edits = np.stack([resized(edit, size) for edit in group.edits])
        targets = np.broadcast_to(resampled(load_image(target), size), edits.shape)
        oracle_scores = oracle(np.broadcast_to(group.source, edits.shape), targets, edits)
        columns = (oracle_scores.instruction_following, oracle_scores.visual_quality, oracle_scores.mean)
        scores = []
        for *axes, mean in np.stack(columns, axis=1).tolist():
            axis_scores = {axis: AxisScore(value, 0.0) for axis, value in zip(self.axes, axes, strict=True)}
            scores.append(Score(axis_scores, AxisScore(mean, 0.0), mean, mean))
        return scores


class RewardJudges:
    """The judges whose scores are the reward, by address."""

    def __init__(self, judges: Mapping[str, Judge], *, patience: float):
        """Start a thread for each judge.

        Args:
            judges: Judges by address.
            patience: Seconds to wait for an unavailable judge.
        """
        self.judges, self.patience = judges, patience
        self.seconds = 0.0
        """Seconds that all judges together have worked or been waited for so far."""
        self.elsewhere = any(is_served(name) for name in judges)
        """Whether any judge runs on a server, so that there is time to compute until its rewards arrive."""
        self._stop = threading.Event()
        self._pools = {
            name: ThreadPoolExecutor(1, "reward", initializer=torch.set_num_threads, initargs=(1,)) for name in judges
        }

    def ask(self, groups: Sequence[EditGroup]) -> PendingRewards:
        """Send groups to all judges and return at once.

        Args:
            groups: Groups of equally many edits.
        """
        return PendingRewards({name: pool.submit(self._scored, name, groups) for name, pool in self._pools.items()})

    def give_up(self) -> None:
        """Stop waiting for unavailable judges."""
        self._stop.set()

    def close(self) -> None:
        """Stop waiting and end the judges' threads."""
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
                log.warning("%s: %s Asked again in %.0f s.", name, error, pause)
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
    """Open the judges and check that they fit the tasks and the editor.

    Args:
        addresses: Addresses of the judges; `oracle` needs a target in every row.
        rows: Tasks to practise.
        sizes: Sizes that the editor works at.
        patience: Seconds to wait for an unavailable judge.

    Raises:
        EditLoopError: A judge cannot be opened, was trained on images of another size, does not read reference images
            that tasks have, or lacks targets.
    """
    judges: dict[str, Judge] = {}
    for address in addresses:
        if address == ORACLE and any(row.target is None for row in rows):
            raise EditLoopError(
                "reward oracle: it knows a task by its right result, and not every task has a `target`. Give a judge's "
                "address, or edits with targets."
            )
        judges[address] = OracleJudge(rows) if address == ORACLE else open_judge(address)
        check_judge_reads(address, takes_references(judges[address]), rows)
        for size in set(sizes):
            check_size(address, getattr(getattr(judges[address], "model", None), "settings", None), size)
    return RewardJudges(judges, patience=patience)


def check_judge_reads(name: str, reads: bool, rows: Sequence[EditRow]) -> None:
    """Check that a judge whose scores are the reward reads the reference images of all tasks.

    Args:
        name: The judge's name or address, for the message.
        reads: Whether it reads reference images.
        rows: The tasks.

    Raises:
        EditLoopError: It does not, and a task has some.
    """
    row = next((row for row in rows if row.references), None)
    if row is not None and not reads:
        raise EditLoopError(
            f"reward {name}: it reads one source and one edit, and task {row.id} has {len(row.references)} reference "
            "image(s), so that it would score another task. Take a judge that reads them (EditReward of order "
            "`official` or `rubric-first`, EditScore with `pictures: separate`), or leave these tasks out."
        )


def check_targets(rows: Sequence[EditRow]) -> None:
    """Refuse the oracle as judge of held-out tasks that have no target.

    Args:
        rows: The held-out tasks.

    Raises:
        EditLoopError: A task has no target.
    """
    without = [row.id for row in rows if row.target is None]
    if without:
        raise EditLoopError(
            f"{ORACLE}: {len(without)} held-out tasks have no `target`, {without[0]!r} first; give each one, or take "
            "another judge."
        )


def teaching_watcher(address: str) -> EditLoopError:
    """Return the error about a watching judge that also teaches.

    Args:
        address: Address of the judge.
    """
    return EditLoopError(
        f"watch {address}: it is the judge that teaches. What is learnt from it looks good to it whatever it is: name "
        "another one."
    )


def check_size(address: str, settings: object, size: Size) -> None:
    """Check that a judge was trained on images of a size. Only EditReward's settings state their size.

    Args:
        address: The judge's address, for the message.
        settings: The judge's settings; anything but RewardSettings passes.
        size: (height, width) of the editor's images.

    Raises:
        EditLoopError: The judge was trained on images of another size.
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
