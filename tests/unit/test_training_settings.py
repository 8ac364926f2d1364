"""Training settings: impossible ones are refused with the rule; steps, units and rates follow from them."""

from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from transformers import get_cosine_schedule_with_warmup

from components.training.course import Course, learning_rate
from components.training.settings import TrainingSettings


def settings(**told: Any) -> TrainingSettings:
    return TrainingSettings(**({"epochs": 3, "learning_rate": 1.0} | told))


@pytest.mark.parametrize(
    ("told", "rule"),
    [
        ({"steps": 5}, "give exactly one"),
        ({"epochs": None}, "give exactly one"),
        ({"batch": 4, "micro_batch": 5}, "at most the batch's units"),
        ({"zero_stage": 0, "offload": "optimizer"}, "take stage 1 to 3"),
        ({"zero_stage": 2, "offload": "parameters"}, "only stage 3"),
        ({"warmup": 1.0}, "less than 1"),
        ({"zero_stage": 4}, "0, 1, 2 or 3"),
        ({"learning_rat": 1.0}, "Extra inputs"),
    ],
)
def test_what_cannot_be_is_refused_with_the_rule(told: dict[str, Any], rule: str) -> None:
    with pytest.raises(ValidationError, match=rule):
        settings(**told)


@pytest.mark.parametrize(("ranks", "micro"), [(1, None), (2, 2), (3, 2), (8, 1), (5, 3)])
def test_a_steps_units_are_each_computed_once_however_ranks_share_them(ranks: int, micro: int | None) -> None:
    told = settings(batch=16, micro_batch=micro)
    course = Course.of(told, 50, ranks)
    places = [
        place
        for turn in range(course.passes)
        for rank in range(ranks)
        for place in range((turn * ranks + rank) * course.micro, (turn * ranks + rank + 1) * course.micro)
    ]
    assert [place for place in places if place < course.batch] == list(range(16))
    assert (course.epoch, course.total) == (3, 9)


def test_an_epoch_meets_a_unit_at_most_once_and_epochs_differ() -> None:
    course = Course.of(settings(batch=8), 40, 2)
    epochs = [np.concatenate([course.units_of(5 * epoch + step, seed=0) for step in range(5)]) for epoch in range(2)]
    assert all(sorted(epoch) == list(range(40)) for epoch in epochs)
    assert not np.array_equal(*epochs)
    assert np.array_equal(course.units_of(7, seed=0), course.units_of(7, seed=0))
    assert not np.array_equal(course.units_of(7, seed=0), course.units_of(7, seed=1))


def test_fewer_units_than_a_batch_are_one_batch() -> None:
    course = Course.of(settings(batch=64, micro_batch=8), 10, 2)
    assert (course.batch, course.micro, course.passes, course.total) == (10, 5, 1, 3)


def test_the_rate_rises_to_its_peak_and_falls_as_the_library_has_it() -> None:
    """Hugging Face's cosine begins at the end of the warm-up, ours spans all steps: without warm-up they are one."""
    steps = 40
    optimiser = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    schedule = get_cosine_schedule_with_warmup(optimiser, 0, steps)
    for step in range(steps):
        assert learning_rate(settings(warmup=0.0), step, steps) == pytest.approx(schedule.get_last_lr()[0])
        optimiser.step()
        schedule.step()
    level = [learning_rate(settings(schedule="constant", warmup=0.25), step, steps) for step in range(steps)]
    assert level[:10] == pytest.approx([(step + 1) / 10 for step in range(10)])
    assert level[10:] == [1.0] * 30
