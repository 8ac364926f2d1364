"""The requests that wait for a worker, and the choice of the next batch.

Requests of one task are batched together first.
"""

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
    """Digest of sources and instruction: equal for requests of one task."""
    edits: list[Picture]
    answer: "asyncio.Future[list[ScoreMessage]]"
    references: Sequence[Picture] = ()
    entered: float = field(default_factory=time.monotonic)
    """Time of arrival, by `time.monotonic`."""
    tries: int = 0
    """Number of workers that died over it."""
    client: str = ""
    """Who asks, by `client_of`."""
    alone: bool = False
    """Whether it is judged by itself, since a batch with it killed its worker or was refused."""


def take_batch(queue: deque[QueuedRequest], most: int) -> list[QueuedRequest]:
    """Remove the next batch from the queue.

    The oldest request comes first, then others of its task, then the rest. Requests that are answered already, such as
    those whose client has gone, are dropped. A request with more than `most` edits goes by itself.

    Args:
        queue: The waiting requests, oldest first.
        most: Largest number of edits in the batch.

    Returns:
        The batch; empty if no request waits.
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
    """Merge the requests of a batch into one group per task.

    Args:
        batch: The requests.

    Returns:
        The groups, each with the requests whose edits it holds, in their order.
    """
    tasks: dict[str, list[QueuedRequest]] = {}
    for request in batch:
        tasks.setdefault(request.task, []).append(request)
    return [
        (
            EditGroup(
                members[0].instruction,
                members[0].source,
                [edit for request in members for edit in request.edits],
                references=members[0].references,
            ),
            members,
        )
        for members in tasks.values()
    ]
