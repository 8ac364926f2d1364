"""Optimiser steps of an iteration: which edits, at which levels, with which weights."""

import pytest
import torch

from editloop.training.editor_rl.update_steps import drawn_levels, forward_batches, optimiser_steps

TRAINED = torch.tensor([True, False, True, True, False, True, True, False])
BATCHES = torch.tensor([3, 0, 1, 0, 2, 2, 1, 3])


def test_batches_are_even_random_and_the_same_for_everybody() -> None:
    batches = forward_batches(24, 3, 7, 5)
    assert torch.bincount(batches).tolist() == [3] * 8
    assert batches.tolist() == forward_batches(24, 3, 7, 5).tolist()
    assert all(batches.tolist() != forward_batches(24, 3, *other).tolist() for other in ((7, 6), (8, 5)))
    assert sorted(torch.bincount(forward_batches(20, 9, 0, 0)).tolist()) == [6, 7, 7]
    assert sorted(forward_batches(5, None, 0, 0).tolist()) == [0, 1, 2, 3, 4]


def test_a_training_that_goes_on_after_an_update_of_the_code_draws_the_same() -> None:
    assert forward_batches(8, None, 3, 1).tolist() == [5, 4, 3, 0, 2, 6, 1, 7]
    drawn = drawn_levels(torch.tensor([2]), levels=6, drawn=3, seed=3, iteration=1)
    assert drawn[0].nonzero().flatten().tolist() == [1, 2, 4]


def test_without_a_number_each_level_is_a_step_on_all_trained_edits() -> None:
    steps = optimiser_steps(TRAINED, BATCHES, count=None, together=False, levels=3, levels_per_edit=3)
    assert [step.levels for step in steps] == [range(1), range(1, 2), range(2, 3)]
    for step in steps:
        assert step.weights.tolist() == TRAINED.float().tolist()
        assert step.divisor == 5


def test_steps_share_the_trained_edits_evenly() -> None:
    order = torch.tensor([6, 0, 3, 1, 7, 2, 5, 4])
    steps = optimiser_steps(TRAINED, order, count=2, together=False, levels=4, levels_per_edit=4)
    assert [step.levels for step in steps] == [range(4)] * 2
    first, second = (step.weights.nonzero().flatten().tolist() for step in steps)
    assert (sorted(first), sorted(second)) == ([2, 3, 5], [0, 6]), "in the order 3, 5, 2, 6, 0"
    assert [step.divisor for step in steps] == [3 * 4, 2 * 4]


def test_batches_count_alike_also_those_without_a_trained_edit() -> None:
    trained = TRAINED.clone()
    trained[5] = False  # batch 2 has none left
    (step,) = optimiser_steps(trained, BATCHES, count=1, together=True, levels=6, levels_per_edit=5)
    assert step.weights.tolist() == [1.0, 0.0, 0.5, 1.0, 0.0, 0.0, 0.5, 0.0]
    assert step.divisor == 4 * 5
    first, second = optimiser_steps(trained, BATCHES, count=2, together=True, levels=6, levels_per_edit=5)
    assert first.weights.nonzero().flatten().tolist() == [2, 3, 6]
    assert second.weights.nonzero().flatten().tolist() == [0]
    assert first.divisor == second.divisor == 2 * 5


@pytest.mark.parametrize("together", [True, False])
def test_more_steps_than_edits_leaves_steps_without_any(together: bool) -> None:
    trained = torch.tensor([True, True])
    steps = optimiser_steps(trained, torch.tensor([1, 0]), count=3, together=together, levels=1, levels_per_edit=1)
    assert len(steps) == 3
    assert [int((step.weights > 0).sum()) for step in steps if step.divisor] == [1, 1]
    nobody = optimiser_steps(~trained, torch.tensor([1, 0]), count=2, together=together, levels=1, levels_per_edit=1)
    assert len(nobody) == 2
    assert all(not step.weights.any() for step in nobody)
    assert [step.divisor for step in nobody] == ([1, 1] if together else [0, 0])


def test_levels_are_drawn_for_a_batch_and_anew_in_each_iteration() -> None:
    drawn = drawn_levels(BATCHES, levels=20, drawn=12, seed=1, iteration=4)
    assert drawn.sum(1).tolist() == [12] * 8
    for batch in range(4):
        first, second = drawn[batch == BATCHES]
        assert first.tolist() == second.tolist()
    assert len({tuple(row.tolist()) for row in drawn}) == 4
    alone = drawn_levels(BATCHES[5:6], levels=20, drawn=12, seed=1, iteration=4)
    assert alone[0].tolist() == drawn[5].tolist(), "whoever else is there"
    for seed, iteration in ((1, 5), (2, 4)):
        other = drawn_levels(BATCHES, levels=20, drawn=12, seed=seed, iteration=iteration)
        assert other.tolist() != drawn.tolist()
