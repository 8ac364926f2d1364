"""How often gates promote, by simulation: equal models hardly ever, better ones the more the better they are."""

import pytest

from editloop.evaluation.gates.calibration import rates_markdown, simulate_gate
from editloop.evaluation.gates.settings import read_gate


def test_equal_models_are_promoted_no_oftener_than_the_nominal_level():
    (rate,) = simulate_gate(read_gate("reward"), tasks=(40,), gains=(0.0,), simulated=500, seed=3)
    assert rate.promoted <= 0.05
    assert rate.interval[0] <= 0.025
    assert rate.promoted + rate.held + rate.rejected == pytest.approx(1)


def test_all_suites_that_decide_are_simulated():
    """Each must promote, so that two promote what one does less often; the margin of each counts."""
    gate = read_gate("reward")
    (heldout, scenes), free = gate.suites, {"required": True, "margin": 0.5}
    promoted = [
        simulate_gate(gate.model_copy(update={"suites": suites}), tasks=(40,), gains=(0.06,), simulated=20)[0].promoted
        for suites in (
            (heldout,),
            (heldout, scenes),
            (heldout, scenes.model_copy(update=free)),
            (heldout, scenes.model_copy(update={"required": True})),
        )
    ]
    assert promoted[0] == promoted[1] == promoted[2] > promoted[3] > 0


def test_power_grows_with_the_gain():
    weak, strong = simulate_gate(read_gate("reward"), tasks=(40,), gains=(0.02, 0.15), simulated=60)
    assert strong.promoted > 0.8 > weak.promoted
    assert "+15 points" in rates_markdown(read_gate("reward"), [weak, strong])
