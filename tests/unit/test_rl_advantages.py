"""Advantages by hand: groups, batches, several rewards, what is missing, silent or solved."""

import math

import pytest
import torch

from editloop.errors import EditLoopError
from editloop.training.editor_rl.advantages import (
    combine_advantages,
    compute_advantages,
    solved,
    strongest_members,
    teachable,
)

pytestmark = pytest.mark.floats

NAN = float("nan")


def test_by_hand_and_what_is_missing_drops_out():
    found = compute_advantages(torch.tensor([[1.0, 3.0, NAN, 2.0], [0.5, 0.5, 0.5, 0.5], [0.1, NAN, NAN, NAN]]))
    spread = math.sqrt(2 / 3)
    torch.testing.assert_close(found.values[0], torch.tensor([-1 / spread, 1 / spread, 0.0, 0.0]))
    assert found.values[1:].abs().max() == 0
    assert found.counts.tolist() == [[True, True, False, True], [False] * 4, [False] * 4]
    assert (found.silent, found.missing) == (2, 4)


def test_a_batchs_spread_is_that_of_all_its_rewards_and_a_pooled_one_that_within_groups():
    rewards = torch.tensor([[0.0, 1.0], [2.0, 2.002], [NAN, 7.0]], dtype=torch.float64)
    alike = compute_advantages(rewards).values
    torch.testing.assert_close(alike[:2], torch.tensor([[-1.0, 1.0], [-1.0, 1.0]], dtype=torch.float64))
    of_batch = compute_advantages(rewards, "batch").values
    spread = torch.tensor([0.0, 1.0, 2.0, 2.002, 7.0], dtype=torch.float64).std(correction=0).item()
    assert of_batch[0].tolist() == pytest.approx([-0.5 / spread, 0.5 / spread])
    assert of_batch[1].tolist() == pytest.approx([-0.001 / spread, 0.001 / spread])
    pooled = compute_advantages(rewards, "pooled").values
    assert pooled[0, 1].item() == pytest.approx(0.5 / math.sqrt((0.25 + 1e-6) / 2))
    assert pooled[1].abs().max() < 0.01
    assert of_batch[2].tolist() == pooled[2].tolist() == [0, 0]


def test_an_outlier_is_clipped():
    """One right edit among 64 would have sqrt(63) = 7.9."""
    rewards = torch.zeros(1, 64)
    rewards[0, 0] = 1.0
    assert compute_advantages(rewards).values[0, 0].item() == 5.0


def test_a_spread_of_a_ten_thousandth_is_none():
    """Two rewards d apart have a deviation of d / 2: the least that teaches is above 1e-4."""
    for apart, teaches in ((1.9e-4, False), (2.1e-4, True)):
        found = compute_advantages(torch.tensor([[0.5, 0.5 + apart]], dtype=torch.float64))
        assert (found.counts.all().item(), found.silent) == (teaches, 0 if teaches else 1)
        assert found.values.abs().max().item() == pytest.approx(1.0 if teaches else 0.0)


def test_an_outlier_below_is_clipped_too_and_nothing_within_is():
    rewards = torch.zeros(2, 64, dtype=torch.float64)
    rewards[0, 0] = -1.0
    rewards[1, :3] = 1.0
    found = compute_advantages(rewards).values
    assert found[0, 0].item() == -5.0
    assert found[1, 0].item() == pytest.approx(math.sqrt(61 / 3))


@pytest.mark.parametrize("scale", ["group", "batch", "pooled"])
def test_adding_to_a_tasks_rewards_or_scaling_all_changes_nothing(scale):
    rewards = torch.rand(4, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    first = compute_advantages(rewards, scale).values
    torch.testing.assert_close(compute_advantages(3 * rewards + 7, scale).values, first)
    assert first.sum(1).abs().max() < 1e-12


def test_nothing_at_all_to_learn_is_no_division_by_zero():
    for scale in ("group", "batch", "pooled"):
        for rewards in (torch.full((2, 3), NAN), torch.full((2, 3), 0.4)):
            found = compute_advantages(rewards, scale)
            assert found.values.abs().max() == 0
            assert found.silent == 2
            assert not found.counts.any()


@pytest.mark.parametrize("shape", [(4, 1), (4,)])
def test_a_group_of_one_is_refused(shape):
    with pytest.raises(EditLoopError, match="a group of one has no order"):
        compute_advantages(torch.zeros(shape))


def test_normalised_rewards_weigh_what_their_weights_say_and_raw_ones_by_their_range():
    wide, narrow = torch.tensor([[0.0, 100.0, 0.0, 100.0]]), torch.tensor([[1.0, 1.0, 0.0, 0.0]])
    rewards, weights = {"wide": wide, "narrow": narrow}, {"wide": 1.0, "narrow": 3.0}
    found = combine_advantages(rewards, weights)
    torch.testing.assert_close(found.values, torch.tensor([[0.5, 1.0, -1.0, -0.5]]))
    raw = combine_advantages(rewards, weights, combination="raw").values
    torch.testing.assert_close(raw, compute_advantages(wide / 4 + narrow * 3 / 4).values)
    assert raw[0, 1] > 0.9
    assert raw[0, 0] < -0.9


@pytest.mark.parametrize(("apart", "teaches"), [(1.9e-4, False), (2.1e-4, True)])
def test_raw_rewards_are_added_by_weight_before_their_spread_is_looked_at(apart, teaches):
    """The weighted sum of two equal rewards is that reward, with its own spread."""
    reward = torch.tensor([[0.5, 0.5 + apart]], dtype=torch.float64)
    found = combine_advantages({"a": reward, "b": reward}, {"a": 1.0, "b": 3.0}, combination="raw")
    assert found.counts.all().item() == teaches


@pytest.mark.parametrize("combination", ["normalised", "raw"])
def test_one_reward_is_itself_whatever_its_weight(combination):
    rewards = torch.rand(3, 4, generator=torch.Generator().manual_seed(1))
    found = combine_advantages({"one": rewards}, {"one": 0.3}, combination=combination, scale="batch")
    torch.testing.assert_close(found.values, compute_advantages(rewards, "batch").values)


@pytest.mark.parametrize("combination", ["normalised", "raw"])
def test_an_edit_that_lacks_one_of_its_rewards_drops_out_of_all(combination):
    one, other = torch.tensor([[0.0, 1.0, 9.0]]), torch.tensor([[0.0, 2.0, NAN]])
    found = combine_advantages({"a": one, "b": other}, {"a": 1, "b": 1}, combination=combination)
    torch.testing.assert_close(found.values, torch.tensor([[-1.0, 1.0, 0.0]]))
    assert (found.missing, found.silent) == (1, 0)
    assert found.counts.tolist() == [[True, True, False]]


def test_a_reward_that_is_silent_leaves_the_word_to_the_others():
    rewards = {"a": torch.tensor([[0.5, 0.5], [0.5, 0.5]]), "b": torch.tensor([[0.0, 1.0], [0.2, 0.2]])}
    found = combine_advantages(rewards, {"a": 1, "b": 1})
    torch.testing.assert_close(found.values, torch.tensor([[-0.5, 0.5], [0.0, 0.0]]))
    assert found.silent == 1


def test_weights_and_rewards_of_other_names_are_refused():
    with pytest.raises(EditLoopError, match="each reward needs one weight above 0"):
        combine_advantages({"a": torch.zeros(2, 2)}, {"b": 1.0})
    for rewards, weights in (({"a": torch.zeros(2, 2)}, {"a": 0.0}), ({}, {})):
        with pytest.raises(EditLoopError, match="each reward needs one weight above 0"):
            combine_advantages(rewards, weights)


def test_solved_is_alike_and_good_and_known():
    rewards = torch.tensor([[0.95, 0.96, 0.97], [0.5, 0.5, 0.5], [1.0, 1.0, 0.8], [0.95, 0.96, NAN], [0.89, 0.9, 0.9]])
    assert solved(rewards).tolist() == [True, False, False, False, False]
    assert solved(rewards, spread=0.1).tolist() == [True, False, True, False, False]


def test_the_strongest_are_those_farthest_from_their_groups_mean():
    found = compute_advantages(torch.tensor([[0.0, 0.5, 1.0, 0.6], [1.0, NAN, NAN, 2.0], [0.1, 0.1, 0.1, 0.1]]))
    assert strongest_members(found, 2).tolist() == [[True, False, True, False], [True, False, False, True], [False] * 4]
    assert torch.equal(strongest_members(found, 4), found.counts)


def test_tasks_of_one_group_share_its_mean_and_its_deviation():
    """The first and the third task have one instruction, and are one group of four edits."""
    rewards = torch.tensor([[0.1, 0.2], [0.5, 0.9], [0.3, NAN]], dtype=torch.float64)
    groups = torch.tensor([0, 1, 0])
    found = compute_advantages(rewards, groups=groups)
    mean, spread = 0.2, torch.tensor([0.1, 0.2, 0.3], dtype=torch.float64).std(correction=0).item()
    assert found.values[0].tolist() == pytest.approx([(0.1 - mean) / spread, 0.0])
    assert found.values[2].tolist() == pytest.approx([(0.3 - mean) / spread, 0.0])
    assert found.values[1].tolist() == pytest.approx([-1.0, 1.0])
    alone = compute_advantages(rewards, groups=torch.arange(3))
    assert torch.equal(alone.values, compute_advantages(rewards).values)
    two = combine_advantages({"one": rewards}, {"one": 1.0}, combination="raw", groups=groups)
    assert torch.equal(two.values, found.values)


def test_what_is_added_to_the_deviation_makes_advantages_smaller():
    rewards = torch.tensor([[0.4, 0.6]], dtype=torch.float64)
    assert compute_advantages(rewards, epsilon=0.1).values[0].tolist() == pytest.approx([-0.5, 0.5])
    several = combine_advantages({"a": rewards, "b": rewards}, {"a": 1.0, "b": 3.0}, epsilon=0.1)
    assert several.values[0].tolist() == pytest.approx([-0.5, 0.5])


def test_teachable_groups_differ_and_are_not_good_already():
    rewards = torch.tensor([[0.2, 0.4], [0.5, 0.5], [0.95, 0.99], [0.85, 0.99], [0.2, NAN], [0.3, 0.5]])
    assert teachable(rewards).tolist() == [True, False, False, False, False, True]
    assert teachable(rewards, spread=0.06, mean=0.95).tolist() == [True, False, False, True, False, True]
    assert teachable(rewards, groups=torch.tensor([0, 1, 1, 3, 0, 5])).tolist() == [True, True, True, False, True, True]


def test_a_group_is_solved_as_a_whole():
    rewards = torch.tensor([[0.95, 0.96], [0.97, 0.98], [0.95, 0.96], [0.2, 0.3], [0.95, NAN]])
    assert solved(rewards).tolist() == [True, True, True, False, False]
    assert solved(rewards, groups=torch.tensor([0, 0, 3, 3, 4])).tolist() == [True, True, False, False, False]
    assert solved(rewards, groups=torch.tensor([0, 1, 0, 3, 0])).tolist() == [False, True, False, False, False]
