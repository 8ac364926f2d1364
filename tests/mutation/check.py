"""One mutation check: tests that pass without a mutation, then every mutant, then what survived and whether it may."""

import ast
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from tests.mutation.mutants import CheckError, Mutant
from tests.mutation.worker import FAILED, LEAST_SECONDS, NOT_LOADED, PASSED, SLOWER, STOPPED, Task, run_tasks

LEAST_RATE = 0.9
"""Share of the mutants that must die."""


class Result(NamedTuple):
    """What became of all mutants."""

    mutants: list[Mutant]
    survivors: list[Mutant]
    endless: int
    """How many of those that died ran out of time."""


def run_check(
    root: Path, mutants: Sequence[Mutant], tests: Mapping[str, tuple[str, ...]], scratch: Path, workers: int = 2
) -> Result:
    """Run each mutant's tests.

    Args:
        root: The repository's root.
        mutants: Mutants of modules that `tests` names.
        tests: Test files by module, paths below the root.
        scratch: An empty folder.
        workers: Processes at a time.

    Raises:
        CheckError: A module's tests fail without a mutation, or do not import it.
    """
    limits = _limits(root, sorted({one.module for one in mutants}), tests, scratch, workers)
    tasks = [Task(one.module, one.tree, tests[one.module], limits[one.module]) for one in mutants]
    survivors, endless = list[int](), 0
    for place, outcome in run_tasks(root, tasks, workers, scratch):
        if outcome.status == PASSED:
            survivors.append(place)
            print(f"survived  {describe(mutants[place])}", flush=True)
        elif outcome.status < 0:
            endless += 1
        elif outcome.status not in (FAILED, STOPPED):
            raise CheckError(f"{describe(mutants[place])}: pytest ended with {outcome.status}.\n{outcome.output}")
    return Result(list(mutants), [mutants[place] for place in sorted(survivors)], endless)


def _limits(
    root: Path, modules: Sequence[str], tests: Mapping[str, tuple[str, ...]], scratch: Path, workers: int
) -> dict[str, float]:
    """CPU seconds that a run of each module's tests may take, from a run without a mutation."""
    plain = [Task(one, ast.parse((root / one).read_text()), tests[one], 600.0) for one in modules]
    limits = {}
    for place, outcome in run_tasks(root, plain, workers, scratch):
        if outcome.status == NOT_LOADED:
            raise CheckError(f"{modules[place]}: its tests do not import it: {', '.join(tests[modules[place]])}.")
        if outcome.status != PASSED:
            raise CheckError(f"{modules[place]}: its tests fail without a mutation.\n{outcome.output}")
        limits[modules[place]] = LEAST_SECONDS + SLOWER * outcome.seconds
        print(f"{modules[place]}: {outcome.seconds:.1f} s of CPU a run", flush=True)
    return limits


def describe(mutant: Mutant) -> str:
    """`editloop/statistics/mcnemar.py:12: before -> after`."""
    return f"{mutant.module}:{mutant.line}: {mutant.mutation}"


def verdict(result: Result, accepted: Mapping[tuple[str, str, str], str], modules: Iterable[str]) -> tuple[str, bool]:
    """The report and whether the check is passed.

    Args:
        result: What became of the mutants.
        accepted: Reasons of the survivors that may be there, by `Mutant.key`.
        modules: Modules of which every accepted survivor was run: entries of others say nothing here.
    """
    lines, is_passed = list[str](), True
    for one in result.survivors:
        reason = None if one.must_die else accepted.get(one.key)
        lines.append(f"survivor  {describe(one)}\n          {reason or 'NO REASON: write a test that fails on it.'}")
        is_passed &= reason is not None
    alive = {one.key for one in result.survivors}
    for key in accepted:
        if key[0] in modules and key not in alive:
            lines.append(
                f"stale     {': '.join(key)}\n          accepted, but it dies or is no mutant: delete the entry."
            )
            is_passed = False
    count, dead = len(result.mutants), len(result.mutants) - len(result.survivors)
    rate = dead / count if count else 0.0
    lines.append(f"{dead} of {count} mutants died ({rate:.1%}), {result.endless} of them by their time limit.")
    if rate < LEAST_RATE:
        lines.append(f"At least {LEAST_RATE:.0%} must die.")
        is_passed = False
    return "\n".join(lines), is_passed
