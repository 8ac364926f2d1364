"""One row in this process, for `tests.gpu.run`: its outcome goes into a file, whatever happens.

python -m tests.gpu.child ROW OUTCOME.json real|tiny SCRATCH
"""

import json
import sys
import traceback
from importlib import import_module
from pathlib import Path
from typing import Any

from tests.gpu.conditions import Conditions, Figures, OutOfBoundsError
from tests.gpu.rows import Row, row_named

LONGEST_REASON = 300


def run_here(row: Row, conditions: Conditions) -> Figures:
    """A row's figures, measured in this process. Raises what the row raises."""
    module, name = row.function.split(":")
    figures: Figures = getattr(import_module(f"tests.gpu.{module}"), name)(conditions)
    return figures


def outcome_of(row: Row, conditions: Conditions) -> dict[str, Any]:
    """Status, reason and figures of a row; an error of any kind is an outcome."""
    try:
        return {"status": "ok", "reason": "", "figures": run_here(row, conditions)}
    except OutOfBoundsError as error:
        return {"status": "out of bounds", "reason": str(error), "figures": error.figures}
    except Exception as error:
        traceback.print_exc()
        return {"status": "failed", "reason": reason_of(error), "figures": {}}


def reason_of(error: BaseException) -> str:
    """An error in a line: out of memory, a package that is not there, or the error's own first line."""
    if type(error).__name__ == "OutOfMemoryError":
        return f"out of memory: {str(error).partition('. ')[2].partition('. ')[0] or error}"[:LONGEST_REASON]
    line = next(iter(str(error).strip().splitlines()), "")
    if isinstance(error, ModuleNotFoundError):
        return f"not available: {line}"[:LONGEST_REASON]
    return f"{type(error).__name__}: {line}"[:LONGEST_REASON]


def main(name: str, target: Path, size: str, scratch: Path) -> None:
    """Run the row and write its outcome."""
    outcome = outcome_of(row_named(name), Conditions(size == "tiny", scratch))
    target.write_text(json.dumps(outcome))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), sys.argv[3], Path(sys.argv[4]))
