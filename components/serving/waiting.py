"""The requests that wait for a worker, and which of them go together: those of one task first."""

import asyncio
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from components.judges.protocol import EditGroup, Picture
from components.serving.messages import ScoreMessage


@dataclass(eq=False)
class Waiting:
    """A request in the queue."""

    instruction: str
    source: Picture
    task: str
    """The same for requests whose source and instruction are the same."""
    edits: list[Picture]
    answer: "asyncio.Future[list[ScoreMessage]]"
    entered: float = field(default_factory=time.monotonic)
    tries: int = 0
    alone: bool = False
    """Judged by itself, since a batch that it was in killed its worker or was refused."""


def take_batch(queue: deque[Waiting], most: int) -> list[Waiting]:
    """Remove from the queue what is judged together: the oldest, then its task's, then others, `most` edits in all.

    Requests that nobody waits for any more are dropped. A request larger than `most` goes by itself.
    """
    for gone in [request for request in queue if request.answer.done()]:
        queue.remove(gone)
    if not queue:
        return []
    first = queue[0]
    batch, size = [first], len(first.edits)
    if not first.alone:
        rest = [request for request in list(queue)[1:] if not request.alone]
        for request in sorted(rest, key=lambda request: request.task != first.task):
            if size + len(request.edits) <= most:
                batch.append(request)
                size += len(request.edits)
    for request in batch:
        queue.remove(request)
    return batch


def merge(batch: Sequence[Waiting]) -> list[tuple[EditGroup, list[Waiting]]]:
    """One group a task, with the requests whose edits it holds, in their order."""
    tasks: dict[str, list[Waiting]] = {}
    for request in batch:
        tasks.setdefault(request.task, []).append(request)
    return [
        (EditGroup(members[0].instruction, members[0].source, [edit for one in members for edit in one.edits]), members)
        for members in tasks.values()
    ]
