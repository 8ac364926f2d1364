"""Training settings: impossible ones are refused with the rule; rates are the library's where it has the same."""

from typing import Any

import pytest
import torch
from pydantic import ValidationError
from transformers import get_cosine_schedule_with_warmup

from editloop.training.schedule import learning_rate
from editloop.training.settings import TrainingSettings


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
        ({"frozen_embeddings": True, "adapter": {"rank": 4, "alpha": 8}}, "an adapter freezes them anyway"),
        ({"warmup": 1.0}, "less than 1"),
        ({"zero_stage": 4}, "0, 1, 2 or 3"),
        ({"learning_rat": 1.0}, "Extra inputs"),
    ],
)
def test_what_cannot_be_is_refused_with_the_rule(told: dict[str, Any], rule: str) -> None:
    with pytest.raises(ValidationError, match=rule):
        settings(**told)


def test_the_rate_falls_as_the_library_has_it() -> None:
    """Hugging Face's cosine begins at the end of the warm-up, ours spans all steps: without warm-up they are one."""
    steps = 40
    optimiser = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    schedule = get_cosine_schedule_with_warmup(optimiser, 0, steps)
    for step in range(steps):
        assert learning_rate(settings(warmup=0.0), step, steps) == pytest.approx(schedule.get_last_lr()[0])
        optimiser.step()
        schedule.step()
