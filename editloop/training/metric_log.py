"""Log of a training's metrics: one line per step in the training's folder, which a thread sends on to MLflow.

The lines go to the stage's MLflow run. When MLflow is unreachable, training goes on: unsent lines stay in the file and
are sent at the next try or in the next call of the training. Only rank 0 has a log.
"""

import json
import logging
import threading
import time
from pathlib import Path
from typing import Any

from editloop.content import write_json
from editloop.errors import EditLoopError
from editloop.lineage import tracking

log = logging.getLogger(__name__)

LINES_FILE, SENT_FILE = "curves.jsonl", "curves-sent.json"
SEND_INTERVAL_SECONDS = 5.0
"""Time between two deliveries."""
CLOSE_TIMEOUT_SECONDS = 20.0
"""Longest time that the end of a training waits for the last delivery."""


class MetricLog:
    """Metrics of one training."""

    def __init__(self, folder: Path, through: int, settings: dict[str, Any], facts: dict[str, object]):
        """Open the log in a training's folder and start the thread that sends it.

        Args:
            folder: The training's folder. Lines of an earlier call stay up to step `through`; later ones are dropped.
            through: The step that the training continues from; 0 at its start.
            settings: The training's settings, sent as MLflow parameters.
            facts: What is trained on, sent as MLflow parameters.
        """
        self.folder = folder
        earlier_lines = [line for line in _lines(folder) if line["step"] <= through and "time" in line]
        head = {"step": -1, "parameters": _flat("training", settings) | _flat("model", facts)}
        text = "".join(json.dumps(line) + "\n" for line in [head, *earlier_lines])
        (folder / LINES_FILE).write_text(text)
        self._file = (folder / LINES_FILE).open("a")
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._deliver, daemon=True, name="curves")
        self._thread.start()

    def add(self, step: int, figures: dict[str, float]) -> None:
        """Record figures of a step.

        Args:
            step: Number of steps done; 0 is before the first.
            figures: Values by name.
        """
        line = {"step": step, "time": int(time.time() * 1000), "figures": figures}
        self._file.write(json.dumps(line) + "\n")
        self._file.flush()

    def close(self) -> None:
        """Send what is left, for CLOSE_TIMEOUT_SECONDS at most."""
        self._over.set()
        self._thread.join(CLOSE_TIMEOUT_SECONDS)
        self._file.close()

    def _deliver(self) -> None:
        is_closing = is_unreachable = False
        while not is_closing:
            is_closing = self._over.wait(SEND_INTERVAL_SECONDS)
            try:
                send_metrics(self.folder)
                is_unreachable = False
            except Exception as error:  # whatever MLflow's client raises, training goes on
                if not is_unreachable:
                    log.warning("curves: MLflow does not take them (%s); kept, and sent later", type(error).__name__)
                is_unreachable = True


def send_metrics(folder: Path) -> None:
    """Send the lines of a training's metrics that the stage's MLflow run (EDITLOOP_STAGE_RUN) does not have yet.

    Without such a run or a tracking server nothing is sent. Where MLflow cannot be reached, the exception is that of
    its client.

    Args:
        folder: The training's folder.
    """
    run = tracking.TrackingSettings().stage_run
    if run is None:
        return
    from mlflow.entities import Metric, Param

    marker = folder / SENT_FILE
    delivered = _parsed(marker.read_bytes()) if marker.is_file() else None
    sent_lines = int(delivered.get("lines", 0)) if delivered and delivered.get("run") == run else 0
    try:
        api = tracking.client()
    except EditLoopError:
        return
    lines = _lines(folder)
    for start in range(sent_lines, len(lines), 100):
        block = lines[start : start + 100]
        params = [Param(key, value) for line in block for key, value in line.get("parameters", {}).items()]
        metrics = [
            Metric(f"curve_{name}", value, line["time"], line["step"])
            for line in block
            for name, value in line.get("figures", {}).items()
        ]
        tracking.log_batch(api, run, metrics=metrics, params=params)
        write_json(marker, {"run": run, "lines": start + len(block)})


def _lines(folder: Path) -> list[dict[str, Any]]:
    path = folder / LINES_FILE
    if not path.is_file():
        return []
    complete_lines = [line for line in path.read_bytes().splitlines(keepends=True) if line.endswith(b"\n")]
    parsed_lines = [line for line in map(_parsed, complete_lines) if line and "step" in line]
    if len(parsed_lines) < len(complete_lines):
        log.warning("%s: %d lines are damaged and left out", path, len(complete_lines) - len(parsed_lines))
    return parsed_lines


def _parsed(text: bytes) -> dict[str, Any] | None:
    """Return the object in a JSON text; None where it is damaged. A curve is no reason to stop a training."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _flat(prefix: str, values: dict[str, Any]) -> dict[str, str]:
    """Nested settings as MLflow's parameters: "training.adapter.rank" -> "32"."""
    flat: dict[str, str] = {}
    for key, value in values.items():
        name = f"{prefix}.{key}"
        flat |= _flat(name, value) if isinstance(value, dict) else {name: str(value)[:500]}
    return flat
