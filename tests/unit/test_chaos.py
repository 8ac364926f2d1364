"""What befalls a turn of the chaos run follows from its seed, and covers every kind of fault and every stage."""

from collections import Counter
from pathlib import Path

import pytest

from pipelines.summary import TURN_STAGES
from tests.chaos.__main__ import FIRST_SEED, TURNS
from tests.chaos.call import STAGES_OF_A_TURN
from tests.chaos.differences import expect_equal
from tests.chaos.faults import FAULTS
from tests.chaos.scenarios import SCENARIOS, Scenario, Scenes, run_scenario
from tests.chaos.table import BEGIN, END, write_table
from tests.chaos.turn import USUAL_SECONDS, has_bucket, plan


def test_a_seed_gives_the_same_faults_one_in_each_stage_and_in_order() -> None:
    for seed in range(20):
        planned = plan(seed)
        assert planned == plan(seed)
        assert tuple(one.stage for one in planned) == STAGES_OF_A_TURN
        assert all(one.stage in one.fault.stages for one in planned)
        assert all(0 <= one.moment <= USUAL_SECONDS[one.stage] for one in planned)
        assert has_bucket(seed) or not any(one.fault.needs_bucket for one in planned)
        assert max(Counter(one.fault.name for one in planned).values()) == 1


def test_the_usual_run_has_every_kind_of_fault_and_enough_of_them() -> None:
    planned = [one for seed in range(FIRST_SEED, FIRST_SEED + TURNS) for one in plan(seed)]
    assert {one.fault.name for one in planned} == {fault.name for fault in FAULTS}
    assert len(planned) + len(SCENARIOS) >= 90, "some find nothing to strike, and do not count"


def test_the_stages_are_those_of_a_turn_in_their_order() -> None:
    assert [stage for stage in STAGES_OF_A_TURN if stage != "answers"] == list(TURN_STAGES)
    assert tuple(USUAL_SECONDS) == STAGES_OF_A_TURN


@pytest.mark.parametrize(("found", "trouble"), [(2, None), (1, "tasks: 1, not 2")])
def test_a_scenario_whose_outcome_differs_is_not_survived(tmp_path: Path, found: int, trouble: str | None) -> None:
    scenario = Scenario("a fault", "closing", lambda *_: expect_equal("tasks", found, 2))
    row = run_scenario(scenario, Scenes(tmp_path), 7, tmp_path)
    assert (row["survived"], row.get("trouble")) == (trouble is None, trouble)
    assert (row["fault"], row["stage"], row["seed"]) == ("a fault", "closing", 7)


def test_the_table_has_a_line_for_each_kind_and_leaves_the_page(tmp_path: Path) -> None:
    page = tmp_path / "chaos.md"
    row = {"fault": "a kill", "stage": "reward", "survived": True, "seconds": 2.0, "calls": 2}
    page.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    rows = [row, {**row, "stage": "promote", "survived": False, "seconds": 9.0}]
    for _ in range(2):
        write_table(page, {"faults": 2, "survived": 1, "seconds": 60, "rows": rows})
    text = page.read_text()
    assert "| a kill | 2 | reward, promote | 1 | 2 | 9 |" in text
    assert "1 of 2 faults survived, in 60 s on " in text
    assert text.startswith("before\n")
    assert text.endswith("\nafter\n")
    assert "old" not in text
