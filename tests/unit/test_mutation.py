"""The mutation check itself: a planted survivor is reported, a stale entry fails, an endless loop ends."""

import ast
from pathlib import Path

import pytest

from tests.mutation.check import Result, run_check, verdict
from tests.mutation.modules import NAMED, TESTS
from tests.mutation.mutants import CheckError, Mutant, Named, read_accepted, select
from tests.mutation.operators import mutated, sites
from tests.mutation.worker import PASSED, Task, run_tasks

MODULE, TEST = "planted_rule.py", "test_planted_rule.py"
RULE = "def is_adult(age: int) -> bool:\n    return age >= 18\n"
BOUNDARY = (MODULE, "return age >= 18", "age >= 18 -> age > 18")
ROOT = Path(__file__).parents[2]


@pytest.fixture
def planted(tmp_path: Path) -> Path:
    """A rule whose test does not try the boundary."""
    (tmp_path / MODULE).write_text(RULE)
    (tmp_path / TEST).write_text(
        "from planted_rule import is_adult\n\ndef test_rule():\n    assert is_adult(30) and not is_adult(3)\n"
    )
    (tmp_path / "scratch").mkdir()
    return tmp_path


def mutants(*keys: tuple[str, str, str], must_die: bool = False) -> list[Mutant]:
    return [Mutant(*key[:1], 1, *key[1:], ast.parse(""), must_die) for key in keys]


def numbered(count: int) -> list[tuple[str, str, str]]:
    return [(MODULE, f"line {number}", "a -> b") for number in range(count)]


def test_a_planted_survivor_is_found_and_nothing_is_written_beside_the_module(planted: Path) -> None:
    chosen = select(planted, [MODULE], [], {}, 1000)
    result = run_check(planted, chosen, {MODULE: (TEST,)}, planted / "scratch")
    assert [one.mutation for one in result.survivors] == ["age >= 18 -> age > 18", "18 -> 19"]
    assert [one.mutation for one in result.mutants if one not in result.survivors] == [
        "return age >= 18 -> return not age >= 18",
        "age >= 18 -> age < 18",
    ]
    report, is_passed = verdict(result, {}, [MODULE])
    assert not is_passed
    assert f"{MODULE}:2: age >= 18 -> age > 18\n          NO REASON" in report
    assert sorted(path.name for path in planted.iterdir()) == [MODULE, "scratch", TEST]


def test_an_endless_loop_is_ended(planted: Path) -> None:
    endless = Task(MODULE, ast.parse("while True:\n    pass\n"), (TEST,), 0.0)
    ((_, outcome),) = run_tasks(planted, [endless], 1, planted / "scratch")
    assert outcome.status < 0


def test_tests_that_fail_or_do_not_import_the_module_say_nothing(planted: Path) -> None:
    chosen = select(planted, [MODULE], [], {}, 1000)
    (planted / "test_alien.py").write_text("def test_nothing():\n    pass\n")
    with pytest.raises(CheckError, match="its tests do not import it"):
        run_check(planted, chosen, {MODULE: ("test_alien.py",)}, planted / "scratch")
    (planted / MODULE).write_text(RULE.replace("18", "2"))
    with pytest.raises(CheckError, match=r"(?s)its tests fail without a mutation.*assert"):
        run_check(planted, chosen, {MODULE: (TEST,)}, planted / "scratch")
    ((_, outcome),) = run_tasks(planted, [Task(MODULE, ast.parse(RULE), (TEST,), 60.0)], 1, planted / "scratch")
    assert outcome.status == PASSED, "the tree takes the file's place"


def test_nine_of_ten_must_die_and_each_survivor_needs_a_reason() -> None:
    ten, eleven = mutants(*numbered(10)), mutants(*numbered(11))
    reasons = dict.fromkeys((one.key for one in eleven[:2]), "it is equivalent")
    assert verdict(Result(ten, ten[:1], 0), {ten[0].key: "it is equivalent"}, [MODULE])[1]
    assert not verdict(Result(ten, ten[:1], 0), {}, [MODULE])[1]
    report, is_passed = verdict(Result(eleven, eleven[:2], 0), reasons, [MODULE])
    assert not is_passed
    assert "9 of 11 mutants died (81.8%)" in report
    assert "At least 90%" in report
    named = mutants(*numbered(20), must_die=True)
    assert not verdict(Result(named, named[:1], 0), {named[0].key: "no reason is good enough"}, [MODULE])[1]


def test_an_accepted_entry_that_dies_or_is_no_mutant_is_stale() -> None:
    ten = mutants(*numbered(10))
    report, is_passed = verdict(Result(ten, [], 0), {BOUNDARY: "it was equivalent"}, [MODULE])
    assert not is_passed
    assert "stale" in report
    assert BOUNDARY[2] in report
    assert verdict(Result(ten, [], 0), {BOUNDARY: "of a module that was not run"}, ["another.py"])[1]


def test_an_accepted_mutant_runs_whatever_the_sample_is(planted: Path) -> None:
    assert [one.key for one in select(planted, [MODULE], [], {BOUNDARY: "reason"}, 0)] == [BOUNDARY]


def test_a_named_mistake_must_be_there_exactly_once(planted: Path) -> None:
    (one,) = select(planted, [MODULE], [Named(MODULE, ">= 18", ">= 36")], {}, 0)
    assert (one.must_die, one.line, ast.unparse(one.tree).splitlines()[-1]) == (True, 2, "    return age >= 36")
    with pytest.raises(CheckError, match="is there 0 times"):
        select(planted, [MODULE], [Named(MODULE, ">= 21", ">= 36")], {}, 0)


def test_an_entry_without_a_reason_is_refused(tmp_path: Path) -> None:
    entry = dict(zip(("module", "line", "mutation"), BOUNDARY, strict=True))
    for number, reason in enumerate(({}, {"reason": " "})):
        path = tmp_path / f"{number}.yaml"
        path.write_text(str([entry | reason]))
        with pytest.raises(CheckError, match="and a reason"):
            read_accepted(path)


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("x = a < b", {"x = a <= b", "x = a >= b"}),
        ("x = a + 1", {"x = a - 1", "x = a + 2"}),
        ("x = a * b", {"x = a / b", "x = a"}),
        ("x = a and not b", {"x = a or not b", "x = a and b"}),
        ("x = min(a, b)", {"x = max(a, b)"}),
        ("x = f(a, b)", {"x = f(b, a)"}),
        ("def f() -> float:\n    return a", {"def f() -> float:\n    return -a"}),
        ("if a.b:\n    pass", {"if not a.b:\n    pass"}),
        ('"""Words."""\nraise E(f"{a + 1}")', set[str]()),
    ],
)
def test_mutations_are_of_one_token(source: str, expected: set[str]) -> None:
    count = len(list(sites(ast.parse(source))))
    assert {ast.unparse(mutated(source, number)) for number in range(count)} == expected


def test_every_module_and_test_of_the_check_is_there() -> None:
    assert all((ROOT / path).is_file() for module, tests in TESTS.items() for path in (module, *tests))
    assert {one.module for one in NAMED} <= set(TESTS)
