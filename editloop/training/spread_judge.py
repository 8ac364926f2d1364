"""A judge whose weights are spread over processes of this machine: for a model that does not fit into one GPU.

    with spread_judge("models/EditScore-72B", processes=8) as judge:
        judge.judge(groups)

The calling process is the first of them, and has the others judge the same edits with it: before a layer computes, each
sends its part of the layer's weights. They end with the caller.
"""

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from editloop.environment import environment_variables
from editloop.errors import EditLoopError
from editloop.models.judge_protocol import EditGroup, Judge, Score, takes_references, wording_of
from editloop.scoring.opening import find_local
from editloop.training.agent import LoopbackRendezvous
from editloop.training.distributed import broadcast_object, end_rank, start_rank
from editloop.training.launch import LOOPBACK_ONLY
from editloop.training.rank import LOST_CONNECTION

END_SECONDS = 30.0
"""Longest time that the other processes may take to end."""


_opened: list[str] = []
"""The model that this process has opened."""


class SpreadJudge:
    """A `Judge` in the first of several processes, which have a part of its weights each."""

    def __init__(self, judge: Judge):
        """Take this process's judge.

        Args:
            judge: The judge, opened with `spread` in every process.
        """
        self.name, self.version, self.axes, self.wording = judge.name, judge.version, judge.axes, wording_of(judge)
        self.takes_references = takes_references(judge)
        self._judge = judge

    def judge(self, groups: Sequence[EditGroup]) -> list[list[Score]]:
        """Score every edit of some groups, together with the other processes.

        Args:
            groups: The edits to score.

        Returns:
            One list per group, in order, with one score per edit.

        Raises:
            EditLoopError: A source or an edit is not an image that the model can read, or a process has ended.
        """
        try:
            broadcast_object(list(groups))
            return self._judge.judge(groups)
        except RuntimeError as error:
            if not LOST_CONNECTION.search(str(error)):
                raise
            raise EditLoopError(
                f"{self.name}: a process that has a part of its weights has ended; its last lines, above, say why. The "
                "same call goes on where it was."
            ) from None


@contextmanager
def spread_judge(model: str, *, processes: int, passes: int | None = None) -> Iterator[Judge]:
    """Open a local model over several processes of this machine, one GPU each, for the length of the block.

    A process opens one in its life: DeepSpeed's communication cannot begin anew.

    Args:
        model: A model's folder, a shipped name, or an address in the registry.
        processes: Number of processes, this one included.
        passes: K of EditScore's Avg@K; None takes the model's own.

    Raises:
        EditLoopError: There is no such model on this machine, it cannot be opened, or this process had one before.
    """
    if _opened:
        raise EditLoopError(
            f"{model}: this process has opened {_opened[0]} over several processes before, and can do so once. Start "
            "another process for it."
        )
    _opened.append(model)
    folder = str(find_local(model).folder)
    store = LoopbackRendezvous("judge")
    shared = LOOPBACK_ONLY | {
        "MASTER_ADDR": store.master_addr,
        "MASTER_PORT": str(store.master_port),
        "TORCHELASTIC_USE_AGENT_STORE": "True",
        "WORLD_SIZE": str(processes),
        "LOCAL_WORLD_SIZE": str(processes),
    }
    ends_with_this = {"EDITLOOP_SUPERVISOR_PID": str(os.getpid())}
    command = [sys.executable, "-m", "editloop.training.rank", "editloop.training.spread_judge", folder]
    others = [
        subprocess.Popen([*command, str(passes or 0)], env=os.environ | shared | ends_with_this | _place(rank))
        for rank in range(1, processes)
    ]
    try:
        with environment_variables(**shared, **_place(0)):
            start_rank()
            yield SpreadJudge(_open(folder, passes))
            broadcast_object(None)
            end_rank()
        deadline = time.monotonic() + END_SECONDS
        while any(other.poll() is None for other in others) and time.monotonic() < deadline:
            time.sleep(0.1)
    finally:
        for other in others:
            other.kill()
            other.wait()


def _place(rank: int) -> dict[str, str]:
    return {"RANK": str(rank), "LOCAL_RANK": str(rank)}


def _open(folder: str, passes: int | None) -> Judge:
    if find_local(folder).kind == "edit-reward":
        from editloop.models.edit_reward.judge import RewardJudge

        if passes is not None:
            raise EditLoopError(f"{folder}: {passes} passes were asked for; EditReward has one, and no chance in it.")
        return RewardJudge.load(folder, spread="device")
    from editloop.models.edit_score.judge import EditScoreJudge

    return EditScoreJudge.load(folder, passes=passes, spread="device")


def main(folder: str, passes: int | None) -> None:
    """Judge what the first process judges, until it ends.

    Args:
        folder: The model's folder.
        passes: K of EditScore's Avg@K; None takes the model's own.
    """
    start_rank()
    judge = _open(folder, passes)
    while (groups := broadcast_object(None)) is not None:
        try:
            judge.judge(groups)
        except EditLoopError:
            continue  # the first process has the same, and says so
    end_rank()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]) or None)
