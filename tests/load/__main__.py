"""What a large team asks of the services and of our code, measured in one run; nothing may be lost, wrong or truncated.

    python -m tests.load                           # all parts, half an hour on a quiet laptop
    python -m tests.load --seconds 60 reward       # one part, shorter
    python -m tests.load --scale 0.01              # a hundredth of the runs, pairs, rows and annotators
    python -m tests.load --page                    # also writes the table of docs/load.md

Writes runs/load.json, {machine, rows: [{part, job, figures, holds}]}; parts that were not measured keep their rows.
"""

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from editloop.content import write_file, write_json
from tests.load import annotators, registry, reward, tables
from tests.load.measurement import Row, machine

RESULTS = Path("runs/load.json")
PAGE = Path(__file__).parents[2] / "docs" / "load.md"
MARK = "<!-- the load table: written by python -m tests.load --page -->\n"
SECONDS = 300.0

Part = Callable[[float, float], list[Row]]
"""(seconds, scale) -> rows"""
PARTS: Mapping[str, Part] = {
    "annotators": lambda seconds, scale: annotators.measure(
        seconds, max(2, round(scale * annotators.PEOPLE)), max(8, round(scale * annotators.TASKS))
    ),
    "reward": lambda seconds, scale: reward.measure(seconds),
    "mlflow": lambda seconds, scale: registry.measure(scale),
    "dataset": lambda seconds, scale: tables.measure_dataset(scale),
    "leaks": lambda seconds, scale: tables.measure_leaks(scale),
    "scores": lambda seconds, scale: tables.measure_scores(scale),
}


def run(parts: Sequence[str], seconds: float, scale: float, results: Path, page: Path | None) -> int:
    """Measure some parts, and return how many rows do not hold.

    Args:
        parts: Names of PARTS.
        seconds: How long annotators work and scores are asked for.
        scale: Share of the full number of annotators, runs, pairs and rows.
        results: File to write.
        page: Page whose table is written; None for none.
    """
    rows = read_rows(results)
    for part in PARTS:
        if part not in parts:
            continue
        print(f"{part} ...", flush=True)
        measured = PARTS[part](seconds, scale)
        rows = [row for row in read_rows(results) if row["part"] != part] + [row._asdict() for row in measured]
        rows.sort(key=lambda row: list(PARTS).index(row["part"]))
        write_json(results, {"machine": machine(), "rows": rows})
        for row in measured:
            figures = ", ".join(f"{name} {value}" for name, value in row.figures.items())
            print(f"{'holds' if row.holds else 'MISSES'}  {row.job}: {figures}", flush=True)
    if page:
        write_page(page, rows)
    return sum(not row["holds"] for row in rows if row["part"] in parts)


def read_rows(results: Path) -> list[dict[str, Any]]:
    """The rows of earlier runs; none without a file.

    Args:
        results: The file.
    """
    rows: list[dict[str, Any]] = json.loads(results.read_text())["rows"] if results.is_file() else []
    return rows


def write_page(page: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write the table into a page, between its two marks.

    Args:
        page: The page.
        rows: The rows of the results.
    """
    before, _, rest = page.read_text().partition(MARK)
    after = rest.partition(MARK)[2]
    lines = [f"Measured on {machine()}.", "", "| job | measured | holds |", "|---|---|---|"]
    for row in rows:
        figures = "<br>".join(f"{name}: {_text(value)}" for name, value in row["figures"].items())
        lines.append(f"| {row['job']} | {figures} | {'yes' if row['holds'] else 'no'} |")
    write_file(page, before + MARK + "\n" + "\n".join(lines) + "\n\n" + MARK + after)


def _text(value: float | str) -> str:
    return value if isinstance(value, str) else f"{value:,}"


def main() -> int:
    """Read the command line, measure, and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], default=[], help="parts to measure; without, all")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="how long annotators and clients ask")
    parser.add_argument("--scale", type=float, default=1.0, help="share of the full numbers")
    parser.add_argument("--results", type=Path, default=RESULTS, help="file to write")
    parser.add_argument("--page", action="store_true", help="also write the table of docs/load.md")
    options = parser.parse_args()
    parts = options.parts or list(PARTS)
    return run(parts, options.seconds, options.scale, options.results, PAGE if options.page else None)


if __name__ == "__main__":
    sys.exit(bool(main()))
