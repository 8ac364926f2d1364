"""One piece in a process of its own.

python -m components.claims.worker piece.json
"""

import json
import signal
import sys
import time
from pathlib import Path
from typing import Any

from components.claims.settings import ClaimsSettings
from components.claims.store import Store


def main(told: dict[str, Any]) -> None:
    """Make the piece and keep what it measured. Asked to end (SIGTERM), it stops its trainings, which save."""
    signal.signal(signal.SIGTERM, _interrupt)
    store = Store(Path(told["output"]), ClaimsSettings.model_validate(told["settings"]), told["catalogue"])
    name, seed = told["name"], told["seed"]
    began = time.monotonic()
    figures = store.pieces[name].make(store.work(name, seed))
    store.keep(name, seed, figures, time.monotonic() - began)


def _interrupt(number: int, frame: Any) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text()))
