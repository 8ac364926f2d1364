"""A base of 325 MB (fp32) opened over two ranks, and what a rank then takes at most.

python -m tests.performance.spread_load
"""

import tempfile
import time
from pathlib import Path

from tests.spread_judges import measure

PART, LARGEST = 162.7, 36.0
"""MiB of a rank's part of the weights, and of the largest tensor."""
LONGEST_SECONDS, MOST_MEGABYTES = 180, 1.3 * (PART + LARGEST)


def opening() -> dict[str, float]:
    """Seconds of the job, and the most MiB that a rank took to open the base, above what the libraries take."""
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        peaks = measure(Path(folder))
        return {"seconds": time.perf_counter() - start, "megabytes": max(rank.opened for rank in peaks)}


if __name__ == "__main__":
    print(opening())
