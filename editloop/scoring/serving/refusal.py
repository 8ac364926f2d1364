"""Why a request gets no scores, as an HTTP status with words."""

from fastapi import HTTPException


class HttpRefusal(HTTPException):
    """A request that gets an error status instead of a result; `detail` says what is wrong, for the client."""


class OverloadedError(Exception):
    """The queue or the memory is full, or the client holds its share of it."""

    def __init__(self, seconds: int, reason: str = "the queue is full"):
        """Create the error.

        Args:
            seconds: Estimated time, in seconds, until there is room.
            reason: What there is too much of.
        """
        super().__init__(f"{reason}; ask again in {seconds} s")
        self.seconds = seconds


class UnavailableError(Exception):
    """No worker could answer this request."""
