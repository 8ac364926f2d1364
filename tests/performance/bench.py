"""Every claim of speed, measured: the plain way and ours in turn, on this machine, in this run.

    python -m tests.performance.bench

Writes runs/bench.json, [{name, plain, ours, ratio, target, holds}], and prints it as a table.
"""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from infra.content import write_json

RESULTS = Path("runs/bench.json")
ROUNDS = 5


class Benchmark(NamedTuple):
    """Two ways to the same answer.

    Times are wall-clock seconds. With `counted`, the two functions give the figure themselves (tokens, images, bytes):
    steadier than seconds where cores are shared.
    """

    name: str
    plain: Callable[[], Any]
    ours: Callable[[], Any]
    target: float
    """The ratio plain / ours that is claimed, at least."""
    counted: bool = False
    same: Callable[[Any, Any], bool] | None = None
    """Are the two answers equal? Faster and different is not faster."""


class Result(NamedTuple):
    name: str
    plain: float
    ours: float
    ratio: float
    target: float
    holds: bool


def measure(benchmark: Benchmark, rounds: int = ROUNDS, clock: Callable[[], float] = time.perf_counter) -> Result:
    """Medians of `rounds` interleaved runs after one unmeasured run of each; a slow moment then hits both ways alike.

    Raises AssertionError if the two ways give different answers.
    """
    plain_answer, our_answer = benchmark.plain(), benchmark.ours()
    if benchmark.same is not None and not benchmark.same(plain_answer, our_answer):
        raise AssertionError(f"{benchmark.name}: the two ways do not give the same answer")
    if benchmark.counted:
        return judge(benchmark, float(plain_answer), float(our_answer))
    plain: list[float] = []
    ours: list[float] = []
    for _ in range(rounds):
        for run, seconds in ((benchmark.plain, plain), (benchmark.ours, ours)):
            start = clock()
            run()
            seconds.append(clock() - start)
    return judge(benchmark, median(plain), median(ours))


def judge(benchmark: Benchmark, plain: float, ours: float) -> Result:
    """The ratio against its target."""
    ratio = plain / ours
    return Result(benchmark.name, plain, ours, ratio, benchmark.target, ratio >= benchmark.target)


def print_table(results: Sequence[Result]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title="Speed against the plain way, same machine, same run")
    for heading in ("", "plain", "ours", "ratio", "claimed", ""):
        table.add_column(heading, justify="left" if heading == "" else "right")
    for result in results:
        verdict = "[green]holds[/]" if result.holds else "[red]misses[/]"
        figures = (f"{result.plain:,.4g}", f"{result.ours:,.4g}", f"{result.ratio:.2f}x", f"{result.target:g}x")
        table.add_row(result.name, *figures, verdict)
    Console().print(table)


def main() -> None:
    from tests.performance.benchmarks import BENCHMARKS

    results = []
    for make in BENCHMARKS:
        results.append(measure(make()))
        write_json(RESULTS, [result._asdict() for result in results])
    print_table(results)


if __name__ == "__main__":
    main()
