"""Runs the tests that compare floats on other kernels, thread counts, orders and surroundings; none may turn red.

    python -m tests.variants                    # all variants, with a table at the end
    python -m tests.variants --only avx2 tests/unit/test_rl_steps.py

What two correct builds compute differs in the last digits: PyTorch chooses its kernels by ATEN_CPU_CAPABILITY, oneDNN
by ONEDNN_MAX_CPU_ISA, MKL by MKL_ENABLE_INSTRUCTIONS and NumPy's OpenBLAS by OPENBLAS_CORETYPE.
"""

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import NamedTuple


class Variant(NamedTuple):
    """One way to run the tests."""

    environment: dict[str, str]
    arguments: tuple[str, ...] = ()
    cpu_flag: str = ""
    """Flag of /proc/cpuinfo without which the variant cannot run."""
    is_loaded: bool = False
    """Whether both cores are kept busy by others meanwhile."""


VARIANTS = {
    "default": Variant({}),
    "no vectors": Variant(
        {"ATEN_CPU_CAPABILITY": "default", "ONEDNN_MAX_CPU_ISA": "SSE41", "MKL_ENABLE_INSTRUCTIONS": "SSE4_2"}
    ),
    "avx2": Variant(
        {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2", "MKL_ENABLE_INSTRUCTIONS": "AVX2"},
        cpu_flag="avx2",
    ),
    "avx512": Variant(
        {
            "ATEN_CPU_CAPABILITY": "avx512",
            "ONEDNN_MAX_CPU_ISA": "AVX512_CORE",
            "MKL_ENABLE_INSTRUCTIONS": "AVX512",
        },
        cpu_flag="avx512f",
    ),
    "openblas prescott": Variant({"OPENBLAS_CORETYPE": "Prescott"}),
    "openblas haswell": Variant({"OPENBLAS_CORETYPE": "Haswell"}, cpu_flag="avx2"),
    "openblas skylakex": Variant({"OPENBLAS_CORETYPE": "SkylakeX"}, cpu_flag="avx512f"),
    "one thread": Variant({"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}),
    "two threads": Variant({"OMP_NUM_THREADS": "2", "MKL_NUM_THREADS": "2", "OPENBLAS_NUM_THREADS": "2"}),
    "busy cores": Variant({}, is_loaded=True),
    "random order": Variant({}, ("--random-order",)),
    "other surroundings": Variant({"TZ": "Asia/Kathmandu", "LC_ALL": "C", "LANG": "C"}),
}
BUSY = "while True: sum(number * number for number in range(10**5))"


def run(name: str, arguments: list[str]) -> tuple[int, str, float]:
    """Run one variant; returns pytest's exit status, its last line and the seconds it took."""
    variant = VARIANTS[name]
    command = [sys.executable, "-m", "pytest", "-q", "-m", "floats", *variant.arguments, *arguments]
    begin = time.monotonic()
    with busy_cores() if variant.is_loaded else nullcontext():
        done = subprocess.run(
            command, env={**os.environ, "OMP_NUM_THREADS": "1", **variant.environment}, capture_output=True, text=True
        )
    lines = done.stdout.strip().splitlines() or done.stderr.strip().splitlines()[-1:]
    if done.returncode:
        print("\n".join(lines[-60:]), flush=True)
    return done.returncode, lines[-1].strip("= "), time.monotonic() - begin


@contextmanager
def busy_cores() -> Iterator[None]:
    """Two processes that take a core each."""
    processes = [subprocess.Popen([sys.executable, "-c", BUSY]) for _ in range(2)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def has_flag(flag: str) -> bool:
    """Whether this machine's processor names the flag; True where none is asked for or nothing tells."""
    cpuinfo = Path("/proc/cpuinfo")
    return not flag or not cpuinfo.is_file() or flag in cpuinfo.read_text().split()


def main() -> int:
    """Run the variants and print their table; 1 where one is red."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=VARIANTS, action="append", help="a variant by name, may be repeated")
    parser.add_argument("arguments", nargs="*", help="further arguments of pytest, such as a test file")
    options = parser.parse_args()
    rows = []
    for name in options.only or VARIANTS:
        if not has_flag(VARIANTS[name].cpu_flag):
            rows.append((name, "not run", f"this processor has no {VARIANTS[name].cpu_flag}", 0.0))
            continue
        status, line, seconds = run(name, options.arguments)
        rows.append((name, "red" if status else "green", line, seconds))
        print(f"{name}: {rows[-1][1]} ({line})", flush=True)
    print("\n| variant | result | pytest | seconds |\n|---|---|---|---|")
    for name, result, line, seconds in rows:
        print(f"| {name} | {result} | {line} | {seconds:.0f} |")
    return int(any(result == "red" for _, result, _, _ in rows))


if __name__ == "__main__":
    sys.exit(main())
