"""What an iteration of a published recipe trains, counted in the real calls: by the rules, and as it was recorded."""

import json
from collections.abc import Iterator

import numpy as np
import pytest
import torch

from editloop.training.editor_rl.algorithm_settings import FlowGrpoSettings, NftSettings
from editloop.training.editor_rl.settings import read_rl_preset
from editloop.training.editor_rl.update_steps import forward_batches
from tests.published_updates import MEMBERS, RECIPES, RECORD, REWARDS, TASKS, Recorded, as_json, recorded
from tests.toy_editing import one_rank

pytestmark = pytest.mark.floats

EDITS = TASKS * MEMBERS
SOLVED, SILENT = 1, 2
"""Tasks whose rewards are all high, and all alike."""


@pytest.fixture(scope="module")
def records() -> Iterator[dict[str, Recorded]]:
    with one_rank():
        yield {name: recorded(name) for name in RECIPES}


def tasks_of(step: dict[str, object]) -> set[int]:
    return {int(name.split(".")[0]) for name in step}


@pytest.mark.parametrize("name", RECIPES)
def test_the_update_is_the_recorded_one(name: str, records: dict[str, Recorded]) -> None:
    expected, found = json.loads(RECORD.read_text())[name], as_json(records[name])
    assert found["passes"] == expected["passes"]
    assert [sorted(step) for step in found["steps"]] == [sorted(step) for step in expected["steps"]]
    for step, other in zip(found["steps"], expected["steps"], strict=True):
        for edit, figures in step.items():
            assert figures["advantage"] == pytest.approx(other[edit]["advantage"], rel=1e-4, abs=1e-5)
            assert np.array(figures["levels"]) == pytest.approx(np.array(other[edit]["levels"]), rel=1e-4)


@pytest.mark.parametrize("name", RECIPES)
def test_who_is_trained_with_which_advantage(name: str, records: dict[str, Recorded]) -> None:
    """Edit-R1 masks the solved and the silent group, Flow-GRPO drops the silent one, the others train all edits."""
    settings, steps = read_rl_preset(name), records[name].update
    assert len(steps) == settings.optimiser_steps
    expected = set(range(TASKS))
    if name.startswith("edit-r1"):
        expected -= {SOLVED, SILENT}
    elif name.startswith("flow-grpo"):
        expected -= {SILENT}
    assert set().union(*map(tasks_of, steps)) == expected
    assert sum(len(step) for step in steps) == len(expected) * MEMBERS, "each edit is in one optimiser step"
    rewards = np.array(REWARDS)
    deviation = np.full(TASKS, rewards.std() + 1e-4)
    if name.startswith("editscore"):
        deviation = rewards.std(1) + 1e-8
    for step in steps:
        for edit, figures in step.items():
            task, member = map(int, edit.split("."))
            advantage = (rewards[task, member] - rewards[task].mean()) / deviation[task]
            assert figures["advantage"] == pytest.approx(float(np.clip(advantage, -5, 5)), rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("name", RECIPES)
def test_how_much_an_edit_counts(name: str, records: dict[str, Recorded]) -> None:
    """A step's loss is the mean over its batches of the mean over a batch's trained edits, and over their levels."""
    settings, steps = read_rl_preset(name), records[name].update
    chosen = np.random.default_rng([settings.seed, 0]).choice(TASKS, TASKS, replace=False).tolist()
    batches = forward_batches(EDITS, settings.forward_batch, settings.seed, 0).tolist()
    levels = settings.algorithm.levels_per_edit
    for step in steps:
        of = {edit: batches[chosen.index(int(edit[0])) * MEMBERS + int(edit[2])] for edit in step}
        counts = {batch: list(of.values()).count(batch) for batch in of.values()}
        number = len(counts)
        if name.startswith("edit-r1"):
            number = len(set(batches))
            assert number == 7, "those without a trained edit count, too"
        for edit, figures in step.items():
            mean = 1 / len(step) if settings.forward_batch is None else 1 / (counts[of[edit]] * number)
            assert [level[1] for level in figures["levels"]] == pytest.approx([mean / levels] * levels, rel=1e-5)


@pytest.mark.parametrize("name", RECIPES)
def test_when_an_edit_is_trained(name: str, records: dict[str, Recorded]) -> None:
    settings = read_rl_preset(name)
    algorithm, steps = settings.algorithm, settings.sampling_steps
    grid = torch.linspace(1, 0, steps + 1)[:-1]
    if settings.sigma_shift != 1:
        grid = settings.sigma_shift * grid / (1 + (settings.sigma_shift - 1) * grid)
    trained = [
        tuple(level[0] for level in figures["levels"]) for step in records[name].update for figures in step.values()
    ]
    places = [[int((grid - sigma).abs().argmin()) for sigma in levels] for levels in trained]
    for levels, at in zip(trained, places, strict=True):
        assert levels == pytest.approx(grid[at].tolist(), abs=1e-5)
        assert len(set(at)) == len(at) == algorithm.levels_per_edit
    if isinstance(algorithm, NftSettings):
        assert len(set(map(tuple, places))) > len(places) / 2, "drawn for each edit"
        assert set().union(*places) == set(range(steps)), "any of the rollout's times"
    elif name == "flow-grpo":
        assert all(at == [0, 1, 2, 3, 4] for at in places)
    elif name == "flow-grpo-fast":
        assert places[0] in ([0, 1, 2, 3], [1, 2, 3, 4])
        assert all(at == places[0] for at in places), "one window an iteration"
    elif name.startswith("editscore"):
        assert all(at == sorted(at) for at in places)
        assert len(set(map(tuple, places))) == 3, "drawn for each forward batch: 20 edits, at most 9 together"


@pytest.mark.parametrize("name", RECIPES)
def test_how_steps_are_weighed(name: str, records: dict[str, Recorded]) -> None:
    settings = read_rl_preset(name)
    for step in records[name].update:
        for figures in step.values():
            weights = [level[2] for level in figures["levels"]]
            if isinstance(settings.algorithm, FlowGrpoSettings) and settings.algorithm.reweighting == "published":
                assert sum(weights) == pytest.approx(12**2, rel=1e-5)
                assert weights[-1] < 12 < weights[0], "early steps, with more noise, count more"
            else:
                assert weights == [1.0] * len(weights)
