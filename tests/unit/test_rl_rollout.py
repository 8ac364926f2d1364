"""Sampling for RL: what an edit is depends on its name alone, what a group shares is computed once."""

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from editloop.data.edits_file import read_edits
from editloop.errors import EditLoopError
from editloop.models.editors.opening import open_editor
from editloop.models.editors.protocol import join_conditions
from editloop.studies.world.scenes import write_edits
from editloop.training.editor_rl.policy_loss import probability_ratio
from editloop.training.editor_rl.prompts import Prompts
from editloop.training.editor_rl.rollout import SamplingCost, sample_rollout
from editloop.training.editor_rl.settings import RlSettings, read_rl_preset, rl_preset_names
from editloop.training.editor_rl.updates import GrpoLevel, NftLevel, TrainedWeights, build_levels

pytestmark = pytest.mark.floats

GRPO = {"algorithm": "flow-grpo", "members": 3, "tasks": 4}


@pytest.fixture(scope="module")
def editor():
    torch.manual_seed(0)
    editor = open_editor("tiny-editor")
    editor.trained = editor.add_adapter(4, 8)
    return editor


@pytest.fixture(scope="module")
def prompts(editor, tmp_path_factory):
    folder = tmp_path_factory.mktemp("edits")
    write_edits(folder, 6, 1)
    return Prompts(read_edits(folder), editor, cache_size=100, seed=3)


def rolled(settings, editor, prompts, tasks, *, counts=None, window=range(1, 3)):
    condition = join_conditions([one.condition for one in prompts.encoded_tasks(tasks)])
    return sample_rollout(settings, editor, condition, tasks, 5, window, counts or SamplingCost())


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("storage", ["fp32", "bf16"])
@pytest.mark.parametrize("step", ["flow-sde", "cps", "dance-sde"])
def test_the_ratio_is_exactly_one_before_the_first_update(editor, prompts, shared, storage, step):
    settings = RlSettings(**GRPO, shared_noise=shared, storage=storage, step=step)
    rollout = rolled(settings, editor, prompts, [0, 1, 2, 3])
    for level, kept in zip(
        build_levels(settings, editor, rollout, 5, TrainedWeights(editor.trained), [], True),
        rollout.window,
        strict=True,
    ):
        assert isinstance(level, GrpoLevel)
        assert kept.before.dtype == (torch.bfloat16 if storage == "bf16" else torch.float32)
        found = level.losses(torch.arange(12), torch.ones(12))
        assert torch.equal(found.figures["ratio"], torch.ones(12))
        assert torch.equal(probability_ratio(kept.log_prob, kept.log_prob), torch.ones(12))
        assert found.loss.requires_grad
    if shared:
        first = rollout.window[0].before.view(4, 3, -1)
        assert torch.equal(first[:, 0], first[:, 2])
        assert not torch.equal(rollout.latents.view(4, 3, -1)[:, 0], rollout.latents.view(4, 3, -1)[:, 2])


@pytest.mark.parametrize("told", [GRPO, {"members": 3}])
def test_an_edit_depends_on_its_name_alone_whatever_it_is_sampled_with(editor, prompts, told):
    settings = RlSettings(**told, micro_batch=5)
    window = range(1, 3) if settings.algorithm == "flow-grpo" else range(0)
    whole = rolled(settings, editor, prompts, [4, 1, 2], window=window)
    alone = rolled(settings, editor, prompts, [2], window=window)
    torch.testing.assert_close(whole.latents[6:], alone.latents, atol=2e-5, rtol=1e-4)
    assert whole.names[6:] == alone.names
    again = whole.subset(torch.tensor([7, 8]))
    assert again.names == [(2, 1), (2, 2)]
    weights = TrainedWeights(editor.trained)
    one = build_levels(settings, editor, again, 5, weights, weights.copy(), True)[0]
    other = build_levels(settings, editor, alone, 5, weights, weights.copy(), True)[0]
    if isinstance(one, NftLevel):
        torch.testing.assert_close(one.noised, other.noised[1:], atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("common", [True, False])
def test_members_of_a_group_are_noised_alike_where_that_is_asked_for(editor, prompts, common):
    settings = RlSettings(members=3, common_noise=common)
    rollout = rolled(settings, editor, prompts, [0, 1], window=range(0))
    weights = TrainedWeights(editor.trained)
    levels = build_levels(settings, editor, rollout, 5, weights, weights.copy(), False)
    assert len({float(level.sigma[0]) for level in levels}) == len(levels)
    for level in levels:
        sigma = level.sigma[:, None, None]
        noise = (level.noised - (1 - sigma) * rollout.latents).view(2, 3, -1) / level.sigma.view(2, 3, 1)
        assert torch.allclose(noise[:, 0], noise[:, 1], atol=1e-3) == common
        assert torch.equal(level.sigma.view(2, 3)[:, 0], level.sigma.view(2, 3)[:, 2]) == common
        assert not torch.allclose(noise[0, 0], noise[1, 0], atol=1e-3)


@pytest.mark.parametrize("told", [GRPO, {"members": 3}])
def test_the_base_is_asked_only_where_the_distance_is_wanted(editor, prompts, told):
    settings = RlSettings(**told, kl=0.0, levels=2)
    window = range(1, 3) if settings.algorithm == "flow-grpo" else range(0)
    rollout = rolled(settings, editor, prompts, [0], window=window)
    weights, losses = TrainedWeights(editor.trained), []
    for with_base in (True, False):
        level = build_levels(settings, editor, rollout, 5, weights, weights.copy(), with_base)[0]
        losses.append(level.losses(torch.arange(3), torch.tensor([1.0, -1.0, 0.5])))
    assert torch.equal(losses[0].loss, losses[1].loss)
    assert set(losses[0].figures) - set(losses[1].figures) == {"kl"}


def test_steps_before_the_window_are_computed_once_a_group(editor, prompts):
    counts = SamplingCost()
    settings = RlSettings(**GRPO, shared_noise=True, steps=8)
    rolled(settings, editor, prompts, [0, 1], counts=counts, window=range(3, 5))
    assert counts.shared == 2 * 3
    assert counts.network == 2 * 3 + 2 * 3 * 5


def test_a_task_is_encoded_once_and_again_only_when_it_was_let_go(editor, tmp_path):
    write_edits(tmp_path, 5, 2)
    prompts = Prompts(read_edits(tmp_path), editor, cache_size=3, seed=0)
    prompts.encoded_tasks([0, 1, 2])
    first = prompts.encoded_tasks([2, 0])
    assert prompts.encodings == 3
    prompts.encoded_tasks([3])
    assert prompts.encodings == 4
    prompts.encoded_tasks([0, 2])
    assert prompts.encodings == 4
    prompts.encoded_tasks([1])
    assert prompts.encodings == 5
    again = prompts.encoded_tasks([2])[0]
    assert np.array_equal(first[0].source, again.source)


def test_which_tasks_an_iteration_takes_follows_from_seed_iteration_and_what_is_solved(prompts):
    assert np.array_equal(prompts.chosen(7, 4, set()), prompts.chosen(7, 4, set()))
    assert any(not np.array_equal(prompts.chosen(7, 4, set()), prompts.chosen(at, 4, set())) for at in range(8, 11))
    assert sorted(prompts.chosen(7, 4, {0, 1, 2})) == [3, 4, 5]


def test_presets_are_valid_and_tell_what_cannot_be():
    assert {"tiny", "smallest", "editscore-omnigen2", "flow-grpo", "flow-grpo-fast", "edit-r1"} <= set(
        rl_preset_names()
    )
    for name in rl_preset_names():
        read_rl_preset(name)
    with pytest.raises(EditLoopError, match="a group of one has no order"):
        read_rl_preset("tiny", members=1)
    with pytest.raises(EditLoopError, match="no such file or name; there are"):
        read_rl_preset("large")


@pytest.mark.parametrize(
    ("told", "rule"),
    [
        ({"algorithm": "flow-grpo", "window": 9, "steps": 8}, "window 9 is longer than the trajectory of 8 steps"),
        ({"algorithm": "flow-grpo", "window": 3, "window_range": 2}, "at least the window"),
        ({"algorithm": "flow-grpo", "step": "cps", "window_range": 8}, "has no deviation"),
        ({"keep": 9}, "keep 9 is above members 8"),
        ({"keep": 1}, "nothing to be better than"),
        ({"algorithm": "flow-grpo", "common_noise": True}, "draws no noise"),
        ({"shared_noise": True}, "all members would be one edit"),
        ({"unheard": 1}, "unheard"),
    ],
)
def test_settings_that_cannot_work_are_refused_with_the_rule(told, rule):
    with pytest.raises(ValidationError, match=rule):
        RlSettings(**told)
