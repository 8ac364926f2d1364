"""Peak memory of a rank."""

import resource
import sys
from pathlib import Path

import torch


def peak_megabytes() -> float:
    """Return the largest memory taken so far, in MiB: of the rank's GPU where it has one, else of its process."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**20
    if sys.platform == "linux":  # getrusage would count the process that started this one as well
        line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) / 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
