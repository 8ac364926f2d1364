"""The machine that rows run on: its card and that card's peak, seconds of work, memory.

python -m tests.gpu.machine    # prints the facts as JSON
"""

import gc
import json
import platform
import subprocess
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from statistics import median
from typing import Any

import torch
from torch import Tensor

from editloop.training.peak_memory import peak_megabytes

PACKAGES = ("transformers", "diffusers", "peft", "deepspeed")
PEAKS = {
    "H100 PCIe": 756,
    "H100 NVL": 835,
    "GH200": 989,
    "H100": 989,
    "H200": 989,
    "H800": 989,
    "H20": 148,
    "B200": 2250,
    "A100": 312,
    "A800": 312,
    "A40": 150,
    "A10": 125,
    "L40S": 362,
    "L40": 181,
    "L4": 121,
    "RTX 4090": 165,
    "RTX 5090": 210,
}
"""Dense bfloat16 TFLOP/s of the datasheets, by a part of the card's name; the first that stands in it counts."""


def peak_tflops(card: str) -> float | None:
    """The card's dense bfloat16 peak; None for one that is not in the table."""
    return next((float(peak) for part, peak in PEAKS.items() if part in card), None)


def machine_facts() -> dict[str, Any]:
    """What stands above the table: card, driver, versions. On a machine without a GPU the card is its processor."""
    facts: dict[str, Any] = {
        "card": f"{platform.machine()} CPU",
        "memory_gib": None,
        "driver": None,
        "torch": torch.__version__,
        "python": platform.python_version(),
    }
    if torch.cuda.is_available():
        properties = torch.cuda.get_device_properties(0)
        torch.zeros(2**24, device="cuda").sum().item()  # the allocator's settings work on this machine
        facts |= {
            "card": properties.name,
            "memory_gib": round(properties.total_memory / 2**30, 1),
            "driver": _driver(),
        }
    return facts | {name: _version(name) for name in PACKAGES} | {"peak_tflops": peak_tflops(str(facts["card"]))}


def device() -> torch.device:
    """The first GPU, or else the CPU."""
    return torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")


def synchronise() -> None:
    """Wait for what the GPU was given to do."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def seconds_of(work: Callable[[], Any], rounds: int, *, warm_up: bool = True) -> float:
    """Median seconds of a call, the GPU waited for; with `warm_up` after a call that is not counted."""
    if warm_up:
        work()
    took = []
    for _ in range(rounds):
        synchronise()
        began = time.perf_counter()
        work()
        synchronise()
        took.append(time.perf_counter() - began)
    return median(took)


def forget_peak() -> None:
    """Free what nothing refers to and what the allocator keeps, and measure the memory's peak anew."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def peak_gib() -> float:
    """Most memory taken since `forget_peak`, GiB; on a CPU that of the process so far."""
    return peak_megabytes() / 2**10


def relative_difference(values: Tensor, reference: Tensor) -> float:
    """Norm of the difference over the reference's norm, in float32."""
    reference = reference.float()
    return float((values.float() - reference).norm() / reference.norm())


def utilisation(flops: float, seconds: float) -> float | None:
    """Model FLOPs utilisation: `flops` of the model in so many seconds as a share of the card's peak; None where the
    peak is not known."""
    peak = peak_tflops(torch.cuda.get_device_name()) if torch.cuda.is_available() else None
    return None if peak is None else flops / seconds / (peak * 1e12)


def _driver() -> str | None:
    try:
        command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
        return subprocess.run(command, check=True, capture_output=True, text=True, timeout=20).stdout.split()[0]
    except (OSError, subprocess.SubprocessError, IndexError):
        return None


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


if __name__ == "__main__":
    print(json.dumps(machine_facts()))
