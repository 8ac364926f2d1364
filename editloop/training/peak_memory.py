"""The most memory that a rank has taken so far."""

import resource
import sys
from pathlib import Path

import torch


def peak_megabytes() -> float:
    """Of the GPU's memory where the rank has one, else of the process's resident memory."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**20
    if sys.platform == "linux":  # getrusage would count the process that started this one as well
        line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) / 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
