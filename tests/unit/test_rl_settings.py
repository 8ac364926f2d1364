"""Settings of online RL: presets are valid, what cannot work is refused with the rule, and what just works is not."""

import pytest
from pydantic import ValidationError

from editloop.errors import EditLoopError
from editloop.settings_file import preset_names
from editloop.training.editor_rl.settings import PRESETS, RlSettings, read_rl_preset


def grpo(**told):
    return {"name": "flow-grpo", **told}


def test_presets_are_valid_and_tell_what_cannot_be():
    assert {"tiny", "smallest", "editscore-omnigen2", "flow-grpo", "flow-grpo-fast", "edit-r1"} <= set(
        preset_names(PRESETS)
    )
    for name in preset_names(PRESETS):
        read_rl_preset(name)
    with pytest.raises(EditLoopError, match="a group of one has no order"):
        read_rl_preset("tiny", members=1)
    with pytest.raises(EditLoopError, match="no such file or name; there are"):
        read_rl_preset("large")


@pytest.mark.parametrize(
    ("told", "rule"),
    [
        (
            {"algorithm": grpo(window=9, window_range=9), "sampling_steps": 8},
            "window_range 9 is longer than .* of 8 steps",
        ),
        ({"adapter": None, "targets": ("to_q",)}, "targets to_q without an adapter"),
        ({"adapter": {"dropout": 0.1}}, "adapter.dropout 0.1: editors' adapters have none"),
        ({"algorithm": grpo(window=3, window_range=2)}, "window 3 is longer than window_range 2"),
        ({"algorithm": grpo(step="cps", window_range=8)}, "has no deviation"),
        ({"algorithm": grpo(step="cps", noise=1.5)}, "noise 1.5 with cps: at most 1"),
        ({"algorithm": grpo(ratio_clip=(0.0, 0.1))}, "both sides above 0"),
        ({"algorithm": grpo(common_noise=True)}, r"algorithm\.flow-grpo\.common_noise"),
        ({"algorithm": {"name": "nft", "shared_noise": True}}, r"algorithm\.nft\.shared_noise"),
        ({"best_members": 9}, "best_members 9 is above members 8"),
        ({"best_members": 1}, "nothing to be better than"),
        ({"unheard": 1}, "unheard"),
    ],
)
def test_settings_that_cannot_work_are_refused_with_the_rule(told, rule):
    with pytest.raises(ValidationError, match=rule):
        RlSettings(**told)


def test_settings_at_the_limits_work():
    RlSettings(sampling_steps=4, algorithm=grpo(window=4, window_range=4))
    RlSettings(sampling_steps=5, algorithm=grpo(step="cps", noise=1.0, window_range=4))
    RlSettings(best_members=8)
    RlSettings(best_members=2)
