"""A campaign that failed in a reconcile pass: what failed, and when the next pass tries it again.

The failure is a tag of the MLflow run that opened the campaign, so that passes of a CronJob and of other machines know
of it. The pause grows with each failure; it ends when a pass succeeds, or when the campaign is opened again.
"""

import logging
import traceback
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError

from editloop.errors import EditLoopError
from editloop.lineage import tracking
from editloop.lineage.mlflow_errors import translate_error
from editloop.settings_file import FrozenModel

if TYPE_CHECKING:
    from mlflow.entities import Run

log = logging.getLogger("editloop.reconcile")

TAG = "editloop.reconcile_failure"
FIRST_PAUSE, LONGEST_PAUSE = timedelta(minutes=1), timedelta(hours=1)
"""Pause after the first failure, which doubles with each further one, and its end: an hour after the cause was mended
without a word, the campaign goes on."""
LONGEST_REASON = 2000
"""Characters of a reason that are kept; MLflow's limit for a tag is 8,000 bytes."""


class CampaignFailure(FrozenModel):
    """The last of a campaign's failures in a row."""

    reason: str
    count: int
    """Failures in a row."""
    at: datetime

    @property
    def retry_at(self) -> datetime:
        """When a pass tries the campaign again."""
        doublings = min(self.count - 1, 10)
        return self.at + min(FIRST_PAUSE * (1 << doublings), LONGEST_PAUSE)

    @property
    def has_paused(self) -> bool:
        """Whether a pass may try the campaign again. A failure in the future is of a clock that was ahead."""
        return not self.at <= datetime.now(UTC) < self.retry_at

    def __str__(self) -> str:
        times = "once" if self.count == 1 else f"{self.count} times"
        return (
            f"{self.reason} (failed {times}; tried again after {self.retry_at:%H:%M:%S} UTC, or at once by `editloop "
            "reconcile --once --again`)"
        )


def read_failure(run: "Run") -> CampaignFailure | None:
    """Return the failure that the last pass left; None where it succeeded.

    Args:
        run: The run that opened the campaign.
    """
    try:
        return CampaignFailure.model_validate_json(run.data.tags[TAG]) if TAG in run.data.tags else None
    except ValidationError:  # a person changed the tag
        return None


def keep_failure(run: "Run", reason: str, before: CampaignFailure | None) -> None:
    """Keep a failure for later passes.

    Args:
        run: The run that opened the campaign.
        reason: What failed.
        before: The failure that the pass before left; None where it succeeded.
    """
    count = before.count + 1 if before else 1
    failure = CampaignFailure(reason=reason[:LONGEST_REASON], count=count, at=datetime.now(UTC))
    tracking.client().set_tag(run.info.run_id, TAG, failure.model_dump_json())


def forget_failure(run: "Run") -> None:
    """Note that the campaign's pass succeeded.

    Args:
        run: The run that opened the campaign.
    """
    tracking.client().delete_tag(run.info.run_id, TAG)


def failure_reason(error: Exception) -> str:
    """Return why a campaign failed: an EditLoopError's message, or of a defect its kind and place.

    Args:
        error: What its pass raised.
    """
    if isinstance(error, EditLoopError):
        return str(error)
    if translated := translate_error(error):
        return str(translated)
    log.debug("a defect", exc_info=error)
    call = traceback.extract_tb(error.__traceback__)[-1]
    message = " ".join(str(error).split())
    place = f"{Path(call.filename).name}:{call.lineno}"
    return f"{type(error).__name__}: {message} ({place}; EDITLOOP_LOG_LEVEL=DEBUG tells more)"
