"""Steps, units and learning rates of a training: closed forms."""

import math
from typing import Any

import numpy as np
import pytest

from editloop.training.schedule import TrainingSchedule, learning_rate
from editloop.training.settings import TrainingSettings


def settings(**told: Any) -> TrainingSettings:
    return TrainingSettings(**({"epochs": 3, "learning_rate": 1.0} | told))


def test_a_cosine_begins_at_its_peak_and_would_end_at_nothing_one_step_after_the_last() -> None:
    rates = [learning_rate(settings(warmup=0.0, learning_rate=0.4), step, 4) for step in range(4)]
    assert rates == pytest.approx([0.4, 0.2 + 0.2 * math.sqrt(0.5), 0.2, 0.2 - 0.2 * math.sqrt(0.5)])
    assert learning_rate(settings(warmup=0.0), 4, 4) == pytest.approx(0)


def test_a_warm_up_rises_in_equal_steps_to_the_peak_and_the_lower_of_both_counts() -> None:
    level = [
        learning_rate(settings(schedule="constant", warmup=0.25, learning_rate=2.0), step, 16) for step in range(16)
    ]
    assert level == pytest.approx([0.5, 1.0, 1.5] + [2.0] * 13)
    assert learning_rate(settings(schedule="constant", warmup=0.0), 0, 16) == 1.0
    both = [learning_rate(settings(warmup=0.5), step, 8) for step in range(8)]
    cosine = [(1 + math.cos(math.pi * step / 8)) / 2 for step in range(8)]
    assert both == pytest.approx([0.25, 0.5, 0.75, *cosine[3:]])


@pytest.mark.parametrize(("ranks", "micro"), [(1, None), (2, 2), (3, 2), (8, 1), (5, 3)])
def test_a_steps_units_are_each_computed_once_however_ranks_share_them(ranks: int, micro: int | None) -> None:
    told = settings(batch=16, micro_batch=micro)
    course = TrainingSchedule.of(told, 50, ranks)
    units = course.units_of(0, seed=0)
    computed = [
        unit
        for pass_index in range(course.passes)
        for rank in range(ranks)
        for unit in course.rank_units(units, pass_index, rank, ranks)
    ]
    assert computed == units.tolist()
    assert (course.epoch, course.total) == (3, 9)


def test_no_pass_is_made_for_nothing() -> None:
    for ranks, micro, expected in (
        (1, None, (16, 1)),
        (2, 2, (2, 4)),
        (3, 4, (4, 2)),
        (5, None, (4, 1)),
        (16, 8, (1, 1)),
    ):
        course = TrainingSchedule.of(settings(batch=16, micro_batch=micro), 50, ranks)
        assert (course.micro, course.passes) == expected


def test_steps_take_the_place_of_epochs() -> None:
    course = TrainingSchedule.of(settings(epochs=None, steps=7, batch=4), 10, 1)
    assert (course.units, course.epoch, course.total) == (10, 2, 7)


def test_an_epoch_meets_a_unit_at_most_once_and_epochs_differ() -> None:
    course = TrainingSchedule.of(settings(batch=8), 40, 2)
    epochs = [np.concatenate([course.units_of(5 * epoch + step, seed=0) for step in range(5)]) for epoch in range(2)]
    assert all(sorted(epoch) == list(range(40)) for epoch in epochs)
    assert not np.array_equal(*epochs)
    assert np.array_equal(course.units_of(7, seed=0), course.units_of(7, seed=0))
    assert not np.array_equal(course.units_of(7, seed=0), course.units_of(7, seed=1))


def test_fewer_units_than_a_batch_are_one_batch() -> None:
    course = TrainingSchedule.of(settings(batch=64, micro_batch=8), 10, 2)
    assert (course.batch, course.micro, course.passes, course.total) == (10, 5, 1, 3)
