"""Upload of a running training's files to the stage's MLflow run, by a thread."""

import logging
import threading
from pathlib import Path

from editloop.lineage import tracking

log = logging.getLogger(__name__)

LAST_SECONDS = 20.0
"""Longest time that the end of a training waits for the last files."""


class LiveFiles:
    """Sends files to the stage's MLflow run (EDITLOOP_STAGE_RUN). Without such a run nothing is sent."""

    def __init__(self) -> None:
        self.run = tracking.TrackingSettings().stage_run
        self._waiting: dict[Path, str] = {}
        self._thread: threading.Thread | None = None

    def send(self, files: dict[Path, str]) -> None:
        """Send files in the background, together with earlier ones that did not arrive.

        Args:
            files: Folder in the run's artifacts for each file; "." is the top.
        """
        self._waiting |= files
        if self.run and (self._thread is None or not self._thread.is_alive()):
            self._thread = threading.Thread(target=self._deliver, daemon=True, name="live files")
            self._thread.start()

    def close(self) -> None:
        """Send what is left, for LAST_SECONDS at most."""
        self.send({})
        if self._thread:
            self._thread.join(LAST_SECONDS)

    def _deliver(self) -> None:
        try:
            api = tracking.client()
            while self._waiting:
                path, folder = next(iter(self._waiting.items()))
                api.log_artifact(self.run, str(path), None if folder == "." else folder)
                self._waiting.pop(path)
        except Exception as error:  # whatever MLflow's client raises, training goes on
            log.warning("pages: MLflow does not take them (%s); sent with the next evaluation", type(error).__name__)
