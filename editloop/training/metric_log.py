"""A training's curves: a line a step in the training's folder, sent on to the stage's MLflow run by a thread.

An MLflow that is away costs nothing: what it has not got stays in the file, and goes with the next try, or with the
next call of the training. Rank 0 alone has this.
"""

import json
import threading
import time
from pathlib import Path
from typing import Any

from editloop.content import write_json
from editloop.errors import EditLoopError
from editloop.lineage import tracking

LINES_FILE, SENT_FILE = "curves.jsonl", "curves-sent.json"
SEND_INTERVAL_SECONDS = 5.0
"""Between two deliveries."""
CLOSE_TIMEOUT_SECONDS = 20.0
"""How long the end of a training waits for the last delivery."""


class MetricLog:
    """The curves of one training. `through` is the step that it goes on from: later lines of a stopped call go."""

    def __init__(self, folder: Path, through: int, settings: dict[str, Any], facts: dict[str, object]):
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
        """Keep figures of a step (done steps are counted; 0 is before the first)."""
        line = {"step": step, "time": int(time.time() * 1000), "figures": figures}
        self._file.write(json.dumps(line) + "\n")
        self._file.flush()

    def close(self) -> None:
        """Deliver what is left, if MLflow answers soon."""
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
                    print(
                        f"curves: MLflow does not take them ({type(error).__name__}); kept, and sent later", flush=True
                    )
                is_unreachable = True


def send_metrics(folder: Path) -> None:
    """Send what the run of this step (EDITLOOP_STAGE_RUN) has not got yet of a training's curves.

    Without such a run there is nobody to send to. Raises what MLflow's client raises when it cannot be reached.
    """
    run = tracking.TrackingSettings().stage_run
    if run is None:
        return
    from mlflow.entities import Metric, Param

    marker = folder / SENT_FILE
    delivered = json.loads(marker.read_text()) if marker.is_file() else {}
    sent_lines = delivered["lines"] if delivered.get("run") == run else 0
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
    complete_lines = [line for line in path.read_text().splitlines(keepends=True) if line.endswith("\n")]
    return [json.loads(line) for line in complete_lines]


def _flat(prefix: str, values: dict[str, Any]) -> dict[str, str]:
    """Nested settings as MLflow's parameters: "training.adapter.rank" -> "32"."""
    flat: dict[str, str] = {}
    for key, value in values.items():
        name = f"{prefix}.{key}"
        flat |= _flat(name, value) if isinstance(value, dict) else {name: str(value)[:500]}
    return flat
