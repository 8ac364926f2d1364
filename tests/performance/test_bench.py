"""The harness itself: interleaved, medians, no speed without the same answer."""

import math
from collections.abc import Callable

import pytest

from tests.performance.bench import Benchmark, Race, Scale, measure, measure_race, measure_scale, run_apart
from tests.performance.gate_speed import bootstrap_limit


class Clock:
    """A clock that only moves when work is done."""

    def __init__(self) -> None:
        self.now = 0.0
        self.log: list[str] = []

    def __call__(self) -> float:
        return self.now

    def work(self, name: str, seconds: list[float], answer: float = 1) -> Callable[[], float]:
        """A function that takes the given seconds, call by call."""

        def run() -> float:
            self.log.append(name)
            self.now += seconds.pop(0)
            return answer

        return run


def test_runs_are_interleaved_and_the_median_of_their_ratios_counts() -> None:
    clock = Clock()
    plain = clock.work("plain", [90, 6, 6, 100])
    ours = clock.work("ours", [50, 2, 1, 2])
    result = measure(Benchmark("b", plain, ours, target=5), rounds=3, clock=clock)
    assert clock.log == ["plain", "ours"] * 4
    assert result == ("b", 6, 2, 6, 3, 50, 5, True)


def test_a_missed_target_does_not_hold() -> None:
    clock = Clock()
    result = measure(
        Benchmark("b", clock.work("p", [1, 2]), clock.work("o", [1, 1]), target=2.1), rounds=1, clock=clock
    )
    assert (result.ratio, result.holds) == (2, False)


def test_counts_are_taken_as_given() -> None:
    assert measure(Benchmark("tokens", lambda: 800, lambda: 200, target=4, counted=True))[1:6] == (800, 200, 4, 4, 4)


def test_a_different_answer_is_not_faster() -> None:
    benchmark = Benchmark("b", lambda: 1.0, lambda: 2.0, target=1, same=lambda plain, ours: plain == ours)
    with pytest.raises(AssertionError, match="same answer"):
        measure(benchmark)


def test_a_race_is_the_median_of_its_seeds_with_an_interval() -> None:
    race = Race("r", lambda seed: (2.0 * 4**seed, 2.0), seeds=(0, 1, 2), target=4)
    found = measure_race(race)
    assert (found.ratios, found.ratio, found.holds) == ([1, 4, 16], 4, True)
    half = 4.303 * math.log(4) / math.sqrt(3)
    assert (found.low, found.high) == pytest.approx((4 * math.exp(-half), 4 * math.exp(half)), rel=1e-3)
    assert not measure_race(race._replace(target=4.1)).holds


@pytest.mark.parametrize(("seconds", "megabytes", "holds"), [(9, 90, True), (11, 90, False), (9, 101, False)])
def test_a_scale_holds_within_both_limits(seconds: float, megabytes: float, holds: bool) -> None:
    scale = Scale("s", lambda: {"seconds": seconds, "megabytes": megabytes}, most_seconds=10, most_megabytes=100)
    assert measure_scale(scale) == ("s", seconds, megabytes, 10, 100, holds)


def test_a_scale_runs_in_a_process_of_its_own() -> None:
    held = bytearray(900 * 2**20)
    held[:: 2**12] = b"x" * len(held[:: 2**12])
    found = run_apart(bootstrap_limit().name)
    assert found["seconds"] > 0
    assert 50 < found["megabytes"] < 900, "what this process holds is not counted"
