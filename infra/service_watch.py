"""Start services of this machine again that end while a command works with them."""

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from editloop.background import running_beside
from editloop.errors import EditLoopError
from infra.service_processes import find_leader
from infra.service_programs import NAMES
from infra.services import start_services

LOOK_SECONDS = 2.0
"""Time between two looks at the services' processes."""

log = logging.getLogger(__name__)


@contextmanager
def watched_services(home: Path, tell: Callable[[str], None]) -> Iterator[None]:
    """Start the services of `home` again, at their addresses, wherever their processes end within the block.

    Steps wait for a service that is away, and go on when it is back.

    Args:
        home: Folder of the services' data.
        tell: Gets a line for each service that was started again.
    """

    def watch(over: threading.Event) -> None:
        while not over.wait(LOOK_SECONDS):
            if ended := [name for name in NAMES if find_leader(home.resolve(), name) is None]:
                try:
                    start_services(home)
                    tell(f"{' and '.join(ended)} had ended: started again")
                except (EditLoopError, OSError) as error:  # steps tell it when their patience is over
                    log.warning("%s ended, and cannot be started again: %s", " and ".join(ended), error)

    with running_beside(watch, "service-watch"):
        yield
