"""A model in a process of its own: whatever becomes of it, the server lives, knows, and starts another.

Server and worker speak over a pipe in plain frames: a JSON head, then the bytes of each picture. Nothing is pickled.
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
from editloop.models.judge_protocol import EditGroup, Judge, JudgeUnavailableError
from editloop.scoring.server_messages import ScoreMessage
from editloop.scoring.validation import validate_scores

Opener = Callable[[str, str | None], Judge]
STOP_SECONDS = 5.0


class WorkerDiedError(Exception):
    """The worker's process ended, or did not answer in time and was ended; its batch has no scores."""


class ModelFacts(NamedTuple):
    """Which model a worker has."""

    name: str
    version: str
    axes: tuple[str, ...]


class Refusal(NamedTuple):
    """Why a group has no scores."""

    reason: str
    retryable: bool
    """Whether asking again later may help; else it is the asker's to mend."""


class Worker:
    """One process with one model. Its methods block; one thread at a time uses it."""

    def __init__(self, model: str, device: str | None, seconds: float, opener: Opener):
        """`seconds`: the longest that a batch may take. `opener`: what opens the model, in the worker's process."""
        self.model, self.device, self.seconds, self.opener = model, device, seconds, opener
        self.facts: ModelFacts | None = None
        self._process: BaseProcess | None = None
        self._pipe: Connection | None = None
        self._stopping = threading.Event()

    @property
    def pid(self) -> int | None:
        """Process id of the worker; None before its start."""
        return self._process.pid if self._process else None

    def alive(self) -> bool:
        """Whether the process is there."""
        return self._process is not None and self._process.is_alive()

    def start(self) -> ModelFacts:
        """Start the process (an earlier one is ended) and wait until its model is loaded.

        Raises EditLoopError where the model cannot be opened, or is another than this worker had before.
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
        facts = ModelFacts(hello["name"], hello["version"], tuple(hello["axes"]))
        if self.facts is not None and facts != self.facts:
            self._end()
            raise EditLoopError(
                f"{self.model} was {self.facts.name} {self.facts.version} and is {facts.name} {facts.version} now; "
                "a server serves one version: start it again."
            )
        self.facts = facts
        return facts

    def judge(self, groups: Sequence[EditGroup]) -> list[list[ScoreMessage] | Refusal]:
        """The scores of each group, or its refusal. WorkerDiedError where the process ended or took too long."""
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
        """End the process; also one that is still loading, from another thread."""
        self._stopping.set()
        self._end()

    def _end(self) -> None:
        """A closed pipe ends an idle worker by itself; others are killed."""
        if self._pipe is not None:
            self._pipe.close()
        if self._process is not None and self._process.is_alive():
            self._process.join(0.5)
            self._process.kill()
            self._process.join(STOP_SECONDS)


def serve_judge(pipe: Connection, model: str, device: str | None, opener: Opener) -> None:
    """The worker's process: open the model, tell of it, answer batches until the pipe is closed.

    An exception that is no EditLoopError ends the process: what it leaves behind, on a GPU above all, is not trusted.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C at a terminal is the server's to handle
    try:
        judge = opener(model, device)
    except EditLoopError as error:
        pipe.send_bytes(json.dumps({"failed": str(error)}).encode())
        return
    facts = {"name": judge.name, "version": judge.version, "axes": list(judge.axes)}
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
    """One answer a group. A batch that cannot be judged is judged group by group, so that only the bad one is
    refused."""
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
            "shapes": [picture.shape for picture in (group.source, *group.edits)],
        }
        for group in groups
    ]
    pipe.send_bytes(json.dumps(head).encode())
    for group in groups:
        for picture in (group.source, *group.edits):
            pipe.send_bytes(np.ascontiguousarray(picture, np.uint8).tobytes())


def _receive_groups(pipe: Connection) -> list[EditGroup]:
    groups = []
    for head in json.loads(pipe.recv_bytes()):
        pictures = [np.empty(shape, np.uint8) for shape in head["shapes"]]
        for picture in pictures:
            pipe.recv_bytes_into(picture.data.cast("B"))
        groups.append(EditGroup(head["instruction"], pictures[0], pictures[1:], head["key"]))
    return groups
