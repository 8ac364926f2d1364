"""The requests that wait for a worker, and which of them go together: those of one task first."""

import asyncio
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from editloop.models.judge_protocol import EditGroup, Picture
from editloop.scoring.server_messages import ScoreMessage


@dataclass(eq=False)
class QueuedRequest:
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


def take_batch(queue: deque[QueuedRequest], most: int) -> list[QueuedRequest]:
    """Remove from the queue what is judged together: the oldest, then its task's, then others, `most` edits in all.

    Requests that nobody waits for any more are dropped. A request larger than `most` goes by itself.
    """
    for answered in [request for request in queue if request.answer.done()]:
        queue.remove(answered)
    if not queue:
        return []
    first = queue[0]
    batch, size = [first], len(first.edits)
    if not first.alone:
        others = [request for request in list(queue)[1:] if not request.alone]
        for request in sorted(others, key=lambda request: request.task != first.task):
            if size + len(request.edits) <= most:
                batch.append(request)
                size += len(request.edits)
    for request in batch:
        queue.remove(request)
    return batch


def merge_by_task(batch: Sequence[QueuedRequest]) -> list[tuple[EditGroup, list[QueuedRequest]]]:
    """One group a task, with the requests whose edits it holds, in their order."""
    tasks: dict[str, list[QueuedRequest]] = {}
    for request in batch:
        tasks.setdefault(request.task, []).append(request)
    return [
        (
            EditGroup(
                members[0].instruction, members[0].source, [edit for request in members for edit in request.edits]
            ),
            members,
        )
        for members in tasks.values()
    ]
