"""What befalls a turn of the chaos run follows from its seed, and covers every kind of fault and every stage."""

from pipelines.summary import TURN_STAGES
from tests.chaos.__main__ import FAULTS_OF_A_TURN, plan
from tests.chaos.call import STAGES_OF_A_TURN
from tests.chaos.faults import FAULTS


def test_a_seed_gives_the_same_faults_each_in_a_stage_of_its_own_and_in_order() -> None:
    for seed in range(20):
        planned = plan(seed, FAULTS, FAULTS_OF_A_TURN)
        assert planned == plan(seed, FAULTS, FAULTS_OF_A_TURN)
        stages = [STAGES_OF_A_TURN.index(one.stage) for one in planned]
        assert stages == sorted(set(stages))
        assert all(not one.fault.stages or one.stage in one.fault.stages for one in planned)


def test_the_usual_run_has_every_kind_of_fault_and_every_stage() -> None:
    planned = [one for seed in range(21) for one in plan(seed, FAULTS, FAULTS_OF_A_TURN)]
    assert len(planned) == 84
    assert {one.fault for one in planned} == set(FAULTS)
    assert {one.stage for one in planned} == set(STAGES_OF_A_TURN)


def test_the_stages_are_those_of_a_turn_in_their_order() -> None:
    assert [stage for stage in STAGES_OF_A_TURN if stage != "answers"] == list(TURN_STAGES)
