"""Every claim of speed and scale, measured on this machine, in this run.

    python -m tests.performance.bench            # all
    python -m tests.performance.bench scale      # those whose name has the word

A claim of speed is a ratio: the plain way and ours in turn, the median of several rounds, with the least and the
largest. Where chance decides how long a job takes, as in learning, it is the median ratio of several seeds, with an
interval. A claim of scale is a limit: seconds and megabytes of one large job. Writes runs/bench.json, one list of
[{name, plain, ours, ratio, low, high, target, holds}], [{name, ratios, ratio, low, high, target, holds}] and [{name,
seconds, megabytes, most_seconds, most_megabytes, holds}], and prints each as a table.
"""

import json
import math
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import numpy as np

from editloop.content import write_json

RESULTS = Path("runs/bench.json")
ROUNDS = 5
APART = "from tests.performance.bench import print_scale; print_scale({!r})"


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
    """Medians over the rounds."""
    ratio: float
    """Median of the rounds' own ratios; a busy moment that falls into one run of a round does not move it."""
    low: float
    high: float
    """The least and the largest of them; the ratio itself where it is counted."""
    target: float
    holds: bool


class Race(NamedTuple):
    """Two ways to one end, whose seconds depend on chance; `run` returns (plain, ours) of a seed."""

    name: str
    run: Callable[[int], tuple[float, float]]
    seeds: Sequence[int]
    target: float
    """The median ratio plain / ours that is claimed, at least."""


class RaceResult(NamedTuple):
    name: str
    ratios: list[float]
    """Of each seed."""
    ratio: float
    """Their median."""
    low: float
    high: float
    """95 % interval of their geometric mean, by Student's t."""
    target: float
    holds: bool


class Scale(NamedTuple):
    """A large job that must stay within limits on a laptop; `run` returns {"seconds", "megabytes"} of it."""

    name: str
    run: Callable[[], dict[str, float]]
    most_seconds: float
    most_megabytes: float


class ScaleResult(NamedTuple):
    name: str
    seconds: float
    megabytes: float
    """Largest resident memory of our process, beside what services take."""
    most_seconds: float
    most_megabytes: float
    holds: bool


def peak_megabytes() -> float:
    """The largest resident memory of this process. getrusage would count the process that started it as well."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) / 1024


def measure_scale(scale: Scale) -> ScaleResult:
    """Run the job once, and hold it against its limits."""
    found = scale.run()
    holds = found["seconds"] <= scale.most_seconds and found["megabytes"] <= scale.most_megabytes
    return ScaleResult(
        scale.name, found["seconds"], found["megabytes"], scale.most_seconds, scale.most_megabytes, holds
    )


def run_apart(name: str) -> dict[str, float]:
    """What the job of this name finds in a process of its own, which holds no memory of other measurements."""
    done = subprocess.run([sys.executable, "-c", APART.format(name)], check=True, stdout=subprocess.PIPE, text=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def print_scale(name: str) -> None:
    """Run the job of this name here, and print what it found as the last line."""
    from tests.performance.benchmarks import SCALES

    print(json.dumps(next(scale for scale in SCALES if scale.name == name).run()))


def measure(benchmark: Benchmark, rounds: int = ROUNDS, clock: Callable[[], float] = time.perf_counter) -> Result:
    """The ratios of `rounds` runs in turn, after one unmeasured run of each; a slow machine then hits both ways alike.

    Raises AssertionError if the two ways give different answers.
    """
    plain_answer, our_answer = benchmark.plain(), benchmark.ours()
    if benchmark.same is not None and not benchmark.same(plain_answer, our_answer):
        raise AssertionError(f"{benchmark.name}: the two ways do not give the same answer")
    if benchmark.counted:
        return judge(benchmark, [float(plain_answer)], [float(our_answer)])
    plain: list[float] = []
    ours: list[float] = []
    for _ in range(rounds):
        for run, seconds in ((benchmark.plain, plain), (benchmark.ours, ours)):
            start = clock()
            run()
            seconds.append(clock() - start)
    return judge(benchmark, plain, ours)


def judge(benchmark: Benchmark, plain: Sequence[float], ours: Sequence[float]) -> Result:
    """The median ratio of the rounds against its target."""
    ratios = [one / other for one, other in zip(plain, ours, strict=True)]
    ratio = median(ratios)
    return Result(
        benchmark.name,
        median(plain),
        median(ours),
        ratio,
        min(ratios),
        max(ratios),
        benchmark.target,
        ratio >= benchmark.target,
    )


def measure_race(race: Race) -> RaceResult:
    """Run both ways for each seed. Needs two seeds or more."""
    from editloop.studies.comparison.comparison import student_interval

    ratios = [plain / ours for plain, ours in map(race.run, race.seeds)]
    _, ends = student_interval(np.log(ratios))
    assert ends is not None, f"{race.name}: one seed has no interval"
    low, high = (math.exp(end) for end in ends)
    return RaceResult(race.name, ratios, median(ratios), low, high, race.target, median(ratios) >= race.target)


def print_tables(results: Sequence[Result], races: Sequence[RaceResult], scales: Sequence[ScaleResult]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title="Speed against the plain way, same machine, same run")
    for heading in ("", "plain", "ours", "ratio", "least to largest", "claimed", ""):
        table.add_column(heading, justify="left" if heading == "" else "right")
    for result in results:
        verdict = "[green]holds[/]" if result.holds else "[red]misses[/]"
        spread = f"{result.low:.2f} to {result.high:.2f}" if result.high > result.low else ""
        figures = (f"{result.plain:,.4g}", f"{result.ours:,.4g}", f"{result.ratio:.2f}x", spread, f"{result.target:g}x")
        table.add_row(result.name, *figures, verdict)
    by_seed = Table(title="Speed against the plain way, median of seeds")
    for heading in ("", "ratios", "median", "95 % interval", "claimed", ""):
        by_seed.add_column(heading, justify="left" if heading == "" else "right")
    for race in races:
        verdict = "[green]holds[/]" if race.holds else "[red]misses[/]"
        each = ", ".join(f"{ratio:.2f}" for ratio in race.ratios)
        ends = f"{race.low:.2f} to {race.high:.2f}"
        by_seed.add_row(race.name, each, f"{race.ratio:.2f}x", ends, f"{race.target:g}x", verdict)
    limits = Table(title="Scale against its limits")
    for heading in ("", "seconds", "at most", "MB", "at most", ""):
        limits.add_column(heading, justify="left" if heading == "" else "right")
    for one in scales:
        verdict = "[green]holds[/]" if one.holds else "[red]misses[/]"
        limits.add_row(
            one.name,
            f"{one.seconds:.1f}",
            f"{one.most_seconds:g}",
            f"{one.megabytes:.0f}",
            f"{one.most_megabytes:g}",
            verdict,
        )
    for shown in (table, by_seed, limits):
        if shown.row_count:
            Console().print(shown)


def main(word: str = "") -> None:
    """Measure what has `word` in its name."""
    from tests.performance.benchmarks import BENCHMARKS, RACES, SCALES

    results: list[Result] = []
    races: list[RaceResult] = []
    scales: list[ScaleResult] = []

    def keep() -> None:
        write_json(RESULTS, [result._asdict() for result in (*results, *races, *scales)])

    for benchmark in (make() for make in BENCHMARKS):
        if word in benchmark.name:
            results.append(measure(benchmark))
            keep()
    for race in RACES:
        if word in race.name:
            races.append(measure_race(race))
            keep()
    for scale in SCALES:
        if word in scale.name:
            scales.append(measure_scale(scale._replace(run=partial(run_apart, scale.name))))
            keep()
    print_tables(results, races, scales)


if __name__ == "__main__":
    main(*sys.argv[1:2])
