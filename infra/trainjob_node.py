"""One pod of a TrainJob: fetch the training, run its ranks, keep its checkpoints in object storage, leave the result.

python -m infra.trainjob_node ADDRESS

The pod ends by itself, after its ranks have saved, when the step that waits for it no longer shows that it is there:
Kubeflow Pipelines ends a step's process without asking it to clean up.
"""

import logging
import os
import signal
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from editloop.background import running_beside
from editloop.errors import EditLoopError
from editloop.interruption import interrupt_on_termination
from editloop.lineage.stored_folders import StoredFolderSettings
from editloop.logs import log_to_stderr
from editloop.training.checkpoint_mirror import CheckpointMirror, mirror_of, mirrored
from editloop.training.launch import run_torchrun, torchrun_arguments
from infra.trainjob_files import HEARTBEAT, deliver_result, receive_job

log = logging.getLogger(__name__)

STEP_SECONDS = 300.0
"""Longest time without a change of the heartbeat."""
LOOK_SECONDS = 20.0
INTERRUPTED = 128 + signal.SIGTERM


def run_node(address: str) -> None:
    """Run this pod's ranks of a training to their end.

    Args:
        address: Address of the training.

    Raises:
        EditLoopError: A rank fails, or object storage does not answer.
    """
    received = receive_job(address, Path(tempfile.gettempdir()) / "trainjob")
    mirror = mirror_of(received.job_file.parent)
    if mirror is None:
        raise EditLoopError("EDITLOOP_CHECKPOINTS: no s3:// address. A TrainJob's pods keep their checkpoints there.")
    command = torchrun_arguments(received.module, received.job_file, received.processes)
    with stop_without_step(mirror):
        if int(os.environ.get("PET_NODE_RANK", "0")) == 0:
            with mirrored(mirror.folder):
                run_torchrun(command, {})
            deliver_result(mirror, address, StoredFolderSettings().require("objects"))
        else:
            mirror.restore()
            run_torchrun(command, {})


@contextmanager
def stop_without_step(mirror: CheckpointMirror) -> Iterator[None]:
    """Interrupt the block when the step's heartbeat stops.

    Args:
        mirror: Mirror of the training's folder, where the heartbeat is.
    """

    def watch(over: threading.Event) -> None:
        last: bytes | None = None
        unchanged = 0.0
        while not over.wait(LOOK_SECONDS):
            try:
                found = mirror.remote.read(HEARTBEAT)
            except EditLoopError:  # the storage is away: that says nothing about the step
                continue
            unchanged = unchanged + LOOK_SECONDS if found == last else 0.0
            last = found
            if unchanged >= STEP_SECONDS:
                log.warning("the step that waits for this training is gone: it saves and ends")
                os.kill(os.getpid(), signal.SIGTERM)
                return

    with running_beside(watch, "step watch"):
        yield


def main() -> None:
    log_to_stderr()
    try:
        with interrupt_on_termination():
            run_node(sys.argv[1])
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    except EditLoopError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
