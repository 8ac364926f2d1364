"""A model in a process of its own, so that a crash does not end the server.

The server notices that a worker died and starts another. Server and worker exchange plain frames over a pipe: a JSON
head, then the bytes of each image. Nothing is pickled.
"""

import json
import multiprocessing
import signal
import threading
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any, NamedTuple

import numpy as np

from editloop.errors import EditLoopError
from editloop.models.judge_protocol import (
    EditGroup,
    Judge,
    JudgeUnavailableError,
    JudgeWording,
    takes_references,
    wording_of,
)
from editloop.scoring.server_messages import ScoreMessage
from editloop.scoring.validation import validate_scores

Opener = Callable[[str, str | None], Judge]
"""Opens a judge from a model's address and a device."""
STOP_SECONDS = 5.0
"""Longest wait for a process to end."""


class WorkerDiedError(Exception):
    """The worker's process ended, or was killed because it took too long; its batch has no scores."""


class ModelFacts(NamedTuple):
    """The model of a worker."""

    name: str
    version: str
    axes: tuple[str, ...]
    wording: JudgeWording | None = None
    takes_references: bool = False


class Refusal(NamedTuple):
    """Why a group has no scores."""

    reason: str
    retryable: bool
    """Whether the same request may succeed later; otherwise the client must change it."""


class Worker:
    """One process with one model. Its methods block and must be called from one thread at a time."""

    def __init__(self, model: str, device: str | None, seconds: float, opener: Opener):
        """Create the worker; `start` starts its process.

        Args:
            model: The model's address, as for `open_judge`.
            device: The model's device; None lets the model choose.
            seconds: Longest time for a batch; a process that takes longer is killed.
            opener: Opens the model, in the worker's process.
        """
        self.model, self.device, self.seconds, self.opener = model, device, seconds, opener
        self.facts: ModelFacts | None = None
        self._process: BaseProcess | None = None
        self._pipe: Connection | None = None
        self._stopping = threading.Event()

    def alive(self) -> bool:
        """Return whether the process is running."""
        return self._process is not None and self._process.is_alive()

    def start(self) -> ModelFacts:
        """Start the process and wait until its model is loaded; an earlier process is ended.

        Returns:
            The loaded model.

        Raises:
            EditLoopError: The model cannot be opened, or it is not the one that this worker had before.
        """
        self._end()
        spawn = multiprocessing.get_context("spawn")  # a fork would share locks and a GPU's state
        self._pipe, worker_end = spawn.Pipe()
        self._process = spawn.Process(
            target=serve_judge, args=(worker_end, self.model, self.device, self.opener), daemon=True
        )
        self._process.start()
        worker_end.close()  # so that reading from a dead worker ends instead of waiting
        try:
            while not self._pipe.poll(0.2):
                if self._stopping.is_set():
                    raise EditLoopError(f"{self.model}: stopped while its model was loading.")
            hello = json.loads(self._pipe.recv_bytes())
        except (EOFError, OSError):
            raise EditLoopError(
                f"{self.model}: the worker ended while it was loading the model; see its output."
            ) from None
        if "failed" in hello:
            raise EditLoopError(hello["failed"])
        wording = JudgeWording(*hello["wording"]) if hello["wording"] else None
        facts = ModelFacts(
            hello["name"], hello["version"], tuple(hello["axes"]), wording, bool(hello["takes_references"])
        )
        if self.facts is not None and facts != self.facts:
            self._end()
            raise EditLoopError(
                f"{self.model} was {self.facts.name} {self.facts.version} and is {facts.name} {facts.version} now; "
                "a server serves one version: start it again."
            )
        self.facts = facts
        return facts

    def judge(self, groups: Sequence[EditGroup]) -> list[list[ScoreMessage] | Refusal]:
        """Score a batch.

        Args:
            groups: The groups to score.

        Returns:
            For each group, the scores of its edits or its refusal.

        Raises:
            WorkerDiedError: The process was not started, ended, or took too long.
        """
        pipe, process = self._pipe, self._process
        if pipe is None or process is None:
            raise WorkerDiedError("the worker has not been started")
        watchdog = threading.Timer(self.seconds, process.kill)
        watchdog.start()
        try:
            _send_groups(pipe, groups)
            answer = json.loads(pipe.recv_bytes())
        except (EOFError, OSError):
            process.join(STOP_SECONDS)
            late = "" if watchdog.is_alive() else f", since it did not answer within {self.seconds:g} s"
            raise WorkerDiedError(f"worker {process.pid} ended with exit code {process.exitcode}{late}") from None
        finally:
            watchdog.cancel()
        return [
            Refusal(group_answer["refused"], group_answer["later"])
            if "refused" in group_answer
            else [ScoreMessage.model_validate(score) for score in group_answer["scores"]]
            for group_answer in answer
        ]

    def stop(self) -> None:
        """End the process, also while it is still loading; may be called from another thread."""
        self._stopping.set()
        self._end()

    def _end(self) -> None:
        """End the process: an idle one ends by itself when its pipe is closed, any other is killed."""
        if self._pipe is not None:
            self._pipe.close()
        if self._process is not None and self._process.is_alive():
            self._process.join(0.5)
            self._process.kill()
            self._process.join(STOP_SECONDS)


def serve_judge(pipe: Connection, model: str, device: str | None, opener: Opener) -> None:
    """Run the worker's process: open the model, report it, and answer batches until the pipe is closed.

    An exception other than EditLoopError ends the process, since the state that it leaves, above all on a GPU, cannot
    be trusted.

    Args:
        pipe: Connection to the server.
        model: The model's address.
        device: The model's device; None lets the model choose.
        opener: Opens the model.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C at a terminal is the server's to handle
    try:
        judge = opener(model, device)
    except EditLoopError as error:
        pipe.send_bytes(json.dumps({"failed": str(error)}).encode())
        return
    facts = {
        "name": judge.name,
        "version": judge.version,
        "axes": list(judge.axes),
        "wording": wording_of(judge),
        "takes_references": takes_references(judge),
    }
    pipe.send_bytes(json.dumps(facts).encode())
    while True:
        try:
            groups = _receive_groups(pipe)
        except (EOFError, OSError):
            return
        answer = json.dumps(_group_answers(judge, groups)).encode()
        try:
            pipe.send_bytes(answer)
        except OSError:
            return


def _group_answers(judge: Judge, groups: list[EditGroup]) -> list[dict[str, Any]]:
    """Return one answer per group.

    A refused batch is judged again group by group, so that only the bad group is refused.
    """
    try:
        scores = judge.judge(groups)
    except JudgeUnavailableError as error:
        return [{"refused": str(error), "later": True} for _ in groups]
    except EditLoopError as error:
        if len(groups) == 1:
            return [{"refused": str(error), "later": False}]
        return [answer for group in groups for answer in _group_answers(judge, [group])]
    if [len(group_scores) for group_scores in scores] != [len(group.edits) for group in groups]:
        raise RuntimeError(f"{judge.name} gave other numbers of scores than there are edits")
    return [
        {"scores": [ScoreMessage.of(validate_scores(score, judge.axes)).model_dump() for score in group_scores]}
        for group_scores in scores
    ]


def _send_groups(pipe: Connection, groups: Sequence[EditGroup]) -> None:
    head = [
        {
            "instruction": group.instruction,
            "key": group.key,
            "references": len(group.references),
            "shapes": [picture.shape for picture in (group.source, *group.references, *group.edits)],
        }
        for group in groups
    ]
    pipe.send_bytes(json.dumps(head).encode())
    for group in groups:
        for picture in (group.source, *group.references, *group.edits):
            pipe.send_bytes(np.ascontiguousarray(picture, np.uint8).tobytes())


def _receive_groups(pipe: Connection) -> list[EditGroup]:
    groups = []
    for head in json.loads(pipe.recv_bytes()):
        pictures = [np.empty(shape, np.uint8) for shape in head["shapes"]]
        for picture in pictures:
            pipe.recv_bytes_into(picture.data.cast("B"))
        edits = 1 + head["references"]
        groups.append(EditGroup(head["instruction"], pictures[0], pictures[edits:], head["key"], pictures[1:edits]))
    return groups
