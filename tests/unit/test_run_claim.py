"""When a claim of a run counts as abandoned, also where a clock was wrong."""

import time
from types import SimpleNamespace
from typing import Any, cast

import pytest
from mlflow.tracking import MlflowClient

from editloop.lineage.run_claim import BEAT_TAG, CLOCK_SECONDS, SUBMISSION_SECONDS, latest_claim

DAY = 86400.0


@pytest.mark.parametrize(
    ("created", "beat", "abandoned"),
    [
        (0.0, None, False),
        (-SUBMISSION_SECONDS - 5, None, True),
        (-DAY, 0.0, False),
        (-DAY, -SUBMISSION_SECONDS - 5, True),
        (CLOCK_SECONDS - 60, None, False),
        (DAY, None, True),
        (DAY, 0.0, False),
        (-DAY, DAY, True),
    ],
)
def test_a_claim_without_a_sign_of_life_is_abandoned(created: float, beat: float | None, abandoned: bool) -> None:
    """Times in seconds from now."""
    now = time.time()
    tags = {} if beat is None else {BEAT_TAG: str(now + beat)}
    experiment = SimpleNamespace(experiment_id="1", creation_time=int((now + created) * 1000), tags=tags)

    class Api:
        def get_experiment_by_name(self, name: str) -> Any:
            return experiment if name.endswith("/1") else None

    claim = latest_claim(cast(MlflowClient, Api()), "key")
    assert claim is not None
    assert claim.is_abandoned == abandoned
