"""What `make bench` measures: each function builds one comparison, in the order of the table."""

from collections.abc import Callable

from tests.performance.bench import Benchmark

BENCHMARKS: tuple[Callable[[], Benchmark], ...] = ()
