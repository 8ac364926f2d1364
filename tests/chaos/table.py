"""The table of docs/chaos.md: what became of the faults of the last whole run."""

import os
import platform
from collections import defaultdict
from pathlib import Path
from typing import Any

import psutil

from editloop.content import write_file

BEGIN, END = "<!-- the table: written by make chaos -->", "<!-- end of the table -->"


def write_table(path: Path, results: dict[str, Any]) -> None:
    """Write the table into a page, between its two marks.

    Args:
        path: The page.
        results: Content of runs/chaos.json.
    """
    before, _, rest = path.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    write_file(path, f"{before}{BEGIN}\n\n{table(results)}\n{END}{after}")


def table(results: dict[str, Any]) -> str:
    """Return the results as Markdown: a line for each kind of fault.

    Args:
        results: Content of runs/chaos.json.
    """
    kinds = defaultdict[str, list[dict[str, Any]]](list)
    for row in results["rows"]:
        kinds[row["fault"]].append(row)
    lines = [
        f"{results['survived']} of {results['faults']} faults survived, in {results['seconds']} s on {machine()}.",
        "",
        "| fault | times | in | survived | calls, at most | seconds, at most |",
        "|---|---|---|---|---|---|",
    ]
    for kind, rows in kinds.items():
        stages = ", ".join(dict.fromkeys(row["stage"] for row in rows))
        survived = sum(row["survived"] for row in rows)
        most = [max(row[key] for row in rows) for key in ("calls", "seconds")]
        lines.append(f"| {kind} | {len(rows)} | {stages} | {survived} | {most[0]} | {most[1]:.0f} |")
    return "\n".join([*lines, ""])


def machine() -> str:
    """Return this machine in a few words."""
    memory = psutil.virtual_memory().total / 2**30
    return f"{os.cpu_count()} cores ({platform.machine()}), {memory:.0f} GiB, Python {platform.python_version()}"
