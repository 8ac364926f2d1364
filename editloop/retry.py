"""How calls are repeated while a service is unreachable or busy: one policy for all services."""

import logging
import math
from collections.abc import Callable
from typing import TypeVar

from tenacity import RetryCallState, Retrying, retry_if_exception, wait_exponential

log = logging.getLogger(__name__)

Result = TypeVar("Result")

PATIENT_WAIT = wait_exponential(0.5, max=10)
"""Seconds between two tries: half a second, then twice as long each time, 10 at most."""


def retry_call(
    call: Callable[[], Result],
    is_temporary: Callable[[BaseException], bool],
    *,
    seconds: float = math.inf,
    tries: float = math.inf,
    wait: Callable[[RetryCallState], float] = PATIENT_WAIT,
    announcement: str | None = None,
    recovery: str | None = None,
) -> Result:
    """Return the result of `call`, repeated while it raises temporary errors.

    A reply can be lost after a server acted on the request, so `call` must be safe to repeat as a whole. Other errors
    are raised at once; after the last try its error is raised.

    Args:
        call: The function to call.
        is_temporary: Returns whether another try may succeed after an error.
        seconds: Time after which no further try begins.
        tries: Most tries.
        wait: Returns the seconds between two tries.
        announcement: Message before the first wait; None for none.
        recovery: Message once a repeated call succeeds; None for none.
    """

    def announce(state: RetryCallState) -> None:
        if state.attempt_number == 1 and announcement:
            log.warning(announcement)

    retrying = Retrying(
        retry=retry_if_exception(is_temporary),
        stop=lambda state: (state.seconds_since_start or 0) >= seconds or state.attempt_number >= tries,
        wait=wait,
        before_sleep=announce,
        reraise=True,
    )
    result = retrying(call)
    if retrying.statistics["attempt_number"] > 1 and recovery:
        log.info(recovery)
    return result
