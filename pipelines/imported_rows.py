"""What commands print of an import of published rows: the rows that were left out."""

from collections.abc import Sequence
from pathlib import Path


def print_skipped(skipped: Sequence[str], folder: Path) -> None:
    """Print the rows that an import left out, and where the others stand if there are many.

    Args:
        skipped: A message for each row.
        folder: The folder with the list of all.
    """
    from editloop.data.row_import import FAULTS_SHOWN, SKIPPED

    for line in skipped[:FAULTS_SHOWN]:
        print(f"left out: {line}")
    if (more := len(skipped) - FAULTS_SHOWN) > 0:
        print(f"{more} more rows left out; {folder / SKIPPED} lists them")
