"""The trained weights and what takes their place: averages by hand, exchanges that come back."""

import pytest
import torch
from torch import nn

from editloop.training.editor_rl.rollout import micro_batches
from editloop.training.editor_rl.trained_weights import TrainedWeights


def weights(*values: float) -> TrainedWeights:
    return TrainedWeights([nn.Parameter(torch.tensor([value], dtype=torch.float64)) for value in values])


def test_an_average_keeps_its_decay_and_takes_the_rest_of_the_weights() -> None:
    averages = [torch.tensor([4.0], dtype=torch.float64), torch.tensor([0.0], dtype=torch.float64)]
    trained = weights(8.0, 1.0)
    trained.ema_update(averages, 0.75)
    assert [value.item() for value in averages] == [5.0, 0.25]
    trained.ema_update(averages, 1.0)
    assert [value.item() for value in averages] == [5.0, 0.25]
    trained.ema_update(averages, 0.0)
    assert [value.item() for value in averages] == [8.0, 1.0]
    assert [value.item() for value in trained.trained] == [8.0, 1.0]


def test_after_n_steps_an_average_holds_the_decays_nth_power_of_where_it_began() -> None:
    averages = [torch.zeros(1, dtype=torch.float64)]
    for _ in range(10):
        weights(1.0).ema_update(averages, 0.9)
    torch.testing.assert_close(averages[0], torch.tensor([1 - 0.9**10], dtype=torch.float64))


def test_values_are_exchanged_and_a_second_time_put_back() -> None:
    trained, others = weights(1.0, 2.0), weights(3.0, 4.0).copy()
    kept = trained.copy()
    trained.swap(others)
    assert [value.item() for value in (*trained.trained, *others)] == [3.0, 4.0, 1.0, 2.0]
    trained.swap(others)
    assert [value.item() for value in (*trained.trained, *others)] == [1.0, 2.0, 3.0, 4.0]
    trained.trained[0].data += 1
    assert kept[0].item() == 1.0, "a copy does not follow"


def test_values_are_put_back_after_a_block_that_fails() -> None:
    trained, others = weights(1.0), weights(2.0).copy()

    def fail() -> None:
        with trained.swapped(others):
            assert (trained.trained[0].item(), others[0].item()) == (2.0, 1.0)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert (trained.trained[0].item(), others[0].item()) == (1.0, 2.0)


def test_pieces_are_the_places_that_count_in_parts() -> None:
    counting = torch.tensor([True, False, True, True, True, True])
    assert [part.tolist() for part in micro_batches(counting, 2)] == [[0, 2], [3, 4], [5]]
    assert micro_batches(counting & False, 2) == []
