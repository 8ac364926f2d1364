"""What the parts of the load run have in common: rows of the table, memory over time, waiting times, the machine."""

import os
import threading
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from statistics import mean, median
from types import TracebackType
from typing import NamedTuple

import numpy as np
import psutil

SAMPLE_SECONDS = 1.0
MOST_GROWTH, SPARE_MEGABYTES = 1.1, 16.0
"""Memory is flat where the last third's median is at most so many times the second third's, and so many MB."""


class Row(NamedTuple):
    """One line of the table."""

    part: str
    job: str
    figures: dict[str, float | str]
    """By what was measured, with its unit."""
    holds: bool
    """Whether nothing was lost, nothing failed, and memory is flat."""


class Watch:
    """Samples the memory of processes, and the machine's load average, while a block runs."""

    def __init__(self, processes: Callable[[], Iterable[psutil.Process]]):
        """Prepare to watch.

        Args:
            processes: Returns the processes at a moment; those that have ended are left out.
        """
        self.processes = processes
        self.megabytes: list[float] = []
        self.loads: list[float] = []
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)

    def __enter__(self) -> "Watch":
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._over.set()
        self._thread.join()

    @property
    def load(self) -> float:
        """Mean load average: what this machine had to do, with everything else on it."""
        return mean(self.loads)

    def thirds(self) -> tuple[float, float]:
        """Median memory in the second and in the last third of the time, in MB."""
        third = max(1, len(self.megabytes) // 3)
        return median(self.megabytes[third : 2 * third] or self.megabytes), median(self.megabytes[-third:])

    @property
    def is_flat(self) -> bool:
        """Whether memory did not grow from the second third to the last."""
        second, last = self.thirds()
        return last <= MOST_GROWTH * second + SPARE_MEGABYTES

    def figures(self, name: str) -> dict[str, float | str]:
        """The memory as figures of a row.

        Args:
            name: Whose memory it is.
        """
        second, last = self.thirds()
        return {f"MB of {name}, second and last third": f"{second:.0f}, {last:.0f}"}

    def _sample(self) -> None:
        while True:
            total = 0
            for process in self.processes():
                try:
                    total += process.memory_info().rss
                except psutil.Error:
                    continue
            self.megabytes.append(total / 2**20)
            self.loads.append(os.getloadavg()[0])
            if self._over.wait(SAMPLE_SECONDS):
                return


def with_children(pid: int) -> list[psutil.Process]:
    """A process and all that it started; none once it has ended.

    Args:
        pid: Its id.
    """
    try:
        process = psutil.Process(pid)
        return [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def waits(seconds: Sequence[float]) -> str:
    """Median and 95th percentile of waiting times, as text.

    Args:
        seconds: The waiting times.
    """
    if not seconds:
        return "none"
    p50, p95 = np.percentile(seconds, [50, 95])
    return f"{p50:.2f}, {p95:.2f}"


def machine() -> str:
    """The machine's name: cores, processor, memory."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    name = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "a processor")
    return f"{os.cpu_count()} cores of {name}, {psutil.virtual_memory().total / 2**30:.0f} GiB"
